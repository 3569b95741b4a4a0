//! CEL: any text is a program or a list of faults, and any program ends within its budget.

#![no_main]

use std::sync::LazyLock;

use cel::{Bindings, Budget, Decl, Env, Expect, Type};
use libfuzzer_sys::fuzz_target;
use meta::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    json!({"s": "some text", "n": 7, "f": 1.5, "b": true, "list": [3, 1, 2], "map": {"a": "x", "b": "y"},
        "items": [{"k": "1", "v": "one"}, {"k": "2", "v": "two"}], "when": "2026-01-01T00:00:00Z", "q": 5})
});

static DECL: LazyLock<Decl> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {
        "s": text.clone(), "n": {"type": "integer"}, "f": {"type": "number"}, "b": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": text.clone()},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": text.clone(), "v": text}}},
        "when": {"type": "string", "format": "date-time"}, "q": {"x-kubernetes-int-or-string": true}}});
    Decl::from_structural(&schema, "self", false).expect("a type")
});

static ENV: LazyLock<Env> =
    LazyLock::new(|| Env::new().variable("self", DECL.clone()).variable("object", Type::Dyn).mutation(&DECL));

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ENV.compile(text, Expect::Any) {
        Ok(program) => {
            program.estimate();
            let bindings = Bindings::new().document("self", &DOCUMENT).document("object", &DOCUMENT);
            _ = program.run(&bindings, &mut Budget::new(1_000_000)).map_err(|error| error.to_string());
        }
        Err(faults) => _ = faults.to_string(),
    }
});
