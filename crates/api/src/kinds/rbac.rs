//! What the kinds of `rbac.authorization.k8s.io` share: rules, subjects, references.

use super::prelude::*;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const ROLE: Kind = Kind {
    columns: super::columns::NAME_AND_CREATED_AT,
    name_rule: names::path_segment,
    create_on_update: true,
    validate: |r, errors| validate_role(r, true, errors),
    ..Kind::PLAIN
};

pub(super) const BINDING: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Role", "The role that is given.")
            .by(|b| format!("{}/{}", text(&b["roleRef"], &["kind"]), text(&b["roleRef"], &["name"])).into()),
        AGE,
        Column::text("Users", "Users who get the role.").by(|b| subjects(b, "User")).wide(),
        Column::text("Groups", "Groups that get the role.").by(|b| subjects(b, "Group")).wide(),
        Column::text("ServiceAccounts", "Service accounts that get the role.")
            .by(|b| subjects(b, "ServiceAccount"))
            .wide(),
    ],
    defaults: binding_defaults,
    name_rule: names::path_segment,
    create_on_update: true,
    validate: validate_binding,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if new["roleRef"] != old["roleRef"] {
            let part = |field: &str| Value::from(text(&new["roleRef"], &[field]));
            let (group, kind, name) = (part("apiGroup"), part("kind"), part("name"));
            let shown = format!("{{\"APIGroup\":{group},\"Kind\":{kind},\"Name\":{name}}}");
            errors.push(Error::invalid_raw(&Path::new("roleRef"), &shown, "field is immutable"));
        }
        errors
    },
    ..Kind::PLAIN
};

fn subjects(b: &Value, kind: &str) -> Cell {
    let subjects = b.array_at(&["subjects"]).iter().filter(|s| text(s, &["kind"]) == kind);
    let names = subjects.map(|s| match (kind, text(s, &["namespace"])) {
        ("ServiceAccount", namespace) => format!("{namespace}/{}", text(s, &["name"])),
        _ => text(s, &["name"]).to_string(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn binding_defaults(b: &mut Value) {
    fill::text(b.slot(&["roleRef"]), "apiGroup", GROUP);
    fill::each(b, &["subjects"], |s| {
        if ["User", "Group"].contains(&text(s, &["kind"])) {
            fill::text(s, "apiGroup", GROUP);
        }
    });
}

/// Checks the rules of a role. Only cluster-wide ones may name URLs.
pub(super) fn validate_role(role: &Value, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in role.array_at(&["rules"]).iter().enumerate() {
        let at = Path::new("rules").index(i);
        let both = !rule.array_at(&["apiGroups"]).is_empty() || !rule.array_at(&["resources"]).is_empty();
        let urls = !rule.array_at(&["nonResourceURLs"]).is_empty();
        let mut wrong = |detail: &str| {
            errors.push(Error::invalid(&at.child("nonResourceURLs"), &rule["nonResourceURLs"], detail));
        };
        if urls && namespaced {
            wrong("namespaced rules cannot apply to non-resource URLs");
        }
        if urls && both {
            wrong("rules cannot apply to both regular resources and non-resource URLs");
        }
        for (list, what) in [("apiGroups", "api group"), ("resources", "resource")] {
            if !urls && rule.array_at(&[list]).is_empty() {
                let detail = format!("resource rules must supply at least one {what}");
                errors.push(Error::required(&at.child(list), detail));
            }
        }
    }
    check(role, &[("rules[].verbs", Required(""))], errors);
}

fn validate_binding(b: &Value, errors: &mut Errors) {
    let reference = &b["roleRef"];
    let path = Path::new("roleRef");
    if text(reference, &["apiGroup"]) != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), text(reference, &["apiGroup"]), &[GROUP]));
    }
    // A binding of a namespace means accounts of its own where it names no other.
    let cluster = text(b, &["kind"]) == "ClusterRoleBinding";
    let kinds: &[&str] = if cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    if !kinds.contains(&text(reference, &["kind"])) {
        errors.push(Error::not_supported(&path.child("kind"), text(reference, &["kind"]), kinds));
    }
    check(b, &[("roleRef.name", Name(names::path_segment))], errors);
    for (i, subject) in b.array_at(&["subjects"]).iter().enumerate() {
        let at = Path::new("subjects").index(i);
        let group = text(subject, &["apiGroup"]);
        match text(subject, &["kind"]) {
            "ServiceAccount" => {
                check_at(subject, &at, &[("name", Name(names::dns1123_subdomain))], errors);
                if !group.is_empty() {
                    errors.push(Error::not_supported(&at.child("apiGroup"), group, &[""]));
                }
                if cluster && text(subject, &["namespace"]).is_empty() {
                    errors.push(Error::required(&at.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(Error::not_supported(&at.child("apiGroup"), group, &[GROUP]));
                }
            }
            other => errors.push(Error::not_supported(&at.child("kind"), other, &["ServiceAccount", "User", "Group"])),
        }
    }
    // Compat: upstream declares these, and errors of what is declared come last.
    let subjects = b.array_at(&["subjects"]).iter().enumerate();
    let named = subjects.map(|(i, subject)| (Path::new("subjects").index(i), subject)).chain([(path, reference)]);
    for (at, _) in named.filter(|(_, named)| text(named, &["name"]).is_empty()) {
        errors.push(Error::required(&at.child("name"), ""));
    }
}
