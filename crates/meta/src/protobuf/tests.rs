//! The codec on a schema of its own; all of upstream's kinds are held in the `api` crate's tests.

use super::*;
use crate::json;
use crate::schema::Schema;

const TEXT: &str = include_str!("../tests/protobuf_schema.txt");

fn schema() -> &'static Schema {
    static SCHEMA: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(|| Schema::parse(TEXT).expect("reads"));
    &SCHEMA
}

fn find(api_version: &str, kind: &str) -> Option<TypeRef<'static>> {
    if api_version == "g/v1" { schema().find(&format!("p.{kind}")) } else { None }
}

fn body(document: &Value) -> Vec<u8> {
    let message = encode(find("g/v1", "Thing").expect("there"), document);
    let (open, close) = unknown("g/v1", "Thing", message.len());
    [&open, &message[..], close].concat()
}

fn full() -> Value {
    json!({"apiVersion": "g/v1", "kind": "Thing", "level": 0, "count": -5, "numbers": [1, -1], "port": "http",
        "metadata": {"name": "n", "labels": {"b": "", "a": "1"}, "at": "1969-12-31T23:59:59Z"},
        "data": {"empty": "", "some": "AAE="}, "wait": "1m0.5s", "share": 0.25,
        "extra": {"apiVersion": "g/v1", "x": [null]}, "words": {"w": ["x", "y"]},
        "inner": {"count": 1, "extra": null, "metadata": {"at": null}, "port": 80},
        "props": {"type": "object", "items": [{"type": "a"}, {}], "additional": true,
            "depends": {"a": ["b", "c"], "d": {"items": {"additional": {"type": "x"}}, "additional": false}}}})
}

#[test]
fn a_message_is_written_as_go_writes_it() {
    let small = json!({"metadata": {"name": "n", "labels": {"k": "v"}}, "level": 0, "count": -1});
    let expected: &[u8] = &[
        // the envelope
        b'k', b'8', b's', 0, 0x0a, 13, 0x0a, 4, b'g', b'/', b'v', b'1', 0x12, 5, b'T', b'h', b'i', b'n', b'g', 0x12, 49,
        // metadata: a name, an unset time, a label
        0x0a, 13, 0x0a, 1, b'n', 0x42, 0, 0x5a, 6, 0x0a, 1, b'k', 0x12, 1, b'v', // the pointer that is set
        0x10, 0, // the inline struct: raw bytes that are not there, -1, IntOrString, a zero
        0x4a, 30, 0x0a, 0, 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0x2a, 6, 0x08, 0, 0x10, 0, 0x1a, 0,
        0x41, 0, 0, 0, 0, 0, 0, 0, 0, //
        0x1a, 0, 0x22, 0,
    ];
    assert_eq!(body(&small), expected);
}

#[test]
fn what_is_written_is_read() {
    let mut want = full();
    assert_eq!(find("g/v1", "Thing").expect("there").prune(&mut want), Ok(Vec::new()));
    let body = body(&want);
    assert_eq!(normal(&body, &find), Ok(want));
    let message = encode(find("g/v1", "Thing").expect("there"), &json!({"metadata": {"name": "n"}, "level": 3}));
    assert_eq!(part(&message, 1), Some(0..7));
    assert_eq!(part(&message, 2), None, "no message");
}

#[test]
fn any_bytes_are_survived() {
    let body = body(&full());
    for cut in 0..body.len() {
        let _ = normal(&body[..cut], &find);
        for change in [0x85, 0x01, 0x7f, 0xff] {
            let mut changed = body.clone();
            changed[cut] ^= change;
            let _ = normal(&changed, &find);
        }
    }
    assert_eq!(decode(b"{}", &find), Err(Error::NoEnvelope));
    let (open, close) = unknown("g/v2", "Thing", 0);
    let error = decode(&[&open[..], close].concat(), &find).expect_err("no such version");
    assert_eq!(error.to_string(), "no kind \"Thing\" is registered for version \"g/v2\"");
}

#[test]
fn nesting_ends() {
    // Messages in messages, and envelopes in raw extensions.
    let mut nested = Vec::new();
    let mut enveloped = Vec::new();
    for _ in 0..2000 {
        let inline = [list_part(7, nested.len()), nested].concat();
        nested = [list_part(9, inline.len()), inline].concat();
        let raw = [list_part(1, enveloped.len()), enveloped].concat();
        let extra = [list_part(1, raw.len()), raw].concat();
        let spec = [list_part(9, extra.len()), extra].concat();
        let (open, close) = unknown("g/v1", "Thing", spec.len());
        enveloped = [&open, &spec[..], close].concat();
    }
    let (open, close) = unknown("g/v1", "Thing", nested.len());
    let too_deep = Err(Error::Malformed("exceeded max depth of 100".into()));
    assert_eq!(decode(&[&open, &nested[..], close].concat(), &find), too_deep);
    assert_eq!(decode(&enveloped, &find), too_deep);
}

#[test]
fn many_entries_in_the_worst_order_are_soon_read() {
    let entries: u32 = 200_000;
    let mut labels = Vec::new();
    for i in (0..entries).rev() {
        let key = format!("{i:06}");
        labels.extend([0x5a, 8, 0x0a, 6]);
        labels.extend(key.as_bytes());
    }
    let message = [list_part(1, labels.len()), labels].concat();
    let (open, close) = unknown("g/v1", "Thing", message.len());
    let value = decode(&[&open, &message[..], close].concat(), &find).expect("read");
    assert_eq!(value["metadata"]["labels"].as_object().map(Map::len), Some(entries as usize));
}

#[test]
fn frames() {
    let written = frame("ADDED", "v1", "K", b"m");
    assert_eq!(written, b"\0\0\0\x1f\x0a\x05ADDED\x12\x16\x0a\x14k8s\0\x0a\x07\x0a\x02v1\x12\x01K\x12\x01m\x1a\0\"\0");
}
