//! What the kinds of `resource.k8s.io` share: how requests for devices, their configuration and taints are checked.
//!
//! Compat: upstream tells the faults that its types declare after all others: they are collected in `late`.

use std::collections::{BTreeSet, HashSet};

use super::csidriver;
use super::prelude::*;
use super::rules::Check;
use crate::table::schema;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
/// A taint's key and value; its effect is told late.
pub(super) const TAINT: &[Rule] = &[("key", AnyName(names::qualified_name)), ("value", Name(names::label_value))];
pub(super) const EFFECT: Check = RequiredOneOf(EFFECTS);
const REQUEST: &[Rule] = &[("allocationMode", AnyOneOf(&["All", "ExactCount"]))];
pub(super) const TOLERATION: &[Rule] = &[
    ("key", Name(names::qualified_name)),
    ("operator", AnyOneOf(&["Equal", "Exists"])),
    ("effect", Check::OneOf(EFFECTS)),
];
const CLASS: &[Rule] = &[("deviceClassName", Required("")), ("deviceClassName", Name(names::dns1123_subdomain))];

/// Upstream's bound on the lists of a claim and of a class.
pub(super) const LIST_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const PARAMETERS_MAX_BYTES: usize = 10 * 1024;
const EXPRESSION_MAX_BYTES: usize = 10 * 1024;

/// Checks the name of a pool: subdomains between slashes.
pub(super) fn validate_pool_name(name: &str, at: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(Error::required(at, ""));
    }
    if name.len() > 253 {
        errors.push(Error::too_long(at, 253));
    }
    for part in name.split('/') {
        errors.extend(names::dns1123_subdomain(part).into_iter().map(|m| Error::invalid(at, part, m)));
    }
}

/// The list, unless it is too long to be looked at.
pub(super) fn bounded<'a>(list: &'a Value, at: &Path, max: usize, late: &mut Errors) -> &'a [Value] {
    match list.as_array().map_or(&[][..], Vec::as_slice) {
        long if long.len() > max => {
            late.push(Error::too_many(at, long.len(), max));
            &[]
        }
        items => items,
    }
}

const SKIPPED: &[&str] = &["*", "NodePrepareResources", "NodeUnprepareResources"];

/// Checks what of a driver a node need not call.
pub(super) fn validate_skipped(holder: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    let (list, at) = (holder.array_at(&["skipNodeOperations"]), at.child("skipNodeOperations"));
    let has = |name: &str| list.iter().any(|item| item.as_str() == Some(name));
    if has(SKIPPED[1]) && !has(SKIPPED[2]) && !has("*") {
        let detail = "NodePrepareResources cannot be skipped unless NodeUnprepareResources is also skipped";
        errors.push(Error::invalid(&at, list.to_vec(), detail));
    }
    duplicates(("", list), &at, |item| item.as_str().unwrap_or_default(), late);
    for (i, item) in list.iter().filter_map(Value::as_str).enumerate().filter(|(_, item)| !SKIPPED.contains(item)) {
        late.push(Error::not_supported(&at.index(i), item, SKIPPED));
    }
}

/// The names of a claim's requests, and of what they choose from: `REQUEST/ALTERNATIVE`.
pub(super) fn request_names(devices: &Value) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for request in devices.array_at(&["requests"]) {
        let name = text(request, &["name"]);
        known.insert(name.to_string());
        let alternatives = request.array_at(&["firstAvailable"]).iter();
        known.extend(alternatives.map(|sub| format!("{name}/{}", text(sub, &["name"]))));
    }
    known
}

/// Checks `spec.devices` of a claim at `at`.
pub(super) fn validate_claim(devices: &Value, at: &Path, errors: &mut Errors) {
    let (mut late, known) = (Errors::new(), request_names(devices));
    let path = at.child("requests");
    let requests = bounded(&devices["requests"], &path, LIST_MAX, &mut late);
    duplicates(("DeviceRequest", requests), &path, |request| text(request, &["name"]), &mut late);
    for (i, request) in requests.iter().enumerate() {
        validate_entry(request, &path.index(i), errors, &mut late);
    }
    let path = at.child("constraints");
    for (i, constraint) in bounded(&devices["constraints"], &path, LIST_MAX, &mut late).iter().enumerate() {
        let at = path.index(i);
        validate_references(constraint, &known, &at.child("requests"), errors, &mut late);
        let fields = ["matchAttribute", "distinctAttribute"];
        if fields.iter().all(|field| constraint[*field].is_null()) {
            // Compat: that none is given is said so; that both are is not said.
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                          are set";
            errors.push(Error::required(&at, detail));
        }
        // Compat: of both, the second is not looked at.
        if let Some((field, name)) = fields.iter().find_map(|field| Some((field, constraint.str_at(&[field])?))) {
            validate_attribute_name(name, &at.child(field), true, &mut late);
        }
    }
    let path = at.child("config");
    for (i, config) in bounded(&devices["config"], &path, LIST_MAX, &mut late).iter().enumerate() {
        validate_references(config, &known, &path.index(i).child("requests"), errors, &mut late);
        validate_config(config, &path.index(i), errors, &mut late);
    }
    errors.extend(late);
}

/// Tells of each item whose key an earlier one has. `ty` is what the items are, if they are no texts.
pub(super) fn duplicates<'a>(
    (ty, items): (&str, &'a [Value]),
    at: &Path,
    key: fn(&'a Value) -> &'a str,
    errors: &mut Errors,
) {
    let mut met = HashSet::new();
    for (i, item) in items.iter().enumerate().filter(|(_, item)| !met.insert(key(item))) {
        errors.push(duplicate(ty, item, &at.index(i)));
    }
}

/// Compat: members stand in the order of the type.
pub(super) fn duplicate(ty: &str, item: &Value, at: &Path) -> Error {
    let ty = schema().find(&format!("io.k8s.api.resource.v1.{ty}"));
    Error::duplicate_raw(at, &ty.map_or_else(|| item.to_string(), |ty| ty.ordered_json(item)))
}

/// Checks a request: one device class, or some to choose from.
fn validate_entry(request: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    let label = |name: &str, at: &Path, errors: &mut Errors| {
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
    };
    label(text(request, &["name"]), at, errors);
    let (exactly, alternatives) = (&request["exactly"], request.array_at(&["firstAvailable"]));
    let mut skipped = Errors::new();
    // What stands in a request of both sorts is only looked at for what the types declare.
    let errors = match (exactly.is_null(), alternatives) {
        (true, []) => {
            return errors.push(Error::required(at, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (false, [_, ..]) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(Error::invalid(at, Value::Null, detail));
            &mut skipped
        }
        _ => errors,
    };
    if !exactly.is_null() {
        let at = at.child("exactly");
        check_at(exactly, &at, CLASS, errors);
        validate_request(exactly, &at, errors, late);
    }
    let path = at.child("firstAvailable");
    let alternatives = bounded(&request["firstAvailable"], &path, ALTERNATIVES_MAX, late);
    duplicates(("DeviceSubRequest", alternatives), &path, |sub| text(sub, &["name"]), late);
    for (i, sub) in alternatives.iter().enumerate() {
        let at = path.index(i);
        label(text(sub, &["name"]), &at, errors);
        check_at(sub, &at, CLASS, late);
        validate_request(sub, &at, errors, late);
    }
}

pub(super) fn validate_references(
    holder: &Value,
    known: &BTreeSet<String>,
    at: &Path,
    errors: &mut Errors,
    late: &mut Errors,
) {
    let names = bounded(&holder["requests"], at, LIST_MAX, late);
    duplicates(("", names), at, |name| name.as_str().unwrap_or_default(), late);
    for (i, name) in names.iter().enumerate() {
        validate_reference(name.as_str().unwrap_or_default(), known, &at.index(i), errors);
    }
}

/// Checks the name of one request of a claim.
pub(super) fn validate_reference(name: &str, known: &BTreeSet<String>, at: &Path, errors: &mut Errors) {
    for part in name.split('/') {
        errors.extend(names::dns1123_label(part).into_iter().map(|m| Error::invalid(at, part, m)));
    }
    if !known.contains(name) {
        let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated \
                      by '/'";
        errors.push(Error::invalid(at, name, detail));
    }
}

fn validate_request(request: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    validate_selectors(request, at, errors, late);
    let count = request.int_at(&["count"]).unwrap_or(0);
    let wrong = match text(request, &["allocationMode"]) {
        "All" => (count != 0).then_some("must not be specified when allocationMode is 'All'"),
        "ExactCount" => (count <= 0).then_some("must be greater than zero"),
        _ => None,
    };
    errors.extend(wrong.map(|detail| Error::invalid(&at.child("count"), count, detail)));
    check_at(request, at, REQUEST, late);
    for (i, toleration) in request.array_at(&["tolerations"]).iter().enumerate() {
        let at = at.child("tolerations").index(i);
        let value = text(toleration, &["value"]);
        let wrong = match text(toleration, &["operator"]) {
            "Exists" if !value.is_empty() => vec!["must be empty for operator `Exists`".to_string()],
            "Equal" => names::label_value(value),
            _ => Vec::new(),
        };
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("value"), value, m)));
        check_at(toleration, &at, TOLERATION, late);
    }
}

/// Checks that every selector has an expression, which is true or false and costs no more than it may.
pub(super) fn validate_selectors(holder: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    let path = at.child("selectors");
    for (i, selector) in bounded(&holder["selectors"], &path, LIST_MAX, late).iter().enumerate() {
        let at = path.index(i).child("cel");
        match &selector["cel"] {
            Value::Null => errors.push(Error::required(&at, "")),
            cel => validate_expression(text(cel, &["expression"]), &at.child("expression"), errors),
        }
    }
}

fn validate_expression(expression: &str, at: &Path, errors: &mut Errors) {
    if expression.len() > EXPRESSION_MAX_BYTES {
        return errors.push(Error::too_long(at, EXPRESSION_MAX_BYTES));
    }
    errors.extend(cel::devices::compile(expression, at).err());
}

/// Checks one driver's configuration, of a claim or of a class.
pub(super) fn validate_config(config: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    let (at, opaque) = (at.child("opaque"), &config["opaque"]);
    if opaque.is_null() {
        return errors.push(Error::required(&at, ""));
    }
    let parameters = at.child("parameters");
    match &opaque["parameters"] {
        Value::Null => errors.push(Error::required(&parameters, "")),
        given if given.to_vec().len() > PARAMETERS_MAX_BYTES => {
            errors.push(Error::too_long(&parameters, PARAMETERS_MAX_BYTES));
        }
        Value::Object(_) => {}
        _ => errors.push(Error::invalid(&parameters, "<value omitted>", "must be a valid JSON object")),
    }
    validate_driver(text(opaque, &["driver"]), &at.child("driver"), late);
}

/// Checks a driver's name as types declare it.
pub(super) fn validate_driver(driver: &str, at: &Path, late: &mut Errors) {
    late.extend(csidriver::validate_name_as(driver, at, "characters", names::caseless_subdomain));
}

/// Checks the name of an attribute or a capacity: an identifier, a domain before it, which may be left out unless `full`.
pub(super) fn validate_attribute_name(name: &str, at: &Path, full: bool, errors: &mut Errors) {
    let (domain, identifier) = name.split_once('/').map_or((None, name), |(d, i)| (Some(d), i));
    match domain {
        Some("") => errors.push(Error::invalid(at, "", "prefix must not be empty")),
        Some(domain) => {
            if domain.len() > 63 {
                errors.push(Error::too_long(at, 63));
            }
            let wrong = names::dns1123_subdomain(domain).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(at, domain, format!("prefix: {m}"))));
        }
        None => {}
    }
    if identifier.is_empty() && domain.is_some() {
        return errors.push(Error::invalid(at, "", "name must not be empty"));
    }
    if identifier.len() > 32 {
        errors.push(Error::too_long(at, 32));
    }
    errors.extend(names::c_identifier(identifier).into_iter().map(|m| Error::invalid(at, identifier, m)));
    if full && domain.is_none() {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(at, name, detail));
    }
}
