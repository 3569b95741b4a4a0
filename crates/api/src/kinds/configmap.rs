//! ConfigMap.

use meta::Value;
use meta::field::{Error, Errors, Path};

use super::columns::{AGE, Column, NAME, age, name};
use super::{Kind, MAX_DATA_BYTES, validate_key};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Data", "How many keys it holds."), AGE],
    row: |c, now| vec![name(c), (len(&c["data"]) + len(&c["binaryData"])).into(), age(c, now)],
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if old.bool_at(&["immutable"]) == Some(true) {
            let detail = "field is immutable when `immutable` is set";
            for member in ["immutable", "data", "binaryData"] {
                if new[member] != old[member] {
                    errors.push(Error::forbidden(&Path::new(member), detail));
                }
            }
        }
        errors.extend(validate(new));
        errors
    },
    ..Kind::PLAIN
};

fn len(map: &Value) -> usize {
    map.as_object().map_or(0, |m| m.len())
}

fn validate(c: &Value) -> Errors {
    let mut errors = Errors::new();
    let mut bytes = 0;
    for member in ["data", "binaryData"] {
        let Some(map) = c[member].as_object() else { continue };
        for (key, value) in map.iter() {
            let at = Path::new(member).key(key);
            validate_key(key, &at, &mut errors);
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
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn faults_as_upstream() {
        let text = |errors: Errors| errors.iter().map(|e| e.to_string().chars().take(60).collect()).collect::<Vec<String>>();
        let c = json!({"data": {"a b": "x", "both": "1"}, "binaryData": {"both": "MQ=="}});
        assert_eq!(
            text(validate(&c)),
            [
                "data[a b]: Invalid value: \"a b\": a valid config key must con",
                "data[both]: Invalid value: \"both\": duplicate of key present ",
            ]
        );
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"immutable": true, "data": {"a": "2"}});
        assert_eq!(text((KIND.validate_update)(&new, &old)), ["data: Forbidden: field is immutable when `immutable` is set"]);
    }
}
