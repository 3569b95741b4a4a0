//! The graph itself: reading the text form, flattening, structural schemas.

use super::*;
use crate::json;
use expect_test::expect;

const TEXT: &str = include_str!("../tests/small_schema.txt");

fn schema() -> Schema {
    Schema::parse(TEXT).expect("reads")
}

#[test]
fn reads_the_text_form() {
    let schema = schema();
    let volume = schema.find("io.k8s.api.core.v1.Volume").expect("there");
    let names: Vec<&str> = volume.fields().map(|f| f.name()).collect();
    assert_eq!(names, ["at", "emptyDir", "items", "name", "ref"], "flattened and sorted");
    let items = volume.field("items").expect("there");
    assert_eq!((items.number(), items.merge_key()), (3, Some("name")));
    assert!(items.merges() && items.retains_keys() && !items.replaces());
    assert_eq!(items.ty().list_keys().collect::<Vec<_>>(), ["name", "phase"]);
    assert_eq!(items.ty().go_type(), "[]v1.Item");
    let item = items.ty().element().expect("a list");
    assert_eq!(item.field("phase").and_then(|f| f.default()), Some("On hold".into()));
    assert_eq!(item.field("name").and_then(|f| f.default()), Some("".into()));
    assert_eq!(item.field("name").and_then(|f| f.declared_default()), None);
    assert_eq!(item.field("tags").map(|f| f.ty().kind()), Some(Kind::List(ListKind::Set)));
    assert_eq!(volume.field("at").map(|f| f.ty().go_type()), Some("v1.Time".into()));
    let reference = volume.field("ref").expect("there");
    assert!(reference.ty().is_atomic() && !reference.is_atomic());
    assert_eq!(schema.named().count(), 8);
    assert!(schema.find("io.k8s.api.core.v1.Nothing").is_none());
}

#[test]
fn refuses_what_it_cannot_read() {
    for (text, expected) in [
        ("package p p\nstruct A\n a 1 o Nothing\n", "schema line 3: unknown type \"Nothing\""),
        ("package p p\nstruct A\n a 1 q string\n", "schema line 3: unknown flag 'q'"),
        ("package p p\nstruct A\n a x o string\n", "schema line 3: bad number \"x\""),
        ("package p p\nstruct A\n a 1\n", "schema line 3: a field needs NAME NUMBER FLAGS TYPE"),
        ("package p p\ntype A string\ntype A string\n", "schema line 3: type A is there twice"),
        ("enum A\n", "schema line 1: unknown line \"enum\""),
    ] {
        let error = Schema::parse(text).expect_err(text).to_string();
        assert_eq!(error, format!("{expected}; regenerate the data with tools/schema-gen"));
    }
}

#[test]
fn structural_schemas_prune() {
    let built_in = schema();
    let meta = built_in.find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").expect("there");
    let root = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer"},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                      "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
        }},
    }});
    let (schema, id) = Schema::structural(&root, meta).expect("structural");
    let ty = schema.get(id);
    let mut value = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "extra": 1,
        "spec": {"size": 3, "sise": 4, "port": "http", "free": {"b": 1, "strict": {"a": "x", "b": 1}},
                 "parts": [{"name": "p", "nam": 1}], "labels": {"a": "b"}, "any": [{"b": {}}],
                 "template": {"kind": "B", "metadata": {"name": "y"}, "more": 1}},
    });
    let notes = ty.prune_structural(&mut value);
    expect![[r#"
        unknown field "extra"
        unknown field "spec.free.strict.b"
        unknown field "spec.parts[0].nam"
        unknown field "spec.sise"
        unknown field "spec.template.more""#]]
    .assert_eq(&notes.join("\n"));
    expect![[r#"{"apiVersion":"a/v1","kind":"A","metadata":{"name":"x"},"spec":{"any":[{"b":{}}],"free":{"b":1,"strict":{"a":"x"}},"labels":{"a":"b"},"parts":[{"name":"p"}],"port":"http","size":3,"template":{"kind":"B","metadata":{"name":"y"}}}}"#]]
        .assert_eq(&value.to_string());
    let parts = ty.child("spec").and_then(|s| s.child("parts")).expect("there");
    assert_eq!(parts.list_keys().collect::<Vec<_>>(), ["name"]);
    assert!(ty.child("spec").and_then(|s| s.field("size")).is_some_and(|f| f.is_required()));
    let bad = json!({"type": "object", "properties": {"a": {"type": "array"}}});
    let error = Schema::structural(&bad, meta).expect_err("items are missing").to_string();
    assert_eq!(error, "schema: a.items: must be specified");
}

#[test]
fn statuses_of_decode_errors() {
    let strict = DecodeError::strict(&["unknown field \"a\"".into(), "duplicate field \"b\"".into()]);
    let status = strict.status("v1", "Pod");
    assert_eq!(status.code, 400);
    assert_eq!(
        status.message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"a\", duplicate field \"b\""
    );
}
