//! What the kinds of `resource.k8s.io` share: how devices, requests for them and taints are checked.
//!
//! Expressions are not compiled here: whoever allocates does, and says so.

use std::collections::HashSet;

use std::collections::BTreeSet;

use super::csidriver;
use super::prelude::*;
use super::rules::Check;

const TAINT: &[Rule] =
    &[("key", AnyName(names::qualified_name)), ("value", Name(names::label_value)), ("effect", RequiredOneOf(EFFECTS))];
const TOLERATION: &[Rule] = &[
    ("key", Name(names::qualified_name)),
    ("operator", AnyOneOf(&["Equal", "Exists"])),
    ("value", Name(names::label_value)),
    ("effect", Check::OneOf(EFFECTS)),
];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Checks one taint of a device.
pub(super) fn validate_taint(taint: &Value, at: &Path, errors: &mut Errors) {
    check_at(taint, at, TAINT, errors);
}

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

/// Checks `spec.devices` of a claim at `at`.
pub(super) fn validate_claim(devices: &Value, at: &Path, errors: &mut Errors) {
    let requests = devices.array_at(&["requests"]);
    let mut known = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let at = at.child("requests").index(i);
        let name = text(request, &["name"]);
        let (exactly, available) = (&request["exactly"], request.array_at(&["firstAvailable"]));
        if !known.insert(name.to_string()) {
            errors.push(Error::duplicate(&at, request));
        }
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
        match (exactly.is_null(), available) {
            (true, []) => {
                errors.push(Error::required(&at, "exactly one of `exactly` or `firstAvailable` is required"));
            }
            (false, [_, ..]) => {
                let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(Error::invalid(&at, Value::Null, detail));
            }
            _ => {}
        }
        if !exactly.is_null() {
            validate_request(exactly, &at.child("exactly"), errors);
        }
        for (j, sub) in available.iter().enumerate() {
            let at = at.child("firstAvailable").index(j);
            let own = text(sub, &["name"]);
            if !known.insert(format!("{name}/{own}")) {
                errors.push(Error::duplicate(&at, sub));
            }
            errors.extend(names::dns1123_label(own).into_iter().map(|m| Error::invalid(&at.child("name"), own, m)));
            validate_request(sub, &at, errors);
        }
    }
    for (i, constraint) in devices.array_at(&["constraints"]).iter().enumerate() {
        let at = at.child("constraints").index(i);
        validate_references(constraint, &known, &at.child("requests"), errors);
        let fields = ["matchAttribute", "distinctAttribute"];
        let given = fields.iter().filter(|field| !constraint[**field].is_null()).count();
        if given != 1 {
            // Compat: upstream says the same of none and of both.
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                          are set";
            errors.push(Error::required(&at, detail));
        }
        for field in fields {
            if let Some(name) = constraint.str_at(&[field]) {
                validate_attribute_name(name, &at.child(field), true, errors);
            }
        }
    }
    for (i, config) in devices.array_at(&["config"]).iter().enumerate() {
        let at = at.child("config").index(i);
        validate_references(config, &known, &at.child("requests"), errors);
        validate_config(config, &at, errors);
    }
}

fn validate_references(holder: &Value, known: &BTreeSet<String>, at: &Path, errors: &mut Errors) {
    let names = holder.array_at(&["requests"]);
    let mut met = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        let (at, name) = (at.index(i), name.as_str().unwrap_or_default());
        if !met.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
        for part in name.split('/') {
            errors.extend(names::dns1123_label(part).into_iter().map(|m| Error::invalid(&at, part, m)));
        }
        if !known.contains(name) {
            let detail = "must be the name of a request in the claim or the name of a request and a subrequest \
                          separated by '/'";
            errors.push(Error::invalid(&at, name, detail));
        }
    }
}

fn validate_request(request: &Value, at: &Path, errors: &mut Errors) {
    const CLASS: &[Rule] = &[("deviceClassName", Required("")), ("deviceClassName", Name(names::dns1123_subdomain))];
    check_at(request, at, CLASS, errors);
    validate_selectors(request, at, errors);
    let count = request.int_at(&["count"]).unwrap_or(0);
    let wrong = match text(request, &["allocationMode"]) {
        "All" => (count != 0).then_some("must not be specified when allocationMode is 'All'"),
        "ExactCount" => (count <= 0).then_some("must be greater than zero"),
        mode => {
            errors.push(Error::not_supported(&at.child("allocationMode"), mode, &["All", "ExactCount"]));
            None
        }
    };
    errors.extend(wrong.map(|detail| Error::invalid(&at.child("count"), count, detail)));
    for (i, toleration) in request.array_at(&["tolerations"]).iter().enumerate() {
        let at = at.child("tolerations").index(i);
        check_at(toleration, &at, &TOLERATION[..2], errors);
        let value = text(toleration, &["value"]);
        if text(toleration, &["operator"]) == "Exists" && !value.is_empty() {
            errors.push(Error::invalid(&at.child("value"), value, "must be empty for operator `Exists`"));
        }
        check_at(toleration, &at, &TOLERATION[2..], errors);
    }
}

/// Checks that every selector has an expression.
pub(super) fn validate_selectors(holder: &Value, at: &Path, errors: &mut Errors) {
    for (i, selector) in holder.array_at(&["selectors"]).iter().enumerate() {
        let at = at.child("selectors").index(i).child("cel");
        if selector["cel"].is_null() {
            errors.push(Error::required(&at, ""));
        }
    }
}

/// Checks one driver's configuration, of a claim or of a class.
pub(super) fn validate_config(config: &Value, at: &Path, errors: &mut Errors) {
    let at = at.child("opaque");
    if config["opaque"].is_null() {
        return errors.push(Error::required(&at, ""));
    }
    errors.extend(csidriver::validate_name(text(&config["opaque"], &["driver"]), &at.child("driver")));
    if config["opaque"]["parameters"].is_null() {
        errors.push(Error::required(&at.child("parameters"), ""));
    }
}

/// Checks the name of an attribute or a capacity: an identifier, a domain before it, which may be left out unless `full`.
fn validate_attribute_name(name: &str, at: &Path, full: bool, errors: &mut Errors) {
    let (domain, identifier) = name.split_once('/').map_or((None, name), |(d, i)| (Some(d), i));
    if let Some(domain) = domain {
        let wrong = names::dns1123_subdomain(domain).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(at, domain, format!("prefix: {m}"))));
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

/// Checks one device of a slice.
pub(super) fn validate_device(device: &Value, at: &Path, errors: &mut Errors) {
    let name = text(device, &["name"]);
    errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
    let listed = |list: &str| device[list].as_object().into_iter().flat_map(|m| m.iter()).collect::<Vec<_>>();
    let at_list = at.child("attributes");
    for (key, attribute) in listed("attributes") {
        validate_attribute_name(key, &at_list, false, errors);
        validate_attribute(attribute, &at_list.key(key), errors);
    }
    for (key, _) in listed("capacity") {
        validate_attribute_name(key, &at.child("capacity"), false, errors);
    }
    for (i, taint) in device.array_at(&["taints"]).iter().enumerate() {
        validate_taint(taint, &at.child("taints").index(i), errors);
    }
}

fn validate_attribute(attribute: &Value, at: &Path, errors: &mut Errors) {
    const TYPES: [&str; 4] = ["int", "bool", "string", "version"];
    const ALL: &str = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";
    let given: Vec<&str> = TYPES.into_iter().filter(|ty| !attribute[*ty].is_null()).collect();
    match given[..] {
        [] => errors.push(Error::invalid(at, "", format!("must specify one of: {ALL}"))),
        [ty @ ("string" | "version")] => {
            let (at, text) = (at.child(ty), text(attribute, &[ty]));
            if ty == "version" && !is_semantic_version(text) {
                errors.push(Error::invalid(&at, text, "must be a string compatible with semver.org spec 2.0.0"));
            }
            if text.len() > 64 {
                errors.push(Error::too_long(&at, 64));
            }
        }
        [_] => {}
        _ => {
            let detail = format!("must specify exactly one of: {ALL}");
            errors.push(Error::invalid(at, format!("{{{}}}", given.join(", ")), detail));
        }
    }
}

fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|p| p.split('.').all(|part| is_word(part) && (!all_digits(part) || is_number(part))))
        && build.is_none_or(|b| b.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, want) in [
            ("1.0.0", true),
            ("1.2.3-rc.1+b.5", true),
            ("01.0.0", false),
            ("1.0", false),
            ("1.0.0-01", false),
            ("", false),
        ] {
            assert_eq!(is_semantic_version(text), want, "{text}");
        }
    }
}
