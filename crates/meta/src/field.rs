//! Field errors: what is wrong with which field of an object, in upstream's words.
//!
//! Source of the wording: the messages clients see from an API server (`metadata.name: Required value: ...`).

use std::fmt;

use crate::Value;

/// The place of a field: `spec.containers[0].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Path(name.to_string())
    }

    /// This path with the parts behind it. Validation makes a hundred paths for every error that it finds, so they are
    /// put together without formatting.
    fn with(&self, parts: [&str; 3]) -> Self {
        let mut path = String::with_capacity(self.0.len() + parts.iter().map(|p| p.len()).sum::<usize>());
        path.push_str(&self.0);
        parts.iter().for_each(|part| path.push_str(part));
        Path(path)
    }

    /// A member; a dotted name adds several.
    pub fn child(&self, name: &str) -> Self {
        self.with([if self.0.is_empty() { "" } else { "." }, name, ""])
    }

    pub fn index(&self, index: usize) -> Self {
        const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        match DIGITS.get(index) {
            Some(digit) => self.with(["[", digit, "]"]),
            None => self.with(["[", &index.to_string(), "]"]),
        }
    }

    /// The entry of a map whose keys are data: labels, annotations, resources.
    pub fn key(&self, key: &str) -> Self {
        self.with(["[", key, "]"])
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn word(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        }
    }
}

/// One error at one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    pub kind: ErrorType,
    pub field: String,
    /// What follows the field in the message.
    body: String,
}

/// The errors of one object. Empty means valid.
pub type Errors = Vec<Error>;

impl Error {
    fn build(kind: ErrorType, path: &Path, value: Option<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut body = kind.word().to_string();
        if let Some(value) = value {
            body.push_str(": ");
            body.push_str(&value);
        }
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(&detail);
        }
        Error { kind, field: path.to_string(), body }
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Required, path, None, detail)
    }

    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Invalid, path, Some(shown(&value.into())), detail)
    }

    /// As `invalid`, for a value that is shown without quotes.
    pub fn invalid_raw(path: &Path, value: &str, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Invalid, path, Some(value.to_string()), detail)
    }

    /// As `invalid`, for a value that is not worth showing.
    pub fn invalid_as_a_whole(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Invalid, path, None, detail)
    }

    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::TypeInvalid, path, Some(shown(&value.into())), detail)
    }

    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::build(ErrorType::Duplicate, path, Some(shown(&value.into())), "")
    }

    /// As `duplicate`, for a value that is shown without quotes.
    pub fn duplicate_raw(path: &Path, value: &str) -> Self {
        Self::build(ErrorType::Duplicate, path, Some(value.to_string()), "")
    }

    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::build(ErrorType::NotFound, path, Some(shown(&value.into())), "")
    }

    /// `supported` is listed as it is given, each quoted.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let detail = if supported.is_empty() { String::new() } else { format!("supported values: {list}") };
        Self::build(ErrorType::NotSupported, path, Some(shown(&value.into())), detail)
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Forbidden, path, None, detail)
    }

    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        Self::build(ErrorType::TooLong, path, None, format!("may not be more than {max_bytes} bytes"))
    }

    /// With a detail behind everything else.
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.body = format!("{}: {detail}", self.body);
        self
    }

    /// A length in another unit than bytes.
    pub fn with_unit(mut self, unit: &str) -> Self {
        self.body = self.body.replace("bytes", unit);
        self
    }

    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::build(ErrorType::TooMany, path, Some(actual.to_string()), format!("must have at most {max} {items}"))
    }

    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(ErrorType::Internal, path, None, detail)
    }

    /// The message of a cause: everything after the field.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// A value as a message shows it: JSON, which for strings is what Go's `%q` gives.
fn shown(value: &Value) -> String {
    value.to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// All errors in one line: one as it is, several in brackets.
pub fn summary(errors: &[Error]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(Error::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_upstream() {
        let containers = Path::new("spec").child("containers");
        for (error, text) in [
            (Error::required(&containers, ""), "spec.containers: Required value"),
            (
                Error::invalid(&containers.index(0).child("name"), "A", "must be lower case"),
                "spec.containers[0].name: Invalid value: \"A\": must be lower case",
            ),
            (
                Error::not_supported(&Path::new("spec.type"), "x", &["NodePort", "ClusterIP"]),
                "spec.type: Unsupported value: \"x\": supported values: \"NodePort\", \"ClusterIP\"",
            ),
            (Error::duplicate(&Path::new("a").key("b"), 3), "a[b]: Duplicate value: 3"),
            (Error::too_long(&Path::new("a"), 63), "a: Too long: may not be more than 63 bytes"),
            (Error::too_many(&Path::new("a"), 4, 2), "a: Too many: 4: must have at most 2 items"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
