//! CustomResourceDefinition: names and versions. What its schemas mean is the API server's business.

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use super::columns::{NAME_AND_CREATED_AT, name_and_created_at, text};
use super::rules::{Check, Rule, check, check_immutable};
use super::{Kind, fill, first_generation, keep_status_count_spec};

pub static KIND: Kind = Kind {
    columns: NAME_AND_CREATED_AT,
    row: name_and_created_at,
    defaults,
    prepare_create: |c| {
        let stored: Vec<&str> = c
            .array_at(&["spec", "versions"])
            .iter()
            .filter(|v| v.bool_at(&["storage"]) == Some(true))
            .map(|v| text(v, &["name"]))
            .collect();
        let status = meta::json!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": stored});
        c.set(&["status"], status);
        first_generation(c);
    },
    prepare_update: |new, old| {
        keep_status_count_spec(new, old);
        remember_stored_version(new);
    },
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        let established = old.array_at(&["status", "conditions"]).iter().any(|c| {
            text(c, &["type"]) == "Established" && text(c, &["status"]) == "True"
        });
        let mut rules: Vec<Rule> = vec![("spec.group", Check::Immutable), ("spec.names.plural", Check::Immutable)];
        if established {
            rules.extend([("spec.scope", Check::Immutable), ("spec.names.kind", Check::Immutable)]);
        }
        check_immutable(new, old, &rules, &mut errors);
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

fn defaults(c: &mut Value) {
    let spec = c.slot(&["spec"]);
    let kind = text(spec, &["names", "kind"]).to_string();
    if !kind.is_empty() {
        fill::text(spec.slot(&["names"]), "singular", &kind.to_lowercase());
        fill::text(spec.slot(&["names"]), "listKind", &format!("{kind}List"));
    }
    fill::text(spec.slot(&["conversion"]), "strategy", "None");
    fill::at(spec, &["conversion", "webhook", "clientConfig", "service"], |s| fill::unset(s, "port", 443));
}

/// A version once written stays among the stored ones until somebody migrates the objects.
fn remember_stored_version(c: &mut Value) {
    let versions = c.array_at(&["spec", "versions"]);
    let Some(current) = versions.iter().find(|v| v.bool_at(&["storage"]) == Some(true)).map(|v| v["name"].clone()) else {
        return;
    };
    let stored = c.slot(&["status", "storedVersions"]).make_array();
    if !stored.contains(&current) {
        stored.push(current);
    }
}

const RULES: &[Rule] = &[
    ("spec.group", Check::Required("")),
    ("spec.group", Check::Name(names::dns1123_subdomain)),
    ("spec.scope", Check::RequiredOneOf(&["Cluster", "Namespaced"])),
    ("spec.names.plural", Check::Required("")),
    ("spec.names.plural", Check::Name(names::dns1035_label)),
    ("spec.names.singular", Check::Name(names::dns1035_label)),
    ("spec.names.kind", Check::Required("")),
    ("spec.names.listKind", Check::Required("")),
    ("spec.versions[].name", Check::Required("")),
    ("spec.versions[].name", Check::Name(names::dns1035_label)),
];

fn validate(c: &Value) -> Errors {
    let mut errors = Errors::new();
    let (plural, group) = (text(c, &["spec", "names", "plural"]), text(c, &["spec", "group"]));
    let want = format!("{plural}.{group}");
    if text(c, &["metadata", "name"]) != want {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(Error::invalid(&Path::new("metadata.name"), text(c, &["metadata", "name"]), detail));
    }
    check(c, RULES, &mut errors);
    if !group.is_empty() && !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(Error::invalid(&Path::new("spec.group"), group, detail));
    }
    let kind = text(c, &["spec", "names", "kind"]);
    if !kind.is_empty() {
        let wrong = names::dns1035_label(&kind.to_lowercase());
        let at = Path::new("spec.names.kind");
        let detail = |m: String| format!("may have mixed case, but should otherwise match: {m}");
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at, kind, detail(m))));
        if kind == text(c, &["spec", "names", "listKind"]) {
            let at = Path::new("spec.names.listKind");
            errors.push(Error::invalid(&at, kind, "kind and listKind may not be the same"));
        }
    }
    validate_versions(c, &mut errors);
    errors
}

fn validate_versions(c: &Value, errors: &mut Errors) {
    let path = Path::new("spec.versions");
    let versions = c.array_at(&["spec", "versions"]);
    let stored = versions.iter().filter(|v| v.bool_at(&["storage"]) == Some(true)).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&path, &c["spec"]["versions"], detail));
    }
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        if versions[..i].iter().any(|v| v["name"] == version["name"]) {
            let detail = "must contain unique version names";
            errors.push(Error::invalid(&path, &c["spec"]["versions"], detail));
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            errors.push(Error::required(&at.child("schema.openAPIV3Schema"), "schemas are required"));
        } else if text(schema, &["type"]) != "object" {
            let at = at.child("schema.openAPIV3Schema.type");
            if text(schema, &["type"]).is_empty() {
                errors.push(Error::required(&at, "must not be empty at the root"));
            } else {
                errors.push(Error::invalid(&at, text(schema, &["type"]), "must be object at the root"));
            }
        }
    }
}
