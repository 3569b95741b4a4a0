//! JSON and protobuf: any bytes are a document or an error, and what was read is written so that it is read the same.
//!
//! Input: a body; or a JSON document, a zero byte, and pairs of a place and a byte that are put into its protobuf.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meta::schema::TypeRef;
use meta::{Value, protobuf};

fn find(api_version: &str, kind: &str) -> Option<TypeRef<'static>> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    api::resource::root_type(group, version, kind)
}

/// A normal document: through protobuf and JSON it stays what it is. Then once more, with some bytes changed.
fn holds(document: &Value, edits: &[u8]) {
    let [api_version, kind] = ["apiVersion", "kind"].map(|key| document.str_at(&[key]).unwrap_or_default());
    let Some(ty) = find(api_version, kind) else { return };
    let message = protobuf::encode(ty, document);
    let (open, close) = protobuf::unknown(api_version, kind, message.len());
    let mut body = [&open[..], &message, close].concat();
    let again = protobuf::normal(&body, &find).expect("what was encoded is decoded");
    assert_eq!(again.to_string(), document.to_string());
    assert_eq!(protobuf::encode(ty, &again), message);
    for edit in edits.chunks_exact(2) {
        let at = usize::from(edit[0]) * body.len() / 256;
        body[at] = edit[1];
    }
    if !edits.is_empty()
        && let Ok(document) = protobuf::normal(&body, &find)
    {
        holds(&document, &[]);
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(document) = protobuf::normal(data, &find) {
        holds(&document, &[]);
    }
    let split = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (data, edits) = data.split_at(split);
    let Ok((mut document, _)) = meta::parse_noting_duplicates(data) else { return };
    // As text, in which 1.0 is 1.
    let written = document.to_vec();
    assert_eq!(meta::parse(&written).expect("what was written is read").to_vec(), written);
    let [api_version, kind] = ["apiVersion", "kind"].map(|key| document.remove(&[key]).unwrap_or_default());
    let (Some(version), Some(name)) = (api_version.as_str(), kind.as_str()) else { return };
    if let Some(ty) = find(version, name)
        && ty.prune(&mut document).is_ok()
    {
        document.set(&["apiVersion"], api_version.clone());
        document.set(&["kind"], kind.clone());
        holds(&document, edits.get(1..).unwrap_or_default());
    }
});
