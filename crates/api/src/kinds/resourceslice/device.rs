//! Validation of one device of a slice: attributes, capacity and how it may be shared, counters, taints, conditions.
//!
//! Compat: as in `devices`, `late` has what upstream tells after all other errors.

use super::super::devices::{EFFECT, LIST_MAX, TAINT, bounded, duplicates, validate_attribute_name};
use super::super::prelude::*;
use super::{NODES, validate_nodes};
use meta::quantity::Quantity;
use std::collections::HashSet;

const TAINTS_MAX: usize = 16;
const CONSUMED_SETS_MAX: usize = 2;
const CONDITIONS_MAX: usize = 4;
const GROUPS_MAX: usize = 2;
const VALUES_MAX: usize = 10;
const TEXT_MAX_BYTES: usize = 64;
const ATTRIBUTE_VALUES_MAX: usize = 48;

/// Checks all of a device but its name.
pub(super) fn validate(device: &Value, at: &Path, per_device: bool, errors: &mut Errors, late: &mut Errors) {
    let listed = |list: &str| device[list].as_object().into_iter().flat_map(|m| m.iter()).collect::<Vec<_>>();
    let (attributes, capacities) = (listed("attributes"), listed("capacity"));
    let total = attributes.len() + capacities.len();
    if total > LIST_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {LIST_MAX}");
        errors.push(Error::invalid(at, total as i64, detail));
    } else {
        let path = at.child("attributes");
        for (key, attribute) in &attributes {
            validate_attribute_name(key, &path, false, errors);
            validate_text(attribute, &path.key(key), errors);
        }
        let values = attributes.iter().map(|(_, attribute)| count(attribute)).sum::<usize>();
        if values > ATTRIBUTE_VALUES_MAX {
            let detail = format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES_MAX}");
            errors.push(Error::invalid(at, values as i64, detail));
        }
        let (path, shared) = (at.child("capacity"), device.bool_at(&["allowMultipleAllocations"]) == Some(true));
        for (key, capacity) in capacities {
            validate_attribute_name(key, &path, false, errors);
            validate_policy(capacity, shared, &path.key(key).child("requestPolicy"), errors);
        }
    }
    for (key, attribute) in attributes {
        validate_sort(attribute, &at.child("attributes").key(key), late);
    }
    validate_consumption(device, &at.child("consumesCounters"), late);
    let path = at.child("taints");
    for (i, taint) in bounded(&device["taints"], &path, TAINTS_MAX, errors).iter().enumerate() {
        check_at(taint, &path.index(i), TAINT, errors);
    }
    check_at(device, at, &[("taints[].effect", EFFECT)], late);
    if per_device {
        let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                      `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        validate_nodes(device, at, &NODES[..3], "must not be empty", [detail, detail], errors);
    } else if NODES[..3].iter().any(|field| !device[*field].is_null()) {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                      true in the ResourceSlice spec";
        errors.push(Error::invalid(at, Value::Null, detail));
    }
    validate_conditions(device, at, errors, late);
}

/// How many values an attribute has.
fn count(attribute: &Value) -> usize {
    SORTS
        .iter()
        .map(|sort| attribute[*sort].as_array().map_or(usize::from(!attribute[*sort].is_null()), Vec::len))
        .sum()
}

/// Checks an attribute's text, or those of a list.
fn validate_text(attribute: &Value, at: &Path, errors: &mut Errors) {
    for ty in ["string", "version"] {
        if let Some(text) = attribute.str_at(&[ty]) {
            validate_one_text(text, ty == "version", &at.child(ty), errors);
        }
    }
    for ty in &SORTS[4..] {
        let (list, at) = (&attribute[*ty], at.child(ty));
        if list.as_array().is_some_and(Vec::is_empty) {
            errors.push(Error::invalid(&at, list, "must not be empty if specified"));
        }
        for (i, text) in attribute.array_at(&[ty]).iter().enumerate() {
            if let Some(text) = text.as_str() {
                validate_one_text(text, *ty == "versions", &at.index(i), errors);
            }
        }
    }
}

fn validate_one_text(text: &str, is_version: bool, at: &Path, errors: &mut Errors) {
    if is_version && semver::Version::parse(text).is_err() {
        errors.push(Error::invalid(at, text, "must be a string compatible with semver.org spec 2.0.0"));
    }
    if text.len() > TEXT_MAX_BYTES {
        errors.push(Error::too_long(at, TEXT_MAX_BYTES));
    }
}

const SORTS: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];

/// Compat: upstream shows the attribute as its own type has it.
pub(super) fn in_go(attribute: &Value) -> String {
    const NAMES: [&str; 8] = [
        "IntValue", "BoolValue", "StringValue", "VersionValue", "IntValues", "BoolValues", "StringValues",
        "VersionValues",
    ];
    let members: Vec<String> =
        NAMES.iter().zip(SORTS).map(|(name, sort)| format!("\"{name}\":{}", attribute[sort])).collect();
    format!("{{{}}}", members.join(","))
}

/// An attribute is of one sort.
fn validate_sort(attribute: &Value, at: &Path, errors: &mut Errors) {
    let is_given = |sort: &&str| !attribute[*sort].is_null() && attribute[*sort] != json!([]);
    let given: Vec<&str> = SORTS.into_iter().filter(is_given).collect();
    let all = SORTS.map(|sort| format!("`{sort}`")).join(", ");
    match given.len() {
        0 => errors.push(Error::invalid(at, "", format!("must specify one of: {all}"))),
        1 => {}
        _ => {
            let detail = format!("must specify exactly one of: {all}");
            errors.push(Error::invalid(at, format!("{{{}}}", given.join(", ")), detail));
        }
    }
}

/// Checks the counters of a set, or what a device takes of one: `name` is the field with the set's name.
pub(super) fn validate_counters(set: &Value, name: &str, at: &Path, errors: &mut Errors) {
    let rules: [Rule; 2] = [("", Required("")), ("", Name(names::dns1123_label))];
    check_at(&set[name], &at.child(name), &rules, errors);
    let (counters, at) = (set["counters"].as_object(), at.child("counters"));
    match counters.map_or(0, |counters| counters.len()) {
        0 => errors.push(Error::required(&at, "")),
        n if n > LIST_MAX => errors.push(Error::too_many(&at, n, LIST_MAX)),
        _ => {
            for key in counters.into_iter().flat_map(|counters| counters.keys()) {
                errors.extend(names::dns1123_label(key).into_iter().map(|m| Error::invalid(&at, key, m)));
            }
        }
    }
}

fn validate_consumption(device: &Value, at: &Path, errors: &mut Errors) {
    let sets = bounded(&device["consumesCounters"], at, CONSUMED_SETS_MAX, errors);
    duplicates(("DeviceCounterConsumption", sets), at, |set| text(set, &["counterSet"]), errors);
    for (i, set) in sets.iter().enumerate() {
        let at = at.index(i);
        validate_counters(set, "counterSet", &at, errors);
        let at = at.child("compatibilityGroups");
        let groups = bounded(&set["compatibilityGroups"], &at, GROUPS_MAX, errors);
        for (i, group) in groups.iter().filter_map(Value::as_str).enumerate() {
            errors.extend(names::dns1123_label(group).into_iter().map(|m| Error::invalid(&at.index(i), group, m)));
        }
        duplicates(("", groups), &at, |group| group.as_str().unwrap_or_default(), errors);
    }
}

/// Checks the conditions that a device waits for when it is bound, and those of its failure.
pub fn validate_conditions(device: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    const LISTS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for list in LISTS {
        let path = at.child(list);
        for (i, condition) in bounded(&device[list], &path, CONDITIONS_MAX, late).iter().enumerate() {
            let condition = condition.as_str().unwrap_or_default();
            let wrong = names::qualified_name(condition).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&path.index(i), condition, m)));
        }
    }
    for list in LISTS {
        duplicates(("", device.array_at(&[list])), &at.child(list), |c| c.as_str().unwrap_or_default(), errors);
    }
    let [waited, failed] = LISTS.map(|list| device.array_at(&[list]));
    let known: HashSet<_> = waited.iter().filter_map(Value::as_str).collect();
    for (i, condition) in failed.iter().enumerate().filter(|(_, c)| c.as_str().is_some_and(|c| known.contains(c))) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(Error::invalid(&at.child(LISTS[1]).index(i), condition, detail));
    }
    for (missing, other) in [(1, 0), (0, 1)] {
        let [lacks, has] = [missing, other].map(|list| LISTS[list]);
        if device.array_at(&[lacks]).is_empty() && !device.array_at(&[has]).is_empty() {
            let detail = format!("{lacks} are required to use {has}");
            errors.push(Error::invalid(&at.child(lacks), Value::Null, detail));
        }
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

/// Checks how much of a capacity a request may take.
fn validate_policy(capacity: &Value, shared: bool, at: &Path, errors: &mut Errors) {
    let policy = &capacity["requestPolicy"];
    let (values, range) = (policy.array_at(&["validValues"]), &policy["validRange"]);
    let (Some(whole), Some(default)) = (amount(&capacity["value"]), Some(amount(&policy["default"]))) else { return };
    let mut need = |field: &str, of: &str| {
        errors.push(Error::required(&at.child(field), format!("required when {of} is defined")));
    };
    match (values.is_empty(), range.is_null(), default) {
        _ if policy.is_null() => {}
        _ if !shared => errors.push(Error::forbidden(at, "allowMultipleAllocations must be true")),
        (false, false, _) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                          same time";
            errors.push(Error::forbidden(at, detail));
        }
        (true, true, _) => {}
        (false, _, None) => need("default", "validValues"),
        (_, _, None) => need("default", "validRange"),
        (false, _, Some(default)) => validate_values(policy, whole, default, &at.child("validValues"), errors),
        (_, _, Some(default)) => match amount(&range["min"]) {
            None => need("validRange.min", "validRange"),
            Some(min) => validate_range(range, whole, default, min, &at.child("validRange"), errors),
        },
    }
}

fn validate_values(policy: &Value, whole: Quantity, default: Quantity, at: &Path, errors: &mut Errors) {
    let mut late = Errors::new();
    let values = bounded(&policy["validValues"], at, VALUES_MAX, errors);
    let (mut known, mut last) = (Vec::new(), None);
    for (i, value) in values.iter().enumerate() {
        let Some(quantity) = amount(value) else { continue };
        let at = at.index(i);
        if last.is_some_and(|last| quantity < last) {
            errors.push(Error::invalid(&at, value, "values must be sorted in ascending order"));
        }
        if quantity > whole {
            let detail = format!("option is larger than capacity value: {whole}");
            errors.push(Error::invalid(&at, value, detail));
        }
        if known.contains(&quantity) {
            late.push(Error::duplicate(&at, value));
        }
        known.push(quantity);
        last = Some(quantity);
    }
    errors.extend(late);
    if !known.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.push(Error::invalid(at, default.to_string(), detail));
    }
}

fn validate_range(range: &Value, whole: Quantity, default: Quantity, min: Quantity, at: &Path, errors: &mut Errors) {
    let (max, step) = (amount(&range["max"]), amount(&range["step"]));
    let mut wrong = |is: bool, field: &str, value: Quantity, detail: String| {
        if is {
            errors.push(Error::invalid(&at.child(field), value.to_string(), detail));
        }
    };
    wrong(min > whole, "min", min, format!("min is larger than capacity value: {whole}"));
    if let Some(max) = max {
        wrong(min > max, "max", min, format!("min is larger than max: {max}"));
    }
    wrong(default < min, "default", default, format!("default is less than min: {min}"));
    if let Some(max) = max {
        wrong(max > whole, "max", max, format!("max is larger than capacity value: {whole}"));
        wrong(default > max, "default", default, format!("default is more than max: {max}"));
    }
    let Some(step) = step else { return };
    if step.sign() <= 0 {
        return wrong(true, "step", step, "must be greater than zero".into());
    }
    let one = min.add(step);
    wrong(one > whole, "step", step, format!("one step {one} is larger than capacity value: {whole}"));
    for value in [Some(default), max].into_iter().flatten() {
        // Compat: fractions are rounded up (DRAFractionalCapacityRange is off).
        let off = value.value().wrapping_sub(min.value()) % step.value().max(1) != 0;
        wrong(off, "step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
    }
}
