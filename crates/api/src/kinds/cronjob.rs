//! CronJob.

use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, name, selector, since, text, text_or};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, first_generation, job, keep_status_count_spec, pod_spec, workload};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Schedule", "The schedule in Cron format."),
        Column::text("Timezone", "The time zone name for the given schedule."),
        Column::text("Suspend", "Whether no further jobs are started."),
        Column::number("Active", "Jobs that run now."),
        Column::text("Last Schedule", "When a job was last started."),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
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
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(&at, schedule, detail));
    } else if let Err(detail) = check_schedule(schedule) {
        errors.push(Error::invalid(&at, schedule, detail));
    }
    let template = &c["spec"]["jobTemplate"];
    job::validate_spec(template, &Path::new("spec.jobTemplate.spec"), &mut errors);
    let path = Path::new("spec.jobTemplate.spec.template.spec");
    pod_spec::validate(&template["spec"]["template"]["spec"], &path, &mut errors);
    errors
}

/// Five fields within their ranges, or one of the words for common schedules.
fn check_schedule(schedule: &str) -> Result<(), String> {
    const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if schedule.is_empty() || WORDS.contains(&schedule) || schedule.starts_with("@every ") {
        return Ok(());
    }
    if let Some(word) = schedule.strip_prefix('@') {
        return Err(format!("unrecognized descriptor: @{word}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let ranges: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    for (field, (low, high, words)) in fields.iter().zip(ranges) {
        for part in field.split(',') {
            check_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn check_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').unwrap_or((part, "1"));
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = words.iter().position(|w| text.eq_ignore_ascii_case(w)) {
            return Ok(at as u32 + low);
        }
        text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    if number(step)? == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if range == "*" || range == "?" {
        return Ok(());
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to) = (number(from)?, number(to)?);
    if from < low {
        return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
    }
    if to > high {
        return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for (schedule, want) in [
            ("*/5 * * * *", Ok(())),
            ("0 0 1,15 jan-mar MON", Ok(())),
            ("@daily", Ok(())),
            ("* * * *", Err("expected exactly 5 fields, found 4: [* * * *]")),
            ("60 * * * *", Err("end of range (60) above maximum (59): 60")),
            ("* * 0 * *", Err("beginning of range (0) below minimum (1): 0")),
            ("x * * * *", Err("failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax")),
            ("@often", Err("unrecognized descriptor: @often")),
        ] {
            assert_eq!(check_schedule(schedule), want.map_err(str::to_string), "{schedule}");
        }
    }
}
