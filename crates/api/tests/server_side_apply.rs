//! Server-side apply against upstream's own answers.
//!
//! `data/server_side_apply.json` holds sequences of writes with what upstream's field manager (apimachinery v0.37) made
//! of each: the object, the owners of its fields, or the error.

use meta::apply::{Writer, apply, track_update};
use meta::{Value, time};

/// Without what Go writes for unset fields: those don't matter here.
fn without_zeros(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept =
                members.iter().map(|(k, v)| (k.into(), without_zeros(v))).filter(|(_, v): &(_, Value)| !v.is_empty());
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_zeros).collect()),
        other => other.clone(),
    }
}

fn owners(object: &Value) -> Vec<String> {
    let entry = |e: &Value| format!("{} {} {}", e["manager"], e["operation"], e["fieldsV1"]);
    let mut all: Vec<String> = object.array_at(&["metadata", "managedFields"]).iter().map(entry).collect();
    all.sort();
    all
}

#[test]
fn as_upstream() {
    let cases = meta::parse(include_bytes!("data/server_side_apply.json")).expect("test data is JSON");
    let mut failures = Vec::new();
    for case in cases.as_array().expect("a list") {
        let mut live = Value::Null;
        for (i, step) in case.array_at(&["steps"]).iter().enumerate() {
            let name = format!("{} step {i}", case["name"]);
            let object = &step["obj"];
            let kind = object.str_at(&["kind"]).expect("a kind");
            let api_version = object.str_at(&["apiVersion"]).expect("a version");
            let package = if api_version == "v1" { "core.v1".to_string() } else { api_version.replace('/', ".") };
            let ty = api::schema().find(&format!("io.k8s.api.{package}.{kind}")).expect("a known type");
            let manager = step.str_at(&["manager"]).expect("a manager");
            let now = time::parse("2026-01-01T00:00:00Z").expect("a time");
            let writer = Writer { manager, api_version, subresource: "", now, other: None };
            let result = if step.str_at(&["op"]) == Some("apply") {
                apply(ty, &live, object, &writer, step["force"] == Value::Bool(true)).map_err(|e| e.to_string())
            } else {
                let mut new = object.clone();
                if let Some(old) = live.at(&["metadata", "managedFields"]) {
                    new.set(&["metadata", "managedFields"], old);
                }
                track_update(ty, &live, &mut new, &writer);
                Ok(new)
            };
            match (result, step.str_at(&["error"])) {
                (Err(got), Some(want)) if got == want => {}
                (Ok(got), None) => {
                    let want_entry = |e: &Value| format!("{} {} {}", e["manager"], e["operation"], e["fields"]);
                    let mut want: Vec<String> = step.array_at(&["managed"]).iter().map(want_entry).collect();
                    want.sort();
                    if owners(&got) != want {
                        failures.push(format!(
                            "{name}\n  got  {}\n  want {}",
                            owners(&got).join("\n       "),
                            want.join("\n       ")
                        ));
                    }
                    // As the server stores it: what Go writes for unset fields stands there.
                    let mut bare = got.clone();
                    bare.remove(&["metadata", "managedFields"]);
                    let (bare, want) = (without_zeros(&bare), without_zeros(&step["live"]));
                    if bare != want {
                        failures.push(format!("{name}\n  got  {bare}\n  want {want}"));
                    }
                    live = step["live"].clone();
                    if let Some(owners) = got.at(&["metadata", "managedFields"]) {
                        live.set(&["metadata", "managedFields"], owners);
                    }
                }
                (got, want) => {
                    failures.push(format!("{name}\n  got  {:?}\n  want {want:?}", got.map(|v| v.to_string())))
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
