//! Whole documents: valid, closed, and about every resource.

use super::*;
use crate::resource::{all, all_with_previews};
use expect_test::expect;
use meta::Value;
use std::collections::BTreeSet;

fn references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, item) in map.iter() {
                match (key, item) {
                    ("$ref", Value::String(target)) => {
                        out.insert(target.to_string());
                    }
                    _ => references(item, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

fn check_closed(document: &Value, schemas: &[&str], prefix: &str) {
    let mut targets = BTreeSet::new();
    references(document, &mut targets);
    assert!(!targets.is_empty());
    let schemas = document.at(schemas).expect("schemas");
    for target in targets {
        let name = target.strip_prefix(prefix).unwrap_or_else(|| panic!("{target} points elsewhere"));
        assert!(schemas.get(name).is_some(), "{target} is not there");
    }
}

/// The served kinds that no schema of the document names, and the patchable ones without a PATCH that names them.
fn missing(document: &Value, schemas: &[&str], resources: &[&Resource]) -> Vec<String> {
    let gvk_of = |v: &Value| {
        let part = |name| v.str_at(&[name]).unwrap_or_default().to_owned();
        (part("group"), part("version"), part("kind"))
    };
    let mut named = BTreeSet::new();
    for schema in document.at(schemas).and_then(Value::as_object).expect("schemas").values() {
        named.extend(schema.array_at(&["x-kubernetes-group-version-kind"]).iter().map(gvk_of));
    }
    let mut patched = BTreeSet::new();
    for path in document.at(&["paths"]).and_then(Value::as_object).expect("paths").values() {
        let Some(patch) = path.get("patch") else { continue };
        let validates = patch.array_at(&["parameters"]).iter().any(|p| p.str_at(&["name"]) == Some("fieldValidation"));
        if let (true, Some(gvk)) = (validates, patch.get("x-kubernetes-group-version-kind")) {
            patched.insert(gvk_of(gvk));
        }
    }
    let mut out = Vec::new();
    for r in resources {
        let gvk = (r.group.to_string(), r.version.to_string(), r.kind.to_string());
        if !named.contains(&gvk) {
            out.push(format!("{gvk:?} has no schema"));
        }
        if r.can("patch") && !patched.contains(&gvk) {
            out.push(format!("{gvk:?} has no patch"));
        }
    }
    out
}

#[test]
fn version_3_documents_are_whole() {
    let docs = Docs::default();
    let versions: BTreeSet<(&str, &str)> = all_with_previews().iter().map(|r| (&*r.group, &*r.version)).collect();
    for (group, version) in versions {
        let bytes = v3(all_with_previews(), group, version, &docs).expect("served");
        let document = meta::parse(&bytes).expect("JSON");
        check_closed(&document, &["components", "schemas"], "#/components/schemas/");
        let own: Vec<&Resource> =
            all_with_previews().iter().filter(|r| r.group == group && r.version == version).collect();
        assert_eq!(missing(&document, &["components", "schemas"], &own), Vec::<String>::new());
    }
    assert_eq!(v3(all(), "apps", "v1beta1", &docs), None);
}

#[test]
fn the_version_2_document_is_whole() {
    let bytes = v2(all(), &Docs::default());
    let document = meta::parse(&bytes).expect("JSON");
    check_closed(&document, &["definitions"], "#/definitions/");
    assert_eq!(missing(&document, &["definitions"], &all().iter().collect::<Vec<_>>()), Vec::<String>::new());
}

#[test]
fn the_index_names_every_version() {
    let index = meta::parse(&v3_index(all())).expect("JSON");
    let path = index.str_at(&["paths", "apis/apps/v1", "serverRelativeURL"]).expect("apps");
    assert_eq!(path, format!("/openapi/v3/apis/apps/v1?hash={}", v3_hash(all(), "apps", "v1")));
    assert!(index.at(&["paths", "api/v1"]).is_some());
    assert!(index.at(&["paths", "apis/storagemigration.k8s.io/v1beta1"]).is_none());
}

#[test]
fn a_schema_and_an_operation() {
    let docs = Docs::new(
        "io.k8s.api.core.v1.Volume\tA volume.\n !name\tIts \\\\name\\nin the pod.\n emptyDir\tA directory.\n".into(),
    );
    let document = meta::parse(&v3(all(), "", "v1", &docs).expect("served")).expect("JSON");
    let schemas = document.at(&["components", "schemas"]).expect("schemas");
    let part = |name: &str, path: &[&str]| {
        String::from_utf8(schemas.get(name).and_then(|s| s.at(path)).expect(name).to_vec()).expect("UTF-8")
    };
    expect![[r#"{"default":"","description":"Its \\name\nin the pod.","type":"string"}"#]]
        .assert_eq(&part("io.k8s.api.core.v1.Volume", &["properties", "name"]));
    expect![[r##"{"allOf":[{"$ref":"#/components/schemas/io.k8s.api.core.v1.EmptyDirVolumeSource"}],"description":"A directory."}"##]]
        .assert_eq(&part("io.k8s.api.core.v1.Volume", &["properties", "emptyDir"]));
    expect![[r#"["name"]"#]].assert_eq(&part("io.k8s.api.core.v1.Volume", &["required"]));
    expect![[r##"{"items":{"$ref":"#/components/schemas/io.k8s.api.core.v1.ContainerPort"},"type":"array","x-kubernetes-list-map-keys":["containerPort","protocol"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"containerPort","x-kubernetes-patch-strategy":"merge"}"##]]
        .assert_eq(&part("io.k8s.api.core.v1.Container", &["properties", "ports"]));
    expect![[r##"{"additionalProperties":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"},"type":"object"}"##]]
        .assert_eq(&part("io.k8s.api.core.v1.ResourceRequirements", &["properties", "limits"]));
    expect![[r#"[{"group":"","kind":"Pod","version":"v1"}]"#]]
        .assert_eq(&part("io.k8s.api.core.v1.Pod", &["x-kubernetes-group-version-kind"]));
    let paths = document.at(&["paths"]).expect("paths");
    let operation = |path: &str, method: &str| paths.at(&[path, method]).expect(path).clone();
    let exec = operation("/api/v1/namespaces/{namespace}/pods/{name}/exec", "get");
    assert_eq!(exec.str_at(&["operationId"]), Some("connectCoreV1GetNamespacedPodExec"));
    let of_path = paths.at(&["/api/v1/namespaces/{namespace}/pods/{name}/exec", "parameters"]).expect("shared");
    assert_eq!(of_path.as_array().expect("a list")[0].str_at(&["name"]), Some("command"));
    let watch = operation("/api/v1/watch/namespaces/{namespace}/pods/{name}", "get");
    assert_eq!(watch.str_at(&["operationId"]), Some("watchCoreV1NamespacedPod"));
    let list = operation("/api/v1/pods", "get");
    assert_eq!(list.str_at(&["operationId"]), Some("listCoreV1PodForAllNamespaces"));
    let scale = operation("/api/v1/namespaces/{namespace}/replicationcontrollers/{name}/scale", "get");
    expect![[r#"{"group":"autoscaling","kind":"Scale","version":"v1"}"#]].assert_eq(
        &String::from_utf8(scale.get("x-kubernetes-group-version-kind").expect("kind").to_vec()).expect("UTF-8"),
    );
}
