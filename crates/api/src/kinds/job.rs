//! Job.

use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::time::{self, Timestamp};
use meta::Value;

use super::columns::{AGE, Cell, Column, NAME, age, ago, int, name, text};
use super::rules::{Check, Rule, check_at, check_immutable};
use super::{Kind, fill, first_generation, keep_status_count_spec, pod_spec, workload};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "Status of the job."),
        Column::text("Completions", "How many of the wanted pods have finished successfully."),
        Column::text("Duration", "Time required to complete the job."),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    row: Some(row),
    defaults,
    prepare_create,
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update,
    selectable: |job| vec![("status.successful", int(job, &["status", "succeeded"]).to_string())],
    selectable_names: &["status.successful"],
    ..Kind::PLAIN
};

fn has_condition(job: &Value, ty: &str) -> bool {
    let conditions = job.array_at(&["status", "conditions"]);
    conditions.iter().any(|c| text(c, &["type"]) == ty && text(c, &["status"]) == "True")
}

fn status(job: &Value) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
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
    cells.extend([workload::CONTAINERS, workload::IMAGES, workload::SELECTOR].map(|c| c.cell(job, now)));
    cells
}

fn defaults(job: &mut Value) {
    pod_spec::template_defaults(job, &["spec", "template"]);
    let spec = job.slot(&["spec"]);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec.set(&["completions"], 1);
    }
    spec.set_default(&["parallelism"], 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    spec.set_default(&["backoffLimit"], limit);
    fill::text(spec, "completionMode", "NonIndexed");
    spec.set_default(&["suspend"], false);
    let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill::text(spec, "podReplacementPolicy", policy);
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
    let uid = text(job, &["metadata", "uid"]).to_string();
    let name = text(job, &["metadata", "name"]).to_string();
    if uid.is_empty() {
        return;
    }
    for (labels, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for label in labels {
            job.set(&["spec", "template", "metadata", "labels", label], value);
        }
    }
    if job["spec"]["selector"].is_null() {
        job.set(&["spec", "selector", "matchLabels", UID_LABELS[0]], &uid);
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
    ("completionMode", Check::OneOf(&["Indexed", "NonIndexed"])),
    ("podReplacementPolicy", Check::OneOf(&["Failed", "TerminatingOrFailed"])),
];

/// Checks a JobSpec at `path`; also for the template of a CronJob.
pub(super) fn validate_spec(holder: &Value, path: &Path, errors: &mut Errors) {
    let spec = &holder["spec"];
    check_at(spec, path, RULES, errors);
    let indexed = text(spec, &["completionMode"]) == "Indexed";
    if indexed && spec["completions"].is_null() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if indexed && int(spec, &["parallelism"]) > 100_000 {
        let detail = "must be less than or equal to 100000 when completion mode is Indexed";
        errors.push(Error::invalid(&path.child("parallelism"), int(spec, &["parallelism"]), detail));
    }
    if !indexed && !spec["backoffLimitPerIndex"].is_null() {
        let n = int(spec, &["backoffLimitPerIndex"]);
        errors.push(Error::invalid(&path.child("backoffLimitPerIndex"), n, "requires indexed completion mode"));
    }
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    let at = path.child("template.spec.restartPolicy");
    if policy.is_empty() || policy == "Always" {
        let detail = format!("valid values: {:?}, {:?}", "OnFailure", "Never");
        errors.push(Error::required(&at, detail));
    }
    if !spec["podFailurePolicy"].is_null() && policy != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(Error::invalid(&at, policy, detail));
    }
}

fn validate(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    validate_spec(job, &path, &mut errors);
    let selector = &job["spec"]["selector"];
    let mut parsed = None;
    if selector.is_null() {
        errors.push(Error::required(&path.child("selector"), ""));
    } else {
        let wrong = LabelSelector::validate(selector, &path.child("selector"));
        if wrong.is_empty() {
            parsed = Some(LabelSelector::from_valid_object(selector));
        }
        errors.extend(wrong);
    }
    pod_spec::validate_template(job, parsed.as_ref(), &mut errors);
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
    let elastic = text(new, &["spec", "completionMode"]) == "Indexed"
        && new["spec"]["completions"] == new["spec"]["parallelism"];
    if !elastic {
        rules.push(("spec.completions", Check::Immutable));
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
    }
    if template != old["spec"]["template"] {
        let at = Path::new("spec.template");
        errors.push(Error::invalid(&at, &new["spec"]["template"], "field is immutable"));
    }
    errors
}
