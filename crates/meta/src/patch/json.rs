//! JSON patch, RFC 6902: a list of operations on JSON pointers.

use super::{MAX_JSON_OPERATIONS, PatchError};
use crate::Value;

/// Applies the operations in their order. The first that fails ends the patch.
pub fn json_patch(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
            patch.type_name()
        )));
    };
    if operations.len() > MAX_JSON_OPERATIONS {
        return Err(PatchError::TooMany(operations.len()));
    }
    for operation in operations {
        if !matches!(operation, Value::Object(_) | Value::Null) {
            return Err(PatchError::Malformed(format!(
                "error decoding patch: json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
                operation.type_name()
            )));
        }
        for member in ["op", "path", "from"] {
            if let Some(wrong) = operation.get(member).filter(|v| !matches!(v, Value::String(_) | Value::Null)) {
                return Err(PatchError::Malformed(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{member} of type \
                     string",
                    wrong.type_name()
                )));
            }
        }
    }
    operations.iter().try_for_each(|operation| apply(document, operation))
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let kind = operation.str_at(&["op"]).unwrap_or("unknown");
    let path = pointer(operation, "path", kind)?;
    let value = || operation.get("value").cloned().unwrap_or_default();
    match kind {
        "add" => add(document, &path, value()),
        "remove" => remove(document, &path).map(|_| ()),
        "replace" => {
            let absent = || missing("replace", &path, "doc is missing key");
            // Compat: upstream's library lets an absent member be replaced.
            match path.split_last().and_then(|(last, above)| Some((last, find_mut(document, above)?))) {
                Some((last, Value::Object(members))) => drop(members.insert(last.as_str(), value())),
                _ => *find_mut(document, &path).ok_or_else(absent)? = value(),
            }
            Ok(())
        }
        "move" => {
            let from = pointer(operation, "from", kind)?;
            let moved = remove(document, &from)?;
            add(document, &path, moved)
        }
        "copy" => {
            let from = pointer(operation, "from", kind)?;
            // Compat: upstream's library copies an absent member of an object as null, and the whole document never.
            let copied = match (find(document, &from), from.split_last()) {
                (Some(found), Some(_)) => found.clone(),
                (None, Some((_, above))) if matches!(find(document, above), Some(Value::Object(_))) => Value::Null,
                _ => return Err(missing("copy", &from, "doc is missing from path")),
            };
            add(document, &path, copied)
        }
        "test" => {
            let found = find(document, &path);
            // Compat: an absent member equals null, of an object that is there.
            let above = path.split_last().is_none_or(|(_, above)| find(document, above).is_some());
            if above && found.unwrap_or(&Value::Null) == operation.get("value").unwrap_or(&Value::Null) {
                Ok(())
            } else {
                Err(PatchError::DoesNotFit(format!("testing value {} failed: test failed", show(&path))))
            }
        }
        other => Err(PatchError::DoesNotFit(format!("Unexpected kind: {other}"))),
    }
}

fn missing(operation: &str, path: &[String], why: &str) -> PatchError {
    PatchError::DoesNotFit(format!("{operation} operation does not apply: {why}: {}: missing value", show(path)))
}

fn show(path: &[String]) -> String {
    path.iter().map(|step| format!("/{step}")).collect()
}

fn pointer(operation: &Value, member: &str, kind: &str) -> Result<Vec<String>, PatchError> {
    let text = operation
        .str_at(&[member])
        .ok_or_else(|| PatchError::DoesNotFit(format!("{kind} operation has no {member}: missing value")))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(PatchError::DoesNotFit(format!(
            "{kind} operation does not apply: {member} is not a pointer: {text}"
        )));
    };
    Ok(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, step| match value {
        Value::Object(members) => members.get(step),
        Value::Array(items) => items.get(index(step, items.len())?),
        _ => None,
    })
}

fn find_mut<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, step| match value {
        Value::Object(members) => members.get_mut(step),
        Value::Array(items) => {
            let at = index(step, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

/// Compat: upstream's library lets negative indices count from the end.
fn index(step: &str, len: usize) -> Option<usize> {
    let at: i64 = step.parse().ok()?;
    usize::try_from(if at < 0 { at + len as i64 } else { at }).ok()
}

fn add(document: &mut Value, path: &[String], value: Value) -> Result<(), PatchError> {
    // Compat: upstream's library adds nothing in the place of the whole document.
    let Some((last, parents)) = path.split_last() else { return Err(missing("add", path, "doc is missing path")) };
    match find_mut(document, parents) {
        Some(Value::Object(members)) => {
            members.insert(last.as_str(), value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let at = if last == "-" { Some(items.len()) } else { index(last, items.len() + 1) };
            match at.filter(|at| *at <= items.len()) {
                Some(at) => {
                    items.insert(at, value);
                    Ok(())
                }
                None => Err(PatchError::DoesNotFit(format!(
                    "add operation does not apply: doc is missing path: \"{}\": invalid index referenced",
                    show(path)
                ))),
            }
        }
        _ => Err(missing("add", path, "doc is missing path")),
    }
}

fn remove(document: &mut Value, path: &[String]) -> Result<Value, PatchError> {
    let absent = || missing("remove", path, "unable to remove nonexistent key");
    let (last, parents) = path.split_last().ok_or_else(absent)?;
    match find_mut(document, parents) {
        Some(Value::Object(members)) => members.remove(last).ok_or_else(absent),
        Some(Value::Array(items)) => match index(last, items.len()).filter(|at| *at < items.len()) {
            Some(at) => Ok(items.remove(at)),
            None => Err(absent()),
        },
        _ => Err(absent()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn operations() {
        golden::check!("../tests/json_patch.txt", |case| {
            let (document, patch) = case.split_once(" + ").expect("a document and a patch");
            let read = |text: &str| crate::parse(text.as_bytes()).expect("JSON");
            let mut got = read(document);
            match json_patch(&mut got, &read(patch)) {
                Ok(()) => got.to_string(),
                Err(PatchError::DoesNotFit(_)) => "refused".into(),
                Err(other) => panic!("{case}: {other}"),
            }
        });
    }

    #[test]
    fn malformed() {
        for patch in [json!({}), json!("x"), json!([1])] {
            let error = json_patch(&mut json!({}), &patch).expect_err("malformed");
            assert_eq!(error.to_status().code, 400, "{patch}");
        }
    }
}
