//! CronJob.

use meta::cron::{Schedule, time_zone};
use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, name, selector, since, text, text_or};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, first_generation, job, keep_status_count_spec, pod_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Schedule", ".spec.schedule"),
        Column::text("Timezone", ".spec.timeZone"),
        Column::flag("Suspend", ".spec.suspend"),
        Column::number("Active", ".status.active"),
        Column::text("Last Schedule", ".status.lastScheduleTime"),
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        Column::text("Selector", ".spec.jobTemplate.spec.selector").wide(),
    ],
    row: Some(row),
    defaults,
    prepare_create: |c| {
        c.set(&["status"], Value::object());
        first_generation(c);
    },
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update: |new, _| validate(new),
    declared: &[("spec.jobTemplate.spec.template.spec", pod_spec::DECLARED)],
    name_rule,
    ..Kind::PLAIN
};

/// The names of its jobs add eleven bytes, and a job's name becomes a label.
const NAME_MAX: usize = 52;

fn name_rule(name: &str) -> Vec<String> {
    let mut wrong = names::dns1123_subdomain(name);
    if name.len() > NAME_MAX {
        wrong.push(format!("must be no more than {NAME_MAX} characters"));
    }
    wrong
}

fn row(c: &Value, now: Timestamp) -> Vec<Cell> {
    let last = match text(c, &["status", "lastScheduleTime"]) {
        "" => "<none>".to_string(),
        time => since(Some(time), now),
    };
    let template = &c["spec"]["jobTemplate"]["spec"];
    let (names, images) = super::columns::containers_and_images(&template["template"]["spec"]);
    let suspend = if c.bool_at(&["spec", "suspend"]) == Some(true) { "True" } else { "False" };
    vec![
        name(c),
        text(c, &["spec", "schedule"]).into(),
        text_or(c, &["spec", "timeZone"], "<none>"),
        suspend.into(),
        c.array_at(&["status", "active"]).len().into(),
        last.into(),
        age(c, now),
        names.into(),
        images.into(),
        selector(&template["selector"]).into(),
    ]
}

fn defaults(c: &mut Value) {
    pod_spec::template_defaults(c, &["spec", "jobTemplate", "spec", "template"]);
    let spec = c.slot(&["spec"]);
    fill::text(spec, "concurrencyPolicy", "Allow");
    spec.set_default(&["suspend"], false);
    spec.set_default(&["successfulJobsHistoryLimit"], 3);
    spec.set_default(&["failedJobsHistoryLimit"], 1);
}

const RULES: &[Rule] = &[
    ("spec.schedule", Check::Required("")),
    ("spec.startingDeadlineSeconds", Check::NonNegative),
    ("spec.concurrencyPolicy", Check::RequiredOneOf(&["Allow", "Forbid", "Replace"])),
    ("spec.successfulJobsHistoryLimit", Check::NonNegative),
    ("spec.failedJobsHistoryLimit", Check::NonNegative),
];

fn validate(c: &Value) -> Errors {
    let mut errors = Errors::new();
    check(c, RULES, &mut errors);
    let schedule = text(c, &["spec", "schedule"]);
    let at = Path::new("spec.schedule");
    let zone = c.str_at(&["spec", "timeZone"]);
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(&at, schedule, detail));
    } else if let Err(detail) = Schedule::parse(schedule)
        && !schedule.is_empty()
    {
        errors.push(Error::invalid(&at, schedule, detail));
    }
    if let Some(zone) = zone {
        let wrong = match zone {
            "" => Err("timeZone must be nil or non-empty string".to_string()),
            zone if zone.eq_ignore_ascii_case("Local") => {
                Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_string())
            }
            zone => time_zone(zone).map(|_| ()),
        };
        errors.extend(wrong.err().map(|detail| Error::invalid(&Path::new("spec.timeZone"), zone, detail)));
    }
    let template = &c["spec"]["jobTemplate"];
    job::validate_spec(template, &Path::new("spec.jobTemplate.spec"), &mut errors);
    let path = Path::new("spec.jobTemplate.spec");
    // the job's own creation gives it a selector
    if template["spec"]["manualSelector"] == Value::Bool(true) {
        errors.push(Error::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
    let selector = &template["spec"]["selector"];
    if !selector.is_null() {
        errors.push(Error::invalid(&path.child("selector"), selector, "`selector` will be auto-generated"));
    }
    pod_spec::validate_template_at(&template["spec"]["template"], &path.child("template"), &mut errors);
    job::validate_restarts(&template["spec"], &path, &mut errors);
    errors
}
