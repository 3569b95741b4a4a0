//! Validation of a JobSpec's failure and success policies and of its limits for indexes.
//! Reads documents only. Invariant: the words and the numbers are upstream's.

use std::collections::HashSet;

use meta::field::{Error, Errors, Path};
use meta::indexes::Indexes;
use meta::{Value, names};

use crate::kinds::columns::{int, text};
use crate::kinds::rules::{Check, Rule, check_at};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_MAX: i64 = 100_000;
/// The limit of parallelism and of failed indexes with more completions than `INDEXES_MAX`.
const BUSY_MAX: i64 = 10_000;
const INDEXES_TEXT_MAX_BYTES: usize = 64 * 1024;

const ON_EXIT_CODES: &[Rule] =
    &[("operator", Check::Required("valid values: [\"In\" \"NotIn\"]")), ("operator", Check::OneOf(&["In", "NotIn"]))];
const ON_CONDITION: &[Rule] =
    &[("type", Check::AnyName(names::qualified_name)), ("status", Check::RequiredOneOf(&["False", "True", "Unknown"]))];

/// What holds for numbers of indexes.
pub(super) fn validate_indexes(spec: &Value, path: &Path, indexed: bool, errors: &mut Errors) {
    let mut invalid = |field: &str, detail: String| {
        errors.push(Error::invalid(&path.child(field), int(spec, &[field]), detail));
    };
    let given = |field: &str| !spec[field].is_null();
    let value = |field: &str| int(spec, &[field]);
    if !indexed {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|field| given(field)) {
            invalid(field, "requires indexed completion mode".to_string());
        }
        return;
    }
    let (max, per_index) = (value("maxFailedIndexes"), given("backoffLimitPerIndex"));
    if value("parallelism") > INDEXES_MAX {
        let detail = format!("must be less than or equal to {INDEXES_MAX} when completion mode is Indexed");
        invalid("parallelism", detail);
    }
    if given("completions") && max > value("completions") {
        invalid("maxFailedIndexes", "must be less than or equal to completions".to_string());
    }
    if max > INDEXES_MAX {
        invalid("maxFailedIndexes", format!("must be less than or equal to {INDEXES_MAX}"));
    }
    let many = value("completions") > INDEXES_MAX && per_index;
    for field in ["parallelism", "maxFailedIndexes"].into_iter().filter(|field| many && value(field) > BUSY_MAX) {
        let when = format!("when completions are above {INDEXES_MAX} and used with backoff limit per index");
        invalid(field, format!("must be less than or equal to {BUSY_MAX} {when}"));
    }
    if many && !given("maxFailedIndexes") {
        let detail = format!("must be specified when completions is above {INDEXES_MAX}");
        errors.push(Error::required(&path.child("maxFailedIndexes"), detail));
    }
    if given("maxFailedIndexes") && !per_index {
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
}

/// At most `RULES_MAX` items.
fn bounded<'a>(
    items: &'a [Value],
    path: &Path,
    errors: &mut Errors,
) -> impl Iterator<Item = (Path, &'a Value)> + use<'a> {
    if items.len() > RULES_MAX {
        errors.push(Error::too_many(path, items.len(), RULES_MAX));
    }
    let path = path.clone();
    items.iter().enumerate().map(move |(i, item)| (path.index(i), item))
}

pub(super) fn validate_failure(spec: &Value, path: &Path, errors: &mut Errors) {
    let template = &spec["template"]["spec"];
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| template.array_at(&[list]));
    let names: Vec<&str> = containers.map(|container| text(container, &["name"])).collect();
    let rules = spec.array_at(&["podFailurePolicy", "rules"]);
    for (at, rule) in bounded(rules, &path.child("podFailurePolicy.rules"), errors) {
        let action = text(rule, &["action"]);
        if action == "FailIndex" && spec["backoffLimitPerIndex"].is_null() {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(Error::invalid(&at.child("action"), action, detail));
        }
        if action.is_empty() {
            let detail = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
            errors.push(Error::required(&at.child("action"), detail));
        }
        check_at(rule, &at, &[("action", Check::OneOf(&["Count", "FailIndex", "FailJob", "Ignore"]))], errors);
        let (codes, conditions) = (&rule["onExitCodes"], rule.array_at(&["onPodConditions"]));
        if !codes.is_null() {
            let at = at.child("onExitCodes");
            check_at(codes, &at, ON_EXIT_CODES, errors);
            if let Some(name) = codes.str_at(&["containerName"]).filter(|name| !names.contains(name)) {
                let detail = "must be one of the container or initContainer names in the pod template";
                errors.push(Error::invalid(&at.child("containerName"), name, detail));
            }
            validate_codes(codes, &at.child("values"), errors);
        }
        for (at, pattern) in bounded(conditions, &at.child("onPodConditions"), errors) {
            check_at(pattern, &at, ON_CONDITION, errors);
        }
        let detail = match (codes.is_null(), conditions.is_empty()) {
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(Error::invalid_as_a_whole(&at, detail));
    }
}

fn validate_codes(codes: &Value, path: &Path, errors: &mut Errors) {
    let values: Vec<i64> = codes.array_at(&["values"]).iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.push(Error::invalid(path, &codes["values"], "at least one value is required"));
    }
    if values.len() > EXIT_CODES_MAX {
        errors.push(Error::too_many(path, values.len(), EXIT_CODES_MAX));
    }
    let mut known = HashSet::new();
    for (i, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, &["operator"]) == "In" {
            errors.push(Error::invalid(&path.index(i), 0, "must not be 0 for the In operator"));
        }
        if !known.insert(value) {
            errors.push(Error::duplicate(&path.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(Error::invalid(path, &codes["values"], "must be ordered"));
    }
}

pub(super) fn validate_success(spec: &Value, path: &Path, indexed: bool, errors: &mut Errors) {
    let path = path.child("successPolicy");
    if spec["successPolicy"].is_null() {
        return;
    }
    if !indexed {
        errors.push(Error::invalid_as_a_whole(&path, "requires indexed completion mode"));
        return;
    }
    let rules = spec.array_at(&["successPolicy", "rules"]);
    let path = path.child("rules");
    if rules.is_empty() {
        errors.push(Error::required(&path, "at least one rules must be specified when the successPolicy is specified"));
    }
    let completions = int(spec, &["completions"]);
    for (at, rule) in bounded(rules, &path, errors) {
        let (list, count) = (rule.str_at(&["succeededIndexes"]), rule.int_at(&["succeededCount"]));
        if list.is_none() && count.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(Error::required(&at, detail));
        }
        let mut size = None;
        if let Some(list) = list {
            let at = at.child("succeededIndexes");
            match Indexes::parse(list) {
                _ if list.len() > INDEXES_TEXT_MAX_BYTES => errors.push(Error::too_long(&at, INDEXES_TEXT_MAX_BYTES)),
                Ok(set) if set.last().is_none_or(|last| i64::from(last) < completions) => size = Some(set.len()),
                wrong => {
                    let why = wrong.map(|set| format!("too large index: {:?}", set.last().unwrap_or(0).to_string()));
                    let detail = format!("error parsing succeededIndexes: {}", why.unwrap_or_else(|why| why));
                    errors.push(Error::invalid(&at, list, detail));
                }
            }
        }
        let Some(count) = count else { continue };
        let at = at.child("succeededCount");
        let limits = [
            (Some(completions), "the number of specified completions"),
            (size.map(i64::from), "the number of indexes in the specified succeededIndexes field"),
        ];
        if count < 0 {
            errors.push(Error::invalid(&at, count, "must be greater than or equal to 0"));
        }
        for (limit, what) in limits {
            if let Some(limit) = limit.filter(|limit| count > *limit) {
                errors.push(Error::invalid(&at, count, format!("must be less than or equal to {limit} ({what})")));
            }
        }
    }
}
