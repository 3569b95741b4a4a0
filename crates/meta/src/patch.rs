//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//!
//! Each changes a document in place from a patch document. Reads the schema for strategic merge only. Invariant: after
//! an error the document may be half changed; callers work on a copy.

mod json;
mod strategic;

pub use json::json_patch;
pub use strategic::strategic_merge;

use crate::status::{Reason, Status};
use crate::{Map, Value};

/// Upstream's bound on the operations of one JSON patch.
pub const MAX_JSON_OPERATIONS: usize = 10_000;

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense, whatever the object.
    #[error("{0}")]
    Malformed(String),
    /// As malformed, but the server's fault by upstream's code.
    #[error("{0}")]
    Broken(String),
    /// The patch does not fit the object.
    #[error("{0}")]
    DoesNotFit(String),
    /// More operations than allowed.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_OPERATIONS}, got {0}")]
    TooMany(usize),
}

impl PatchError {
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::Malformed(message) => Status::bad_request(message.clone()),
            // Compat: upstream has no reason for these.
            PatchError::Broken(message) => Status::new(500, Reason::Unknown, message.clone()),
            // Compat: upstream answers a patch that does not fit with this text alone, and kubectl users know it.
            PatchError::DoesNotFit(_) => {
                Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
            }
            PatchError::TooMany(_) => Status::too_large(self.to_string()),
        }
    }
}

/// A value as Go's `%v` prints it.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// The type that Go reads a value into, where it is told none.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Null => "<nil>",
        Value::String(_) => "string",
    }
}

/// Applies a merge patch: members replace members, null removes, everything else replaces.
pub fn merge_patch(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(members) => {
            merge_members(document.make_object(), members);
            Ok(())
        }
        other => Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
    }
}

fn merge_members(target: &mut Map, patch: &Map) {
    for (key, value) in patch.iter() {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(members) => {
                merge_members(target.get_or_insert_with(key, Value::object).make_object(), members);
            }
            other => {
                target.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    /// The examples of RFC 7386, appendix A, whose patch is an object.
    #[test]
    fn merge_examples_of_the_rfc() {
        golden::check!("tests/merge_patch.txt", |case| {
            let (target, patch) = case.split_once(" < ").expect("a target and a patch");
            let [mut target, patch] = [target, patch].map(|text| crate::parse(text.as_bytes()).expect("JSON"));
            merge_patch(&mut target, &patch).expect("an object");
            target.to_string()
        });
        let refused = merge_patch(&mut json!({}), &json!(["a"]));
        assert_eq!(refused.expect_err("a list").to_status().code, 400);
    }
}
