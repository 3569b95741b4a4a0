//! FlowSchema.

use super::conditions;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "").at("spec.priorityLevelConfiguration.name"),
        Column::number("MatchingPrecedence", "").at("spec.matchingPrecedence").said_text(),
        Column::text("DistinguisherMethod", ".spec.distinguisherMethod").or("spec.distinguisherMethod.type", "<none>"),
        AGE,
        Column::text("MissingPL", "Whether the priority level is missing.")
            .by(|f| conditions::find(f, "Dangling").map_or("?", |c| text(c, &["status"])).into()),
    ],
    defaults: |f| {
        if int(f, &["spec", "matchingPrecedence"]) == 0 {
            f.set(&["spec", "matchingPrecedence"], 1000);
        }
    },
    prepare_create: |f| new_object(f, Value::object()),
    prepare_update: keep_status_count_spec,
    validate,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn validate(f: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let (precedence, at) = (int(f, &["spec", "matchingPrecedence"]), spec.child("matchingPrecedence"));
    if precedence == 1 && text(f, &["metadata", "name"]) != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(Error::invalid(&at, precedence, detail));
    }
    let method = &f["spec"]["distinguisherMethod"];
    if !method.is_null() && !["ByNamespace", "ByUser"].contains(&text(method, &["type"])) {
        let at = spec.child("distinguisherMethod.type");
        errors.push(Error::not_supported(&at, method, &["ByNamespace", "ByUser"]));
    }
    if precedence <= 0 {
        errors.push(Error::invalid(&at, precedence, "must be a positive value"));
    } else if precedence > 10_000 {
        errors.push(Error::invalid(&at, precedence, "must not be greater than 10000"));
    }
    let level = text(f, &["spec", "priorityLevelConfiguration", "name"]);
    let level_at = spec.child("priorityLevelConfiguration.name");
    if level.is_empty() {
        errors.push(Error::required(&level_at, "must reference a priority level"));
    } else {
        errors.extend(names::dns1123_subdomain(level).into_iter().map(|m| Error::invalid(&level_at, level, m)));
    }
    for (i, rules) in f.array_at(&["spec", "rules"]).iter().enumerate() {
        let at = spec.child("rules").index(i);
        let subjects = rules.array_at(&["subjects"]);
        if subjects.is_empty() {
            errors.push(Error::required(&at.child("subjects"), "subjects must contain at least one value"));
        }
        for (j, subject) in subjects.iter().enumerate() {
            validate_subject(subject, &at.child("subjects").index(j), errors);
        }
        let (resources, urls) = (rules.array_at(&["resourceRules"]), rules.array_at(&["nonResourceRules"]));
        if resources.is_empty() && urls.is_empty() {
            let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
            errors.push(Error::required(&at, detail));
        }
        for (j, rule) in resources.iter().enumerate() {
            validate_resources(rule, &at.child("resourceRules").index(j), errors);
        }
        for (j, rule) in urls.iter().enumerate() {
            let at = at.child("nonResourceRules").index(j);
            validate_verbs(rule, &at, errors);
            let urls = validate_list(rule, "nonResourceURLs", "non-resource URLs", NO_URL, &at, errors);
            for (k, url) in urls.iter().filter_map(Value::as_str).enumerate() {
                let error = |wrong: &str| Error::invalid(&at.child("nonResourceURLs").index(k), url, wrong);
                errors.extend(url_fault(url).map(error));
            }
        }
    }
}

const NO_URL: &str = "nonResourceURLs must contain at least one value";

fn url_fault(url: &str) -> Option<&'static str> {
    match url {
        "*" => None,
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains([' ', '\t', '\n']) => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if url[..url.len() - 1].contains('*') => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn validate_subject(subject: &Value, at: &Path, errors: &mut Errors) {
    let kind = text(subject, &["kind"]);
    if !SUBJECTS.iter().any(|(known, _)| *known == kind) {
        errors.push(Error::not_supported(&at.child("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    }
    // What the kind is about comes first.
    let (own, others): (Vec<_>, Vec<_>) = SUBJECTS.into_iter().partition(|(known, _)| *known == kind);
    for (known, member) in own.into_iter().chain(others) {
        let at = at.child(member);
        match (known == kind, subject[member].is_null()) {
            (true, true) => {
                errors.push(Error::required(&at, format!("{member} is required when subject kind is '{known}'")));
            }
            (false, false) => {
                let detail = format!("{member} is forbidden when subject kind is not '{known}'");
                errors.push(Error::forbidden(&at, detail));
            }
            (true, false) if member == "serviceAccount" => {
                let (name, namespace) = (text(subject, &[member, "name"]), text(subject, &[member, "namespace"]));
                match name {
                    "" => errors.push(Error::required(&at.child("name"), "")),
                    "*" => {}
                    name => {
                        let wrong = names::dns1123_subdomain(name).into_iter();
                        errors.extend(wrong.map(|m| Error::invalid(&at.child("name"), name, m)));
                    }
                }
                if namespace.is_empty() {
                    let detail = "must specify namespace for service account";
                    errors.push(Error::required(&at.child("namespace"), detail));
                } else {
                    let wrong = names::dns1123_label(namespace).into_iter();
                    errors.extend(wrong.map(|m| Error::invalid(&at.child("namespace"), namespace, m)));
                }
            }
            (true, false) => check_at(&subject[member], &at, &[("name", Required(""))], errors),
            _ => {}
        }
    }
}

/// A list that is not empty, and in which `*` stands alone.
fn validate_list<'a>(
    rule: &'a Value,
    list: &str,
    what: &str,
    missing: &str,
    at: &Path,
    errors: &mut Errors,
) -> &'a [Value] {
    let items = rule.array_at(&[list]);
    if items.is_empty() {
        errors.push(Error::required(&at.child(list), missing));
    } else if items.len() > 1 && items.iter().any(|item| item.as_str() == Some("*")) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(Error::invalid(&at.child(list), items.to_vec(), detail));
    }
    items
}

fn validate_verbs(rule: &Value, at: &Path, errors: &mut Errors) {
    let before = errors.len();
    let verbs = validate_list(rule, "verbs", "verbs", "verbs must contain at least one value", at, errors);
    let known = |verb: &Value| verb.as_str().is_some_and(|verb| VERBS.contains(&verb) || verb == "*");
    if before == errors.len() && !verbs.iter().all(known) {
        errors.push(Error::not_supported(&at.child("verbs"), verbs.to_vec(), VERBS));
    }
}

fn validate_resources(rule: &Value, at: &Path, errors: &mut Errors) {
    validate_verbs(rule, at, errors);
    let missing = "resource rules must supply at least one api group";
    validate_list(rule, "apiGroups", "api groups", missing, at, errors);
    let missing = "resource rules must supply at least one resource";
    validate_list(rule, "resources", "resources", missing, at, errors);
    let (namespaces, at) = (rule.array_at(&["namespaces"]), at.child("namespaces"));
    if namespaces.is_empty() && rule.bool_at(&["clusterScope"]) != Some(true) {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(Error::required(&at, detail));
    } else if namespaces.len() > 1 && namespaces.iter().any(|n| n.as_str() == Some("*")) {
        let detail = "if '*' is present, must not specify other namespaces";
        errors.push(Error::invalid(&at, namespaces.to_vec(), detail));
    } else {
        for (i, namespace) in namespaces.iter().filter_map(Value::as_str).enumerate().filter(|(_, n)| *n != "*") {
            let wrong = names::dns1123_label(namespace).into_iter();
            let wrong = wrong.map(|m| format!("each member of this list must be '*' or a DNS-1123 label; {m}"));
            errors.extend(wrong.map(|m| Error::invalid(&at.index(i), namespace, m)));
        }
    }
}
