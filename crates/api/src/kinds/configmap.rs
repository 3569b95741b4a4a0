//! ConfigMap.

use super::prelude::*;
use super::{MAX_DATA_BYTES, validate_frozen, validate_key};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Data", ".data").by(keys), AGE],
    validate,
    validate_update: |new, old| validate_frozen(new, old, &["immutable", "data", "binaryData"]),
    fixed_first: true,
    ..Kind::PLAIN
};

fn keys(c: &Value) -> Cell {
    ["data", "binaryData"].iter().filter_map(|m| c[*m].as_object()).map(|m| m.len()).sum::<usize>().into()
}

fn validate(c: &Value, errors: &mut Errors) {
    let mut bytes = 0;
    for member in ["data", "binaryData"] {
        let Some(map) = c[member].as_object() else { continue };
        for (key, value) in map.iter() {
            let at = Path::new(member).key(key);
            validate_key(key, &at, errors);
            if member == "data" && c["binaryData"].get(key).is_some() {
                let detail = "duplicate of key present in binaryData";
                errors.push(Error::invalid(&at, key, detail));
            }
            let length = value.as_str().map_or(0, str::len);
            // Base64 holds three bytes in four.
            bytes += if member == "data" { length } else { length / 4 * 3 };
        }
    }
    if bytes > MAX_DATA_BYTES {
        // Compat: upstream's path for the whole object is printed like this.
        errors.push(Error::too_long(&Path::default().key(""), MAX_DATA_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_as_upstream() {
        let text =
            |errors: Errors| errors.iter().map(|e| e.to_string().chars().take(60).collect()).collect::<Vec<String>>();
        let c = json!({"data": {"a b": "x", "both": "1"}, "binaryData": {"both": "MQ=="}});
        assert_eq!(
            text(super::super::check_create(&KIND, &c, true)[2..].to_vec()),
            [
                "data[a b]: Invalid value: \"a b\": a valid config key must con",
                "data[both]: Invalid value: \"both\": duplicate of key present ",
            ]
        );
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"immutable": true, "data": {"a": "2"}});
        assert_eq!(
            text((KIND.validate_update)(&new, &old)),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
    }
}
