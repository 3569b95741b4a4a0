//! The leaves of the type graph: Go's basic types and the types that read and write their own JSON.

macro_rules! scalars {
    ($($(#[$doc:meta])* $scalar:ident $word:literal,)*) => {
        /// A type without parts. `go_type` is what decoding errors call it when it has no name of its own.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Scalar {
            $($(#[$doc])* $scalar,)*
        }

        /// The words of the text form.
        const NAMES: &[(&str, Scalar)] = &[$(($word, Scalar::$scalar)),*];
    };
}

scalars! {
    Bool "bool",
    Int32 "int32",
    Int64 "int64",
    UInt8 "uint8",
    UInt16 "uint16",
    UInt32 "uint32",
    UInt64 "uint64",
    Float64 "float64",
    String "string",
    /// `[]byte`: base64 in JSON.
    Bytes "bytes",
    /// RFC 3339 in whole seconds, UTC.
    Time "time",
    /// RFC 3339 with six decimals, UTC.
    MicroTime "microtime",
    /// Go's `1h2m3s`.
    Duration "duration",
    Quantity "quantity",
    IntOrString "intorstring",
    /// Any object, kept as it is (`runtime.RawExtension`).
    Raw "raw",
    /// Any JSON value (`apiextensions/v1.JSON`).
    Json "json",
    /// The set of fields of a managedFields entry.
    FieldsV1 "fieldsv1",
    /// `JSONSchemaPropsOrBool`, `-OrArray`, `-OrStringArray`: a schema, or the other thing.
    SchemaOrBool "schemaorbool",
    SchemaOrArray "schemaorarray",
    SchemaOrStrings "schemaorstrings",
}

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

    /// One of Go's basic types (bytes among them); the others are structs with a name.
    pub fn is_basic(self) -> bool {
        use Scalar::*;
        matches!(self, Bool | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float64 | String | Bytes)
    }

    /// Written as a JSON string by Go whenever it is set.
    pub fn is_text(self) -> bool {
        use Scalar::*;
        matches!(self, String | Bytes | Time | MicroTime | Duration | Quantity)
    }
}
