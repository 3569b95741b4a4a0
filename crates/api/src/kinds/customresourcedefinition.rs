//! CustomResourceDefinition: names, versions, schemas, conversion, columns, selectable fields.
//!
//! Who serves what a definition says is the API server's business (`apiserver::custom`). Invariant: a definition without
//! errors can be served as it is.

use std::collections::HashSet;

use super::columns::CREATED_AT;
use super::conditions;
use super::prelude::*;
use super::webhook::{validate_client, validate_review_versions};
use structural::{JsonPath, check as schemas};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Scope", "Cluster/Namespaced").at("spec.scope"),
        Column::text("Versions", "Served versions").by(served_versions),
        CREATED_AT,
        Column::text("Group", "API group").at("spec.group").wide(),
        Column::text("Kind", "CustomResource kind").at("spec.names.kind").wide(),
        Column::text("ShortNames", "Short names").by(|c| joined(&c["spec"]["names"]["shortNames"], "")).wide(),
        Column::flag("Established", "Established status").by(|c| conditions::holds(c, "Established").into()).wide(),
    ],
    defaults,
    prepare_create: |c| {
        let stored: Vec<&str> = c
            .array_at(&["spec", "versions"])
            .iter()
            .filter(|v| v.bool_at(&["storage"]) == Some(true))
            .map(|v| text(v, &["name"]))
            .collect();
        let stored = if stored.is_empty() { Value::Null } else { Value::from(stored) };
        let status = json!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": null, "storedVersions": stored});
        new_object(c, status);
    },
    prepare_update: |new, old| {
        keep_status_count_spec(new, old);
        remember_stored_version(new);
    },
    validate_create: |c| {
        let mut errors = validate(c);
        validate_stored_versions(c, &mut errors);
        validate_approval(c, &mut errors);
        errors
    },
    validate_update: |new, old| {
        // What was stored by other rules is not in the way of who changes something else.
        let mut errors = if new["spec"] == old["spec"] { Errors::new() } else { validate(new) };
        validate_stored_versions(new, &mut errors);
        let established = conditions::holds(old, "Established");
        let mut rules: Vec<Rule> = vec![("spec.group", Immutable), ("spec.names.plural", Immutable)];
        if established {
            rules.extend([("spec.scope", Immutable), ("spec.names.kind", Immutable)]);
        }
        check_immutable(new, old, &rules, &mut errors);
        errors
    },
    validate_status_update: |new, _| {
        let mut errors = Errors::new();
        validate_stored_versions(new, &mut errors);
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

fn served_versions(c: &Value) -> Cell {
    let served = c.array_at(&["spec", "versions"]).iter().filter(|v| v.bool_at(&["served"]) == Some(true));
    let mark = |v: &Value| if v.bool_at(&["storage"]) == Some(true) { "(storage)" } else { "" };
    served.map(|v| format!("{}{}", text(v, &["name"]), mark(v))).collect::<Vec<_>>().join(",").into()
}

/// Compat: upstream keeps definitions in the form of v1beta1, where what all versions have alike stands beside them.
pub fn from_v1beta1(c: &mut Value) {
    let spec = c.slot(&["spec"]);
    let name = spec.remove(&["version"]);
    if spec.bool_at(&["preserveUnknownFields"]) != Some(true) {
        spec.remove(&["preserveUnknownFields"]);
    }
    if spec.array_at(&["versions"]).is_empty() {
        spec.set(&["versions"], vec![json!({"name": name.unwrap_or_default(), "served": true, "storage": true})]);
    }
    let alike = [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ];
    for (member, of_version) in alike {
        let Some(value) = spec.remove(&[member]).filter(|value| !value.is_null()) else { continue };
        fill::each(spec, &["versions"], |version| version.set_default(&[of_version], &value));
    }
    fill::each(spec, &["versions"], |version| {
        fill::each(version, &["additionalPrinterColumns"], |column| {
            if let Some(path) = column.remove(&["JSONPath"]) {
                column.set(&["jsonPath"], path);
            }
        });
    });
    for (member, place) in
        [("webhookClientConfig", "clientConfig"), ("conversionReviewVersions", "conversionReviewVersions")]
    {
        if let Some(value) = spec.remove(&["conversion", member]).filter(|value| !value.is_null()) {
            spec.set(&["conversion", "webhook", place], value);
        }
    }
}

/// A group that the Kubernetes project keeps for itself.
pub fn is_protected(group: &str) -> bool {
    [".k8s.io", ".kubernetes.io"].iter().any(|end| group.ends_with(end))
}

/// The annotation that a definition in a protected group carries.
pub const APPROVED: &str = "api-approved.kubernetes.io";
/// Holds a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

fn defaults(c: &mut Value) {
    let spec = c.slot(&["spec"]);
    let kind = text(spec, &["names", "kind"]).to_string();
    if !kind.is_empty() {
        fill::text(spec.slot(&["names"]), "singular", &kind.to_lowercase());
        fill::text(spec.slot(&["names"]), "listKind", &format!("{kind}List"));
    }
    fill::unset(spec, "conversion", json!({"strategy": "None"}));
    fill::at(spec, &["conversion", "webhook", "clientConfig", "service"], |s| fill::unset(s, "port", 443));
}

/// A version once written stays among the stored ones until somebody migrates the objects.
fn remember_stored_version(c: &mut Value) {
    let versions = c.array_at(&["spec", "versions"]);
    let Some(current) = versions.iter().find(|v| v.bool_at(&["storage"]) == Some(true)).map(|v| v["name"].clone())
    else {
        return;
    };
    let stored = c.slot(&["status", "storedVersions"]).make_array();
    if !stored.contains(&current) {
        stored.push(current);
    }
}

const RULES: &[Rule] = &[
    ("spec.group", Required("")),
    ("spec.group", Name(names::dns1123_subdomain)),
    ("spec.scope", RequiredOneOf(&["Cluster", "Namespaced"])),
    ("spec.versions[].name", AnyName(names::dns1035_label)),
];
const NAMES: &[Rule] = &[
    ("spec.names.plural", Required("")),
    ("spec.names.plural", Name(names::dns1035_label)),
    ("spec.names.singular", Required("")),
    ("spec.names.singular", Name(names::dns1035_label)),
    ("spec.names.kind", Required("")),
    ("spec.names.listKind", Required("")),
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
    if !group.is_empty() && !group.contains('.') && names::dns1123_subdomain(group).is_empty() {
        let detail = "should be a domain with at least one dot";
        errors.push(Error::invalid(&Path::new("spec.group"), group, detail));
    }
    validate_version_list(c, &mut errors);
    // Compat: the first version is the old field `version` too.
    if let Some(first) = c.array_at(&["spec", "versions"]).first().map(|v| text(v, &["name"])).filter(|v| !v.is_empty())
    {
        let wrong = names::dns1035_label(first).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(&Path::new("spec.version"), first, m)));
    }
    check(c, NAMES, &mut errors);
    validate_names(c, &mut errors);
    let preserves = c.bool_at(&["spec", "preserveUnknownFields"]) == Some(true);
    let (strategy, at) = (text(c, &["spec", "conversion", "strategy"]), Path::new("spec.conversion"));
    if preserves && !matches!(strategy, "" | "None") {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&at.child("strategy"), strategy, detail));
    }
    validate_conversion(&c["spec"]["conversion"], &at, &mut errors);
    if preserves {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.push(Error::invalid(&Path::new("spec.preserveUnknownFields"), true, detail));
    }
    validate_versions(c, &mut errors);
    errors
}

fn validate_approval(c: &Value, errors: &mut Errors) {
    let approved = c.at(&["metadata", "annotations", APPROVED]).is_some();
    if is_protected(text(c, &["spec", "group"])) && !approved {
        let detail = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(Error::required(&Path::new("metadata.annotations").key(APPROVED), detail));
    }
}

fn validate_names(c: &Value, errors: &mut Errors) {
    let at = Path::new("spec.names");
    for member in ["kind", "listKind"] {
        let name = text(c, &["spec", "names", member]);
        if !name.is_empty() {
            let wrong = names::dns1035_label(&name.to_lowercase());
            let detail = |m: String| format!("may have mixed case, but should otherwise match: {m}");
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child(member), name, detail(m))));
        }
    }
    let kind = text(c, &["spec", "names", "kind"]);
    if !kind.is_empty() && kind == text(c, &["spec", "names", "listKind"]) {
        errors.push(Error::invalid(&at.child("listKind"), kind, "kind and listKind may not be the same"));
    }
    for member in ["shortNames", "categories"] {
        for (i, name) in c.array_at(&["spec", "names", member]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let wrong = names::dns1035_label(name);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child(member).index(i), name, m)));
        }
    }
}

/// The versions that objects may be stored in must all be there to read them.
fn validate_stored_versions(c: &Value, errors: &mut Errors) {
    let versions = c.array_at(&["spec", "versions"]);
    let names: HashSet<&str> = versions.iter().map(|v| text(v, &["name"])).collect();
    let (at, all) = (Path::new("status.storedVersions"), &c["status"]["storedVersions"]);
    if all.is_empty() {
        errors.push(Error::invalid(&at, all, "must have at least one stored version"));
        return;
    }
    let kept: HashSet<&str> = c.array_at(&["status", "storedVersions"]).iter().filter_map(Value::as_str).collect();
    for version in versions.iter().filter(|v| v.bool_at(&["storage"]) == Some(true)) {
        if !kept.contains(text(version, &["name"])) {
            let detail = format!("must have the storage version {}", text(version, &["name"]));
            errors.push(Error::invalid(&at, all, detail));
        }
    }
    for (i, stored) in c.array_at(&["status", "storedVersions"]).iter().enumerate() {
        let stored = stored.as_str().unwrap_or_default();
        if !names.contains(stored) {
            let detail = format!(
                "missing from spec.versions; {stored} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {stored} and removes {stored} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&at.index(i), stored, detail));
        }
    }
}

/// One version is stored, and each has a name of its own.
fn validate_version_list(c: &Value, errors: &mut Errors) {
    let path = Path::new("spec.versions");
    let versions = c.array_at(&["spec", "versions"]);
    let stored = versions.iter().filter(|v| v.bool_at(&["storage"]) == Some(true)).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&path, &c["spec"]["versions"], detail));
    }
    let mut known = HashSet::new();
    if versions.iter().any(|version| !known.insert(text(version, &["name"]))) {
        let detail = "must contain unique version names";
        errors.push(Error::invalid(&path, &c["spec"]["versions"], detail));
    }
}

fn validate_versions(c: &Value, errors: &mut Errors) {
    let path = Path::new("spec.versions");
    let versions = c.array_at(&["spec", "versions"]);
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        let schema = &version["schema"]["openAPIV3Schema"];
        // Compat: what all versions have alike stands beside them in upstream's internal version, and in its errors.
        let place = |member: &str, alike: &str| match versions.iter().all(|v| v[member] == version[member]) {
            true if i > 0 => None,
            true => Some(Path::new("spec").child(alike)),
            false => Some(at.child(member)),
        };
        if schema.is_null() {
            errors.push(Error::required(&at.child("schema.openAPIV3Schema"), ""));
        } else if let Some(at) = place("schema", "validation") {
            errors.extend(schemas::schema(schema, &at.child("openAPIV3Schema")));
        }
        if version.get("deprecationWarning").is_some() && version.bool_at(&["deprecated"]) != Some(true) {
            let detail = "can only be set for deprecated versions";
            let text = text(version, &["deprecationWarning"]);
            errors.push(Error::invalid(&at.child("deprecationWarning"), text, detail));
        }
        if let Some(at) = place("additionalPrinterColumns", "additionalPrinterColumns") {
            validate_columns(version, &at, errors);
        }
        if let Some(at) = place("subresources", "subresources") {
            validate_scale(version, &at.child("scale"), errors);
        }
        if let Some(at) = place("selectableFields", "selectableFields") {
            validate_selectable(version, schema, &at, errors);
        }
    }
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn validate_columns(version: &Value, path: &Path, errors: &mut Errors) {
    for (i, column) in version.array_at(&["additionalPrinterColumns"]).iter().enumerate() {
        let at = path.index(i);
        let (ty, format, json_path) = (text(column, &["type"]), text(column, &["format"]), text(column, &["jsonPath"]));
        if text(column, &["name"]).is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if ty.is_empty() {
            errors.push(Error::required(&at.child("type"), format!("must be one of {}", COLUMN_TYPES.join(","))));
        } else if !COLUMN_TYPES.contains(&ty) {
            errors.push(Error::invalid(&at.child("type"), ty, format!("must be one of {}", COLUMN_TYPES.join(","))));
        }
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Error::invalid(&at.child("format"), format, detail));
        }
        // Compat: upstream's internal name of the field.
        let at = at.child("JSONPath");
        match JsonPath::parse(json_path) {
            _ if json_path.is_empty() => errors.push(Error::required(&at, "")),
            _ if !json_path.starts_with('.') => {
                errors.push(Error::invalid(&at, json_path, "must be a simple json path starting with ."));
            }
            Err(why) => errors.push(Error::invalid(&at, json_path, why)),
            Ok(_) => {}
        }
    }
}

fn validate_scale(version: &Value, path: &Path, errors: &mut Errors) {
    let Some(scale) = version.at(&["subresources", "scale"]).filter(|s| !s.is_null()) else { return };
    for (member, roots, wanted) in [
        ("specReplicasPath", &["spec"][..], "should be a json path under .spec"),
        ("statusReplicasPath", &["status"], "should be a json path under .status"),
        ("labelSelectorPath", &["spec", "status"], "should be a json path under either .spec or .status"),
    ] {
        let json_path = text(scale, &[member]);
        if json_path.is_empty() {
            if member != "labelSelectorPath" {
                errors.push(Error::required(&path.child(member), ""));
            }
            continue;
        }
        match JsonPath::simple(json_path) {
            None => errors.push(Error::invalid(
                &path.child(member),
                json_path,
                "must be a simple json path starting with .",
            )),
            Some(p) if p.fields().len() < 2 || !roots.contains(&p.fields()[0]) => {
                errors.push(Error::invalid(&path.child(member), json_path, wanted));
            }
            Some(_) => {}
        }
    }
}

const SELECTABLE_MAX: usize = 8;

fn validate_selectable(version: &Value, schema: &Value, path: &Path, errors: &mut Errors) {
    let all = version.array_at(&["selectableFields"]);
    if all.len() > SELECTABLE_MAX {
        errors.push(Error::too_many(path, all.len(), SELECTABLE_MAX));
    }
    let mut known = HashSet::new();
    for (i, field) in all.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let json_path = text(field, &["jsonPath"]);
        if json_path.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let Some(steps) = JsonPath::simple(json_path) else {
            errors.push(Error::invalid(
                &at,
                json_path,
                "is an invalid path: must be a simple json path starting with .",
            ));
            continue;
        };
        let found = steps.fields().iter().try_fold(schema, |at, name| at.at(&["properties", name]));
        let detail = match found.map(|f| text(f, &["type"])) {
            None => "is an invalid path: does not refer to a valid field",
            _ if steps.fields()[0] == "metadata" => "must not point to fields in metadata",
            Some("string" | "integer" | "boolean") => "",
            _ => {
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are \
                 allowed."
            }
        };
        if !detail.is_empty() {
            errors.push(Error::invalid(&at, json_path, detail));
        }
        if !known.insert(json_path) {
            errors.push(Error::duplicate(&at, json_path));
        }
    }
}

fn validate_conversion(conversion: &Value, path: &Path, errors: &mut Errors) {
    check_at(conversion, path, &[("strategy", RequiredOneOf(&["None", "Webhook"]))], errors);
    let config = &conversion["webhook"]["clientConfig"];
    let versions = conversion["webhook"].array_at(&["conversionReviewVersions"]);
    // Compat: these errors name the fields of upstream's internal version.
    let (at, versions_at) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if text(conversion, &["strategy"]) != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        let given = [(&at, !config.is_null()), (&versions_at, !versions.is_empty())];
        errors.extend(given.iter().filter(|(_, given)| *given).map(|(at, _)| Error::forbidden(at, detail)));
        return;
    }
    if config.is_null() {
        errors.push(Error::required(&at, "required when strategy is set to Webhook"));
    } else {
        validate_client(config, &at, errors);
    }
    validate_review_versions(versions, &versions_at, "", errors);
}
