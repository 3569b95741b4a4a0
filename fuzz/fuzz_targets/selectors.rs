//! Label selectors as text and as objects, field selectors, and what else is a small language: JSON paths, quantities.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meta::field::Path;
use meta::quantity::Quantity;
use meta::selector::{FieldSelector, LabelSelector};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let labels = meta::json!({"a": "b", "example.com/c": "", "number": "5"});
    let labels = labels.as_object().expect("an object");
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(labels);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        selector.matches_with(|_| "a");
        selector.exact("metadata.name");
    }
    if let Ok(path) = structural::JsonPath::parse(text) {
        path.find(&meta::json!({"a": [{"b": 1}, {"b": "c"}], "d": {"e": null}}));
    }
    if let Ok(quantity) = text.parse::<Quantity>() {
        let shown = quantity.to_string();
        let again: Quantity = shown.parse().expect("what was shown is read");
        assert_eq!(again.to_string(), shown);
    }
    if let Ok(object) = meta::parse(data)
        && LabelSelector::validate(&object, &Path::new("spec")).is_empty()
        && let Ok(selector) = LabelSelector::from_object(&object)
    {
        selector.matches(labels);
    }
});
