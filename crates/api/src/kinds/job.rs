//! Job.

mod policy;

use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::time::{self, Timestamp};
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, ago, int, name, text};
use super::rules::{Check, Rule, check_at, check_immutable};
use super::{Kind, conditions, fill, first_generation, keep_status_count_spec, pod_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "Status of the job."),
        Column::text("Completions", ".status.succeeded"),
        Column::text("Duration", "Time required to complete the job."),
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        templated::SELECTOR,
    ],
    row: Some(row),
    defaults,
    prepare_create,
    prepare_update: keep_status_count_spec,
    validate_create,
    validate_status_update,
    orphans: true,
    validate_update,
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    selectable: |job| vec![("status.successful", int(job, &["status", "succeeded"]).to_string())],
    selectable_names: &["status.successful"],
    ..Kind::PLAIN
};

fn status(job: &Value) -> &'static str {
    if conditions::holds(job, "Complete") {
        "Complete"
    } else if conditions::holds(job, "Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if conditions::holds(job, "Suspended") {
        "Suspended"
    } else if conditions::holds(job, "FailureTarget") {
        "FailureTarget"
    } else if conditions::holds(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn row(job: &Value, now: Timestamp) -> Vec<Cell> {
    let succeeded = int(job, &["status", "succeeded"]);
    let completions = match (job.int_at(&["spec", "completions"]), int(job, &["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    let start = time::parse(text(job, &["status", "startTime"]));
    let end = time::parse(text(job, &["status", "completionTime"])).unwrap_or(now);
    let duration = start.map_or(String::new(), |start| ago(start, end));
    let mut cells = vec![name(job), status(job).into(), completions.into(), duration.into(), age(job, now)];
    cells.extend([templated::CONTAINERS, templated::IMAGES, templated::SELECTOR].map(|c| c.cell(job, now)));
    cells
}

fn defaults(job: &mut Value) {
    pod_spec::template_defaults(job, &["spec", "template"]);
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    if !labels.is_empty() && job["metadata"]["labels"].is_empty() {
        job.set(&["metadata", "labels"], labels);
    }
    let spec = job.slot(&["spec"]);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec.set(&["completions"], 1);
    }
    spec.set_default(&["parallelism"], 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    spec.set_default(&["backoffLimit"], limit);
    fill::unset(spec, "completionMode", "NonIndexed");
    spec.set_default(&["suspend"], false);
    spec.set_default(&["manualSelector"], false);
    let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill::unset(spec, "podReplacementPolicy", policy);
    fill::each(spec, &["podFailurePolicy", "rules"], |rule| {
        fill::each(rule, &["onPodConditions"], |condition| fill::text(condition, "status", "True"));
    });
}

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Without a selector of its own a job is told apart by its uid, which its pods carry as a label.
fn prepare_create(job: &mut Value) {
    job.set(&["status"], Value::object());
    first_generation(job);
    if job.bool_at(&["spec", "manualSelector"]) == Some(true) {
        return;
    }
    let labels_before = job["spec"]["template"]["metadata"]["labels"].clone();
    let uid = text(job, &["metadata", "uid"]).to_string();
    let name = text(job, &["metadata", "name"]).to_string();
    if uid.is_empty() {
        return;
    }
    for (labels, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for label in labels {
            job.set_default(&["spec", "template", "metadata", "labels", label], value);
        }
    }
    job.set_default(&["spec", "selector", "matchLabels", UID_LABELS[0]], &uid);
    // Labels that were not the client's are those of the pods.
    if job["metadata"]["labels"].is_empty() || job["metadata"]["labels"] == labels_before {
        let labels = job["spec"]["template"]["metadata"]["labels"].clone();
        job.set(&["metadata", "labels"], labels);
    }
}

const RULES: &[Rule] = &[
    ("parallelism", Check::NonNegative),
    ("completions", Check::NonNegative),
    ("activeDeadlineSeconds", Check::NonNegative),
    ("backoffLimit", Check::NonNegative),
    ("backoffLimitPerIndex", Check::NonNegative),
    ("maxFailedIndexes", Check::NonNegative),
    ("ttlSecondsAfterFinished", Check::NonNegative),
    ("completionMode", Check::GivenOneOf(&["NonIndexed", "Indexed"])),
    ("podReplacementPolicy", Check::GivenOneOf(&["Failed", "TerminatingOrFailed"])),
];

/// Checks a JobSpec at `path`; also for the template of a CronJob.
pub(super) fn validate_spec(holder: &Value, path: &Path, errors: &mut Errors) {
    let spec = &holder["spec"];
    check_at(spec, path, RULES, errors);
    let indexed = text(spec, &["completionMode"]) == "Indexed";
    if indexed && spec["completions"].is_null() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    policy::validate_indexes(spec, path, indexed, errors);
    policy::validate_failure(spec, path, errors);
    policy::validate_success(spec, path, indexed, errors);
    if let Some(name) = spec.str_at(&["managedBy"]) {
        let at = path.child("managedBy");
        errors.extend(names::domain_path(name).into_iter().map(|detail| Error::invalid(&at, name, detail)));
        if name.len() > MANAGED_BY_MAX_BYTES {
            errors.push(Error::too_long(&at, MANAGED_BY_MAX_BYTES));
        }
    }
    let replacement = text(spec, &["podReplacementPolicy"]);
    if !spec["podFailurePolicy"].is_null() && replacement == "TerminatingOrFailed" {
        errors.push(Error::not_supported(&path.child("podReplacementPolicy"), replacement, &["Failed"]));
    }
}

/// Checks when the pods of a JobSpec at `path` start again: upstream tells it after what is wrong with their template.
pub(super) fn validate_restarts(spec: &Value, path: &Path, errors: &mut Errors) {
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    let at = path.child("template.spec.restartPolicy");
    if policy.is_empty() || policy == "Always" {
        let detail = format!("valid values: {:?}, {:?}", "OnFailure", "Never");
        errors.push(Error::required(&at, detail));
    } else if !["OnFailure", "Never"].contains(&policy) {
        errors.push(Error::not_supported(&at, policy, &["OnFailure", "Never"]));
    } else if !spec["podFailurePolicy"].is_null() && policy != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(Error::invalid(&at, policy, detail));
    }
}

const MANAGED_BY_MAX_BYTES: usize = 63;

fn validate_create(job: &Value) -> Errors {
    let mut errors = Errors::new();
    if job.bool_at(&["spec", "manualSelector"]) != Some(true) {
        validate_generated(job, &mut errors);
    }
    errors.extend(validate(job));
    let last = int(job, &["spec", "completions"]) - 1;
    if text(job, &["spec", "completionMode"]) == "Indexed" && last >= 0 {
        let host = format!("{}-{last}", text(job, &["metadata", "name"]));
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(Error::invalid(&Path::new("metadata.name"), text(job, &["metadata", "name"]), detail));
        }
    }
    errors
}

/// What the server writes into the template and the selector must not have been written differently by the client.
fn validate_generated(job: &Value, errors: &mut Errors) {
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    let expected = [(UID_LABELS, text(job, &["metadata", "uid"])), (NAME_LABELS, text(job, &["metadata", "name"]))];
    let mut wanted = meta::Map::default();
    for (label, value) in expected.into_iter().flat_map(|(labels, value)| labels.map(|label| (label, value))) {
        wanted.insert(label, value);
        if text(labels, &[label]) != value {
            let at = Path::new("spec.template.metadata.labels").key(label);
            errors.push(Error::invalid(&at, text(labels, &[label]), format!("must be '{value}'")));
        }
    }
    let selector = &job["spec"]["selector"];
    if LabelSelector::from_object(selector).is_ok_and(|selector| !selector.matches(&wanted)) {
        errors.push(Error::invalid(&Path::new("spec.selector"), selector, "`selector` not auto-generated"));
    }
}

/// Conditions that exclude each other.
const EXCLUSIVE: [(&str, &str); 4] = [
    ("Complete", "Failed"),
    ("Complete", "FailureTarget"),
    ("SuccessCriteriaMet", "Failed"),
    ("SuccessCriteriaMet", "FailureTarget"),
];

fn validate_status_counts(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let status = &new["status"];
    let counts = ["active", "succeeded", "failed", "ready", "terminating"];
    check_at(status, path, &counts.map(|count| (count, Check::NonNegative)), errors);
    let mut seen = Vec::new();
    for list in ["succeeded", "failed"] {
        let at = path.child("uncountedTerminatedPods").child(list);
        for (i, uid) in status.array_at(&["uncountedTerminatedPods", list]).iter().enumerate() {
            if uid.is_empty() {
                errors.push(Error::invalid(&at.index(i), uid, "must not be empty"));
            } else if seen.contains(&uid) {
                errors.push(Error::duplicate(&at.index(i), uid));
            } else {
                seen.push(uid);
            }
        }
    }
    if !status["completionTime"].is_null() && !conditions::holds(new, "Complete") {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.push(Error::invalid(&path.child("completionTime"), &status["completionTime"], detail));
    }
    validate_indexes(new, path, errors);
    if int(status, &["ready"]) > int(status, &["active"]).max(0) {
        let detail = "cannot set more ready pods than active";
        errors.push(Error::invalid(&path.child("ready"), &status["ready"], detail));
    }
    for field in ["failed", "succeeded"] {
        let n = int(status, &[field]);
        if n < int(old, &["status", field]) {
            errors.push(Error::invalid(&path.child(field), n, format!("cannot decrease the {field} counter")));
        }
    }
    let started = &old["status"]["startTime"];
    if !started.is_null() && status["startTime"] != *started && new.bool_at(&["spec", "suspend"]) != Some(true) {
        let detail = "field is immutable for unsuspended job once set";
        errors.push(Error::invalid(&path.child("startTime"), &status["startTime"], detail));
    }
}

fn validate_indexes(new: &Value, path: &Path, errors: &mut Errors) {
    let completions = int(new, &["spec", "completions"]);
    let mut parsed = |field: &str| {
        let shown = text(new, &["status", field]);
        match parse_indexes(shown, completions) {
            Ok(ranges) => Some(ranges),
            Err(detail) => {
                let detail = format!("error parsing {field}: {detail}");
                errors.push(Error::invalid(&path.child(field), shown, detail));
                None
            }
        }
    };
    let (completed, failed) = (parsed("completedIndexes"), parsed("failedIndexes"));
    let Some(shown) = new.str_at(&["status", "failedIndexes"]) else { return };
    let at = path.child("failedIndexes");
    if new["spec"]["backoffLimitPerIndex"].is_null() {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(Error::invalid(&at, shown, detail));
    }
    let mut both = completed.iter().flatten().flat_map(|c| failed.iter().flatten().map(move |f| (c, f)));
    if let Some((c, f)) = both.find(|(c, f)| c.0 <= f.1 && f.0 <= c.1) {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {}", c.0.max(f.0));
        errors.push(Error::invalid(&at, shown, detail));
    }
}

/// Indexes as a status has them, such as `1,3-5`: first and last of each range.
fn parse_indexes(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    let mut previous: Option<i64> = None;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let mut range = Vec::new();
        for index in part.split('-') {
            let wrong = || format!("cannot convert string to integer for index: {index:?}");
            let n: i64 = index.parse().map_err(|_| wrong())?;
            if n >= completions {
                return Err(format!("too large index: {index:?}"));
            }
            if let Some(previous) = previous.filter(|previous| *previous >= n) {
                return Err(format!("non-increasing order, previous: {previous}, current: {n}"));
            }
            previous = Some(n);
            range.push(n);
        }
        ranges.push((range[0], range[range.len() - 1]));
    }
    Ok(ranges)
}

/// A job that has finished stays so, was about to before, and has nothing left that runs.
fn validate_status_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let is = |ty: &str| conditions::holds(new, ty);
    validate_status_counts(new, old, &path, &mut errors);
    let mut wrong = |detail: String| errors.push(Error::invalid_as_a_whole(&path.child("conditions"), detail));
    for (a, b) in EXCLUSIVE.into_iter().filter(|(a, b)| is(a) && is(b)) {
        wrong(format!("cannot set {a}=True and {b}=true conditions"));
    }
    for (end, before) in [("Failed", "FailureTarget"), ("Complete", "SuccessCriteriaMet")] {
        if is(end) && !conditions::holds(old, end) && !is(before) {
            wrong(format!("cannot set {end}=True condition without the {before}=true condition"));
        }
    }
    for ty in ["Complete", "Failed", "FailureTarget"].into_iter().filter(|ty| conditions::holds(old, ty) && !is(ty)) {
        wrong(format!("cannot disable the terminal {ty}=True condition"));
    }
    if is("Complete") || is("Failed") {
        for field in ["active", "terminating"] {
            if let Some(n) = new.int_at(&["status", field]).filter(|n| *n > 0) {
                errors.push(Error::invalid(&path.child(field), n, format!("{field}>0 is invalid for finished job")));
            }
        }
        if new["status"]["startTime"].is_null() {
            errors.push(Error::required(&path.child("startTime"), "startTime is required for finished job"));
        }
    }
    if is("Complete") && new["status"]["completionTime"].is_null() {
        errors.push(Error::required(&path.child("completionTime"), "completionTime is required for Complete jobs"));
    }
    errors
}

fn validate(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    validate_spec(job, &path, &mut errors);
    pod_spec::validate_template(job, None, &mut errors);
    validate_restarts(&job["spec"], &path, &mut errors);
    let selector = &job["spec"]["selector"];
    if selector.is_null() {
        errors.push(Error::required(&path.child("selector"), ""));
        pod_spec::validate_template_labels(job, &LabelSelector::nothing(), &mut errors);
        return errors;
    }
    let wrong = LabelSelector::validate(selector, &path.child("selector"));
    if wrong.is_empty() {
        pod_spec::validate_template_labels(job, &LabelSelector::from_valid_object(selector), &mut errors);
    }
    errors.extend(wrong);
    errors
}

/// What of a job's template may change while it is suspended and has not started.
const TEMPLATE_MUTABLE: [&[&str]; 6] = [
    &["metadata", "labels"],
    &["metadata", "annotations"],
    &["spec", "nodeSelector"],
    &["spec", "affinity"],
    &["spec", "tolerations"],
    &["spec", "schedulingGates"],
];

fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = validate(new);
    let mut rules: Vec<Rule> = vec![
        ("spec.selector", Check::Immutable),
        ("spec.completionMode", Check::Immutable),
        ("spec.podFailurePolicy", Check::Immutable),
        ("spec.backoffLimitPerIndex", Check::Immutable),
        ("spec.managedBy", Check::Immutable),
        ("spec.successPolicy", Check::Immutable),
    ];
    // An indexed job grows and shrinks when both numbers change together.
    let indexed = text(new, &["spec", "completionMode"]) == "Indexed" && !new["spec"]["completions"].is_null();
    let elastic = indexed && new["spec"]["completions"] == new["spec"]["parallelism"];
    if !elastic {
        if new["spec"]["completions"] != old["spec"]["completions"] && indexed {
            let detail = "can only be modified in tandem with spec.parallelism";
            errors.push(Error::invalid(&Path::new("spec.completions"), &new["spec"]["completions"], detail));
        } else {
            rules.push(("spec.completions", Check::Immutable));
        }
    }
    check_immutable(new, old, &rules, &mut errors);
    let suspended = old.bool_at(&["spec", "suspend"]) == Some(true) && old["status"]["startTime"].is_null();
    let mut template = new["spec"]["template"].clone();
    if suspended {
        for path in TEMPLATE_MUTABLE {
            match old["spec"]["template"].at(path) {
                Some(value) => template.set(path, value),
                None => {
                    template.remove(path);
                }
            }
        }
        for list in ["initContainers", "containers"] {
            fill::each(&mut template, &["spec", list], |container| {
                let same = |was: &&Value| was["name"] == container["name"];
                let was = old["spec"]["template"].array_at(&["spec", list]).iter().find(same);
                let resources = was.map_or(Value::Null, |was| was["resources"].clone());
                container.set(&["resources"], resources);
            });
        }
    }
    if template != old["spec"]["template"] {
        let at = Path::new("spec.template");
        errors.push(Error::invalid(&at, &new["spec"]["template"], "field is immutable"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    fn wrong(spec: Value) -> String {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}});
        for (field, value) in spec.as_object().expect("an object").iter() {
            job.set(&["spec", field], value);
        }
        (KIND.defaults)(&mut job);
        (KIND.prepare_create)(&mut job);
        (KIND.validate_create)(&job).iter().map(|error| format!("{error}\n")).collect()
    }

    #[test]
    fn specs() {
        let indexed = |more: Value| {
            let mut spec = json!({"completionMode": "Indexed", "completions": 3});
            more.as_object().expect("an object").iter().for_each(|(field, value)| spec.set(&[field], value));
            spec
        };
        let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let codes = |op: &str, values: Value| json!({"operator": op, "values": values, "containerName": "x"});
        let out = [
            json!({}),
            json!({"completionMode": "Indexed", "managedBy": "me"}),
            json!({"backoffLimitPerIndex": 1, "successPolicy": {"rules": []}}),
            indexed(json!({"maxFailedIndexes": 4})),
            indexed(json!({"successPolicy": {"rules": [{}, {"succeededIndexes": "0-3"}, {"succeededIndexes": "1", "succeededCount": 2}]}})),
            rule(json!({"action": "FailIndex", "onExitCodes": codes("In", json!([3, 0, 3]))})),
            rule(json!({"action": "Odd"})),
            json!({"selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "other"}}}),
        ]
        .map(wrong);
        expect_test::expect_file!["job/specs.txt"].assert_eq(&out.join("--\n"));
    }
}
