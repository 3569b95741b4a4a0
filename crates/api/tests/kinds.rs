//! What holds for every kind: rows fit columns, defaults are idempotent, ordinary manifests are accepted.

use api::kinds;
use meta::{Value, json, time};

fn now() -> time::Timestamp {
    time::parse("2026-01-01T00:00:00Z").expect("a time")
}

#[test]
fn rows_fit_columns_and_defaults_are_idempotent() {
    for resource in api::resource::all_with_previews() {
        let kind = kinds::of(&resource.group, &resource.kind);
        let name = format!("{}/{} {}", resource.group, resource.version, resource.kind);
        let mut object = json!({"metadata": {"name": "x", "namespace": "n"}});
        let cells = kind.cells(&object, now());
        assert_eq!(cells.len(), kind.columns.len(), "{name}");
        let empty = kind.columns.iter().zip(&cells).find(|(c, cell)| cell.is_null() && c.name != "Created At");
        assert_eq!(empty.map(|(c, _)| c.name), None, "{name}");
        (kind.defaults)(&mut object);
        let once = object.clone();
        (kind.defaults)(&mut object);
        assert_eq!(object, once, "{name}");
        (kind.prepare_create)(&mut object);
        let old = object.clone();
        (kind.prepare_update)(&mut object, &old);
        assert_eq!(object, old, "{name}: an update that changes nothing");
        kind.prepare_status(&mut object, &old);
        assert_eq!(object, old, "{name}: a status update that changes nothing");
        let names: Vec<&str> = (kind.selectable)(&object).iter().map(|(n, _)| *n).collect();
        assert!(kind.selectable_names.iter().all(|n| names.contains(n)), "{name}: {names:?}");
        // Whatever is missing, validation answers instead of panicking.
        kinds::check_create(kind, &object, true);
        kinds::check_update(kind, &object, &old);
    }
}

fn accepted(manifest: Value) {
    let api_version = manifest.str_at(&["apiVersion"]).expect("a version").to_string();
    let kind_name = manifest.str_at(&["kind"]).expect("a kind").to_string();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = api::resource::all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind_name)
        .unwrap_or_else(|| panic!("{api_version} {kind_name} is served"));
    let kind = kinds::of(group, &kind_name);
    let mut object = manifest;
    object.set(&["metadata", "name"], if kind_name == "APIService" { "v1.x.io" } else { "web" });
    object.set(&["metadata", "uid"], "6f1c4e1e-0000-4000-8000-000000000001");
    if resource.namespaced {
        object.set(&["metadata", "namespace"], "default");
    }
    let unknown = resource.root_type().expect("a type").prune(&mut object).expect("decodes");
    assert_eq!(unknown, Vec::<String>::new(), "{kind_name}");
    (kind.defaults)(&mut object);
    (kind.prepare_create)(&mut object);
    let errors = kinds::check_create(kind, &object, resource.namespaced);
    assert!(errors.is_empty(), "{kind_name}: {}", meta::field::summary(&errors));
    let mut same = object.clone();
    same.set(&["metadata", "resourceVersion"], "1");
    (kind.prepare_update)(&mut same, &object);
    let errors = kinds::check_update(kind, &same, &object);
    assert!(errors.is_empty(), "update of {kind_name}: {}", meta::field::summary(&errors));
}

/// Manifests of all sorts, one on each line; `"$..."` in them are parts that many share.
#[test]
fn ordinary_manifests_are_accepted() {
    let spec = include_str!("busy_pod_spec.json");
    let template = |spec| format!(r#"{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{spec}}}"#);
    let parts = [
        (r#""$spec""#, spec.to_string()),
        (r#""$busy""#, template(spec)),
        (r#""$job""#, template(r#"{"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}"#)),
        (r#""$selector""#, r#"{"matchLabels": {"app": "web"}}"#.to_string()),
    ];
    for line in include_str!("manifests.txt").lines() {
        let manifest = parts.iter().fold(line.to_string(), |text, (name, part)| text.replace(name, part));
        accepted(meta::parse(manifest.as_bytes()).expect(line));
    }
}
