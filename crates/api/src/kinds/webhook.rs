//! What both kinds of webhook configurations share.

use std::collections::HashSet;

use super::prelude::*;

pub(super) const CONFIGURATION: Kind = Kind {
    columns: &[NAME, Column::number("Webhooks", "How many webhooks there are.").count("webhooks"), AGE],
    defaults,
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["webhooks"]),
    validate,
    unconditional_update: false,
    ..Kind::PLAIN
};

pub(super) fn defaults(c: &mut Value) {
    fill::each(c, &["webhooks"], |hook| {
        fill::unset(hook, "failurePolicy", "Fail");
        match_defaults(hook);
        fill::unset(hook, "timeoutSeconds", 10);
        fill::at(hook, &["clientConfig", "service"], |s| fill::unset(s, "port", 443));
        fill::each(hook, &["rules"], |rule| fill::unset(rule, "scope", "*"));
    });
}

/// What matches when the configuration says nothing: everything.
pub(super) fn match_defaults(matching: &mut Value) {
    fill::unset(matching, "matchPolicy", "Equivalent");
    fill::unset(matching, "namespaceSelector", Value::object());
    fill::unset(matching, "objectSelector", Value::object());
}

/// Where a service of the API itself listens.
pub(super) fn validate_port(service: &Value, path: &Path, errors: &mut Errors) {
    let port = int(service, &["port"]);
    let wrong = names::port_number(port).into_iter();
    errors.extend(wrong.map(|m| Error::invalid(&path.child("port"), port, format!("port is not valid: {m}"))));
}

const HOOK: &[Rule] =
    &[("failurePolicy", GivenOneOf(&["Fail", "Ignore"])), ("matchPolicy", GivenOneOf(&["Equivalent", "Exact"]))];

/// Checks the rules that say what a webhook or a policy is asked about.
pub(super) fn validate_rules(rules: &[Value], path: &Path, errors: &mut Errors) {
    rules.iter().enumerate().for_each(|(i, rule)| validate_rule(rule, &path.index(i), errors));
}

/// Checks one of them.
pub(super) fn validate_rule(rule: &Value, at: &Path, errors: &mut Errors) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (list, what) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let (items, at) = (rule.array_at(&[list]), at.child(list));
        if items.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        if items.len() > 1 && items.iter().any(|item| item.as_str() == Some("*")) {
            let detail = format!("if '*' is present, must not specify other {what}");
            errors.push(Error::invalid(&at, items.to_vec(), detail));
        }
        for (j, item) in items.iter().filter_map(Value::as_str).enumerate() {
            match list {
                "operations" if !OPERATIONS.contains(&item) => {
                    errors.push(Error::not_supported(&at.index(j), item, OPERATIONS));
                }
                "apiVersions" if item.is_empty() => errors.push(Error::required(&at.index(j), "")),
                _ => {}
            }
        }
    }
    validate_resources(rule, &at.child("resources"), errors);
    check_at(rule, at, &[("scope", GivenOneOf(&["*", "Cluster", "Namespaced"]))], errors);
}

/// Resources and their subresources; what one of them says need not be said again.
fn validate_resources(rule: &Value, path: &Path, errors: &mut Errors) {
    let all: Vec<&str> = rule.array_at(&["resources"]).iter().filter_map(Value::as_str).collect();
    if all.is_empty() {
        errors.push(Error::required(path, ""));
    }
    let mut earlier = HashSet::new();
    for (i, resource) in all.iter().enumerate() {
        if resource.is_empty() {
            errors.push(Error::required(&path.index(i), ""));
        }
        let others = resource.split_once('/').map(|(name, part)| [format!("{name}/*"), format!("*/{part}")]);
        for wide in others.into_iter().flatten() {
            if wide != *resource && earlier.contains(wide.as_str()) {
                let detail = format!("if '{wide}' is present, must not specify {resource}");
                errors.push(Error::invalid(&path.index(i), *resource, detail));
            }
        }
        earlier.insert(*resource);
    }
    let mut wrong = |detail: &str| errors.push(Error::invalid(path, &rule["resources"], detail));
    if all.len() > 1 && all.contains(&"*/*") {
        wrong("if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && all.iter().filter(|resource| !resource.contains('/')).count() > 1 {
        wrong("if '*' is present, must not specify other resources without subresources");
    }
}

fn validate(c: &Value, errors: &mut Errors) {
    let hooks = c.array_at(&["webhooks"]);
    for (i, hook) in hooks.iter().enumerate() {
        let at = Path::new("webhooks").index(i);
        let name = text(hook, &["name"]);
        let mut wrong = names::dns1123_subdomain(name);
        if wrong.is_empty() && name.split('.').count() < 3 {
            wrong.push("should be a domain with at least three segments separated by dots".into());
        }
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
        }
        validate_rules(hook.array_at(&["rules"]), &at.child("rules"), errors);
        check_at(hook, &at, HOOK, errors);
        let (effects, supported) = (&hook["sideEffects"], &["None", "NoneOnDryRun"]);
        if effects.is_null() {
            errors.push(Error::required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"));
        } else if !supported.contains(&effects.as_str().unwrap_or_default()) {
            errors.push(Error::not_supported(&at.child("sideEffects"), effects, supported));
        }
        if let Some(n) = hook.int_at(&["timeoutSeconds"]).filter(|n| !(1..=30).contains(n)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(&at.child("timeoutSeconds"), n, detail));
        }
        check_at(hook, &at, &[("namespaceSelector", Selector), ("objectSelector", Selector)], errors);
        check_at(hook, &at, &[("reinvocationPolicy", GivenOneOf(&["IfNeeded", "Never"]))], errors);
        validate_client(&hook["clientConfig"], &at.child("clientConfig"), errors);
    }
    // Only with everything else does what is below depend on other webhooks.
    let mut known = HashSet::new();
    for (i, hook) in hooks.iter().enumerate() {
        let at = Path::new("webhooks").index(i);
        let (versions, path) = (hook.array_at(&["admissionReviewVersions"]), at.child("admissionReviewVersions"));
        validate_review_versions(versions, &path, "must specify one of v1, v1beta1", errors);
        if !known.insert(text(hook, &["name"])) {
            errors.push(Error::duplicate(&at.child("name"), text(hook, &["name"])));
        }
    }
}

/// Checks which versions of a review a webhook takes; `missing` is the detail where none are given.
pub(super) fn validate_review_versions(versions: &[Value], path: &Path, missing: &str, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.push(Error::required(path, missing));
    }
    let mut known = HashSet::new();
    for (i, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        if !known.insert(version) {
            errors.push(Error::invalid(&path.index(i), version, "duplicate version"));
        } else {
            let wrong = names::dns1035_label(version).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&path.index(i), version, m)));
        }
    }
    if !versions.iter().any(|version| ["v1", "v1beta1"].contains(&version.as_str().unwrap_or_default())) {
        errors.push(Error::invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1"));
    }
}

/// Checks how a webhook is reached.
pub(super) fn validate_client(config: &Value, path: &Path, errors: &mut Errors) {
    let (url, service) = (config["url"].as_str(), &config["service"]);
    if url.is_none() == service.is_null() {
        errors.push(Error::required(path, "exactly one of url or service is required"));
        return;
    }
    if let Some(url) = url {
        return validate_url(url, &path.child("url"), errors);
    }
    let path = path.child("service");
    check_at(service, &path, &[("name", Required("")), ("namespace", Required(""))], errors);
    if let Some(text) = service.str_at(&["path"]).filter(|text| !text.is_empty()) {
        validate_path(text, &path.child("path"), errors);
    }
    validate_port(service, &path, errors);
}

fn validate_path(text: &str, at: &Path, errors: &mut Errors) {
    if !text.starts_with('/') {
        errors.push(Error::invalid(at, text, "must start with a '/'"));
    }
    let mut segments: Vec<&str> = text.split('/').skip(1).collect();
    if segments.last().is_some_and(|last| last.is_empty()) {
        segments.pop();
    }
    if !text.starts_with('/') {
        segments.insert(0, "");
    }
    for (i, segment) in segments.iter().enumerate() {
        let wrong = match *segment {
            "" => vec![format!("segment[{i}] may not be empty")],
            segment => names::dns1123_subdomain(segment).into_iter().map(|m| format!("segment[{i}]: {m}")).collect(),
        };
        errors.extend(wrong.into_iter().map(|m| Error::invalid(at, text, m)));
    }
}

/// Checks where a webhook listens.
fn validate_url(url: &str, at: &Path, errors: &mut Errors) {
    const FORM: &str = "desired format: https://host[/path]";
    if url.starts_with(':') {
        let detail = format!("url must be a valid URL: parse {url:?}: missing protocol scheme; {FORM}");
        return errors.push(Error::required(at, detail));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.split_once('@').unwrap_or(("", authority));
    let mut wrong = |is: bool, value: &str, detail: &str| {
        if is {
            errors.push(Error::invalid(at, value, detail));
        }
    };
    wrong(scheme != "https", scheme, &format!("'https' is the only allowed URL scheme; {FORM}"));
    wrong(host.is_empty(), "", &format!("host must be specified; {FORM}"));
    wrong(!user.is_empty(), user, "user information is not permitted in the URL");
    wrong(!fragment.is_empty(), fragment, "fragments are not permitted in the URL");
    wrong(!query.is_empty(), query, "query parameters are not permitted in the URL");
}
