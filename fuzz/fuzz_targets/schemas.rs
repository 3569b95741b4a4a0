//! Schemas of custom resources: a schema, a zero byte, an object. A schema that is found good is compiled, published, and
//! takes any object; defaults stay when they are given a second time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meta::Value;
use meta::field::{Errors, Path};
use meta::schema::Schema;

fuzz_target!(|data: &[u8]| {
    let split = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let Ok(schema) = meta::parse(&data[..split]) else { return };
    let object = data.get(split + 1..).and_then(|object| meta::parse(object).ok()).unwrap_or_default();
    if !matches!(schema, Value::Object(_)) || !structural::check::schema(&schema, &Path::new("schema")).is_empty() {
        return;
    }
    let meta = api::resource::root_type("", "v1", "Pod").and_then(|pod| pod.child("metadata")).expect("metadata");
    let (graph, root) = Schema::structural(&schema, meta).expect("a schema without faults is a graph");
    let node = structural::compile(&schema);
    for v2 in [false, true] {
        structural::publish::kind(&schema, ("example.com", "v1", "Thing"), v2);
    }
    let mut document = object;
    graph.get(root).prune_structural(&mut document);
    node.apply_defaults(&mut document);
    let once = document.clone();
    node.apply_defaults(&mut document);
    assert_eq!(document, once);
    if node.validate(&document, None).is_empty() {
        structural::validate_rules(&node, &document, Some(&once), &mut Errors::new());
    }
});
