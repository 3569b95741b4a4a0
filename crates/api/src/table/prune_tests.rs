//! Pruning documents of real kinds: what Go's decoder would say, and what it would write back.

use crate::schema;

#[test]
fn as_go_does() {
    golden::check!("prune_tests.txt", |case| {
        let (kind, document) = case.split_once(' ').expect("a kind and a document");
        let ty = schema().find(&format!("io.k8s.api.{kind}")).expect("a kind");
        let mut value = meta::parse(document.as_bytes()).expect("JSON");
        match ty.prune(&mut value) {
            Err(error) => format!("error: {error}"),
            Ok(notes) => {
                let mut again = value.clone();
                assert_eq!(ty.prune(&mut again), Ok(vec![]), "the second time nothing is noted");
                assert_eq!(again, value, "the second time nothing changes");
                [vec![value.to_string()], notes].concat().join("\n")
            }
        }
    });
}

#[test]
fn crd_schemas_are_read_to_any_depth() {
    let ty = schema()
        .find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
        .expect("JSONSchemaProps");
    let mut value = meta::json!({
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"typ": "string"}, "default": [1, {"x": null}]}},
        "additionalProperties": false,
    });
    let notes = ty.prune(&mut value).expect("fits");
    assert_eq!(notes, [r#"unknown field "properties.a.items.typ""#]);
    assert_eq!(value.at(&["properties", "a", "default"]), Some(&meta::json!([1, {"x": null}])));
}
