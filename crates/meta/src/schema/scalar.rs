//! The leaves of the type graph: Go's basic types and the types that read and write their own JSON.

/// A type without parts. `go_type` is what decoding errors call it when it has no name of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scalar {
    Bool,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float64,
    String,
    /// `[]byte`: base64 in JSON.
    Bytes,
    /// RFC 3339 in whole seconds, UTC.
    Time,
    /// RFC 3339 with six decimals, UTC.
    MicroTime,
    /// Go's `1h2m3s`.
    Duration,
    Quantity,
    IntOrString,
    /// Any object, kept as it is (`runtime.RawExtension`).
    Raw,
    /// Any JSON value (`apiextensions/v1.JSON`).
    Json,
    /// The set of fields of a managedFields entry.
    FieldsV1,
    /// `JSONSchemaPropsOrBool`, `-OrArray`, `-OrStringArray`: a schema, or the other thing.
    SchemaOrBool,
    SchemaOrArray,
    SchemaOrStrings,
}

const NAMES: &[(&str, Scalar)] = &[
    ("bool", Scalar::Bool),
    ("int32", Scalar::Int32),
    ("int64", Scalar::Int64),
    ("uint8", Scalar::UInt8),
    ("uint16", Scalar::UInt16),
    ("uint32", Scalar::UInt32),
    ("uint64", Scalar::UInt64),
    ("float64", Scalar::Float64),
    ("string", Scalar::String),
    ("bytes", Scalar::Bytes),
    ("time", Scalar::Time),
    ("microtime", Scalar::MicroTime),
    ("duration", Scalar::Duration),
    ("quantity", Scalar::Quantity),
    ("intorstring", Scalar::IntOrString),
    ("raw", Scalar::Raw),
    ("json", Scalar::Json),
    ("fieldsv1", Scalar::FieldsV1),
    ("schemaorbool", Scalar::SchemaOrBool),
    ("schemaorarray", Scalar::SchemaOrArray),
    ("schemaorstrings", Scalar::SchemaOrStrings),
];

impl Scalar {
    /// The word of the text form.
    pub fn from_word(word: &str) -> Option<Scalar> {
        NAMES.iter().find(|(name, _)| *name == word).map(|(_, s)| *s)
    }

    pub fn word(self) -> &'static str {
        NAMES.iter().find(|(_, s)| *s == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn go_type(self) -> &'static str {
        match self {
            Scalar::Bytes => "[]uint8",
            _ => self.word(),
        }
    }

    /// Written as a JSON string by Go whenever it is set.
    pub fn is_text(self) -> bool {
        use Scalar::*;
        matches!(self, String | Bytes | Time | MicroTime | Duration | Quantity)
    }
}
