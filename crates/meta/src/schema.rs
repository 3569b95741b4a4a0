//! The type graph: what fields a kind has and how they decode, merge, apply and encode.
//!
//! One `Schema` holds many types. The built-in kinds come from generated text (`Schema::parse`), custom kinds from an
//! OpenAPI v3 structural schema (`structural`). Everything that treats objects by shape asks it: decoding and pruning
//! (`prune`), defaults, strategic merge, server-side apply, the protobuf codec, OpenAPI.
//! Invariant: immutable once built; every `TypeId` and `Span` in it points inside it. It is a few hundred KB for all
//! built-in kinds: names are spans of the text it was parsed from, types and fields are small rows in two tables.

mod builder;
mod numbers;
mod ordered;
pub mod prune;
mod scalar;
mod structural;
mod text;
mod zero;

pub use builder::{Builder, FieldSpec};
pub use prune::DecodeError;
pub use scalar::Scalar;
pub use text::SchemaError;

use crate::Value;
use std::borrow::Cow;
use std::fmt;

/// A row of the schema's table of types. Only meaningful together with the schema it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub(crate) u16);

/// A piece of the schema's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

/// How a list is merged by server-side apply, and what makes two of its items the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ListKind {
    /// Replaced as a whole. A list that says nothing is atomic.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects told apart by `TypeRef::list_keys`.
    Map,
}

/// What a type is, seen through a `TypeRef`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Struct,
    List(ListKind),
    /// String keys, one type of values.
    Map,
    Scalar(Scalar),
    /// Anything at all, kept as it is (custom resources with `x-kubernetes-preserve-unknown-fields`).
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Rows `first..first+len` of `fields` in the order of their protobuf numbers; the flattened ones, sorted by name, are
    /// `flat_first..flat_first+flat_len` of `flat`.
    Struct {
        first: u32,
        len: u16,
        flat_first: u32,
        flat_len: u16,
    },
    /// `keys_first..keys_first+keys_len` of `keys`.
    List {
        element: TypeId,
        kind: ListKind,
        keys_first: u16,
        keys_len: u8,
    },
    Map {
        value: TypeId,
    },
    Scalar(Scalar),
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    /// Index in `packages` and the Go name; unnamed types have an empty name.
    package: u16,
    name: Span,
    flags: u8,
    shape: Shape,
}

/// Flags of a type.
pub(crate) mod type_flag {
    /// Server-side apply replaces it as a whole.
    pub const ATOMIC: u8 = 1;
    /// Structural schemas: unknown fields stay.
    pub const PRESERVE: u8 = 2;
    /// Structural schemas: null is a value.
    pub const NULLABLE: u8 = 4;
    /// Structural schemas: a whole Kubernetes object with its own kind and metadata.
    pub const EMBEDDED: u8 = 8;
    /// Protobuf wraps the list in a message of its own (`repeated items = 1`).
    pub const WRAPPED: u8 = 16;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name: Span,
    ty: TypeId,
    flags: u16,
    number: u16,
    merge_key: Span,
    default: Span,
}

/// Flags of a field.
pub(crate) mod flag {
    pub const OMITEMPTY: u16 = 1;
    pub const OMITZERO: u16 = 2;
    pub const POINTER: u16 = 4;
    pub const INLINE: u16 = 8;
    pub const ATOMIC: u16 = 16;
    pub const MERGE: u16 = 32;
    pub const RETAIN_KEYS: u16 = 64;
    pub const REPLACE: u16 = 128;
    pub const ZERO_DEFAULT: u16 = 256;
    pub const REQUIRED: u16 = 512;
    pub const GRANULAR: u16 = 1024;
    /// Left out when unset, but there when set to an empty list or map, which validation refuses.
    pub const KEPT_EMPTY: u16 = 2048;
}

/// A closed set of types.
pub struct Schema {
    text: Cow<'static, str>,
    /// Full package names, such as `io.k8s.api.core.v1`.
    packages: Vec<Span>,
    types: Vec<Type>,
    fields: Vec<Field>,
    flat: Vec<u32>,
    keys: Vec<Span>,
    /// Named types, sorted by (package, name).
    named: Vec<TypeId>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} types, {} fields)", self.types.len(), self.fields.len())
    }
}

impl Schema {
    /// Reads the generated text form; see `text` for its lines.
    pub fn parse(text: impl Into<Cow<'static, str>>) -> Result<Schema, SchemaError> {
        text::parse(text.into())
    }

    fn span(&self, span: Span) -> &str {
        &self.text[span.start as usize..(span.start + span.len) as usize]
    }

    /// The type of this full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn find(&self, name: &str) -> Option<TypeRef<'_>> {
        let (package, name) = name.rsplit_once('.')?;
        let found = self.named.binary_search_by(|id| {
            let t = &self.types[id.0 as usize];
            (self.span(self.packages[t.package as usize]), self.span(t.name)).cmp(&(package, name))
        });
        found.ok().map(|i| self.get(self.named[i]))
    }

    pub fn get(&self, id: TypeId) -> TypeRef<'_> {
        TypeRef { schema: self, id }
    }

    /// Every named type, in the order of their full names.
    pub fn named(&self) -> impl Iterator<Item = TypeRef<'_>> {
        self.named.iter().map(|id| self.get(*id))
    }

    /// Bytes held besides the text, for the books on memory.
    pub fn heap_bytes(&self) -> usize {
        self.types.capacity() * size_of::<Type>()
            + self.fields.capacity() * size_of::<Field>()
            + self.flat.capacity() * 4
            + self.keys.capacity() * size_of::<Span>()
            + self.named.capacity() * 2
            + if matches!(self.text, Cow::Owned(_)) { self.text.len() } else { 0 }
    }
}

/// A type of a schema: cheap to copy, the way to ask about shape.
#[derive(Clone, Copy)]
pub struct TypeRef<'s> {
    schema: &'s Schema,
    id: TypeId,
}

impl PartialEq for TypeRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.id == other.id
    }
}

impl fmt::Debug for TypeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_type())
    }
}

impl<'s> TypeRef<'s> {
    fn row(self) -> &'s Type {
        &self.schema.types[self.id.0 as usize]
    }

    pub fn schema(self) -> &'s Schema {
        self.schema
    }

    pub fn id(self) -> TypeId {
        self.id
    }

    /// The short Go name, such as `PodSpec`; empty for unnamed lists and maps.
    pub fn name(self) -> &'s str {
        self.schema.span(self.row().name)
    }

    /// The full name, such as `io.k8s.api.core.v1.PodSpec`; `None` for unnamed types.
    pub fn full_name(self) -> Option<String> {
        let name = self.name();
        let package = self.package();
        if name.is_empty() { None } else { Some(format!("{package}.{name}")) }
    }

    /// The full package, such as `io.k8s.api.core.v1`; empty for unnamed types.
    pub fn package(self) -> &'s str {
        if self.row().name.len == 0 { "" } else { self.schema.span(self.schema.packages[self.row().package as usize]) }
    }

    pub fn kind(self) -> Kind {
        match self.row().shape {
            Shape::Struct { .. } => Kind::Struct,
            Shape::List { kind, .. } => Kind::List(kind),
            Shape::Map { .. } => Kind::Map,
            Shape::Scalar(s) => Kind::Scalar(s),
            Shape::Any => Kind::Any,
        }
    }

    /// The type of a list's items or a map's values.
    pub fn element(self) -> Option<TypeRef<'s>> {
        match self.row().shape {
            Shape::List { element, .. } => Some(self.schema.get(element)),
            Shape::Map { value } => Some(self.schema.get(value)),
            _ => None,
        }
    }

    /// The fields that tell the items of a `ListKind::Map` list apart, in upstream's order.
    pub fn list_keys(self) -> impl ExactSizeIterator<Item = &'s str> {
        let range = match self.row().shape {
            Shape::List { keys_first, keys_len, .. } => keys_first as usize..keys_first as usize + keys_len as usize,
            _ => 0..0,
        };
        self.schema.keys[range].iter().map(|span| self.schema.span(*span))
    }

    /// Server-side apply replaces values of this type as a whole (structs and maps that say so, atomic lists, scalars).
    /// A field can say so for its own use of a type: see `FieldRef::is_atomic`.
    pub fn is_atomic(self) -> bool {
        match self.row().shape {
            Shape::Scalar(_) | Shape::List { kind: ListKind::Atomic, .. } => true,
            Shape::List { .. } | Shape::Any => false,
            Shape::Struct { .. } | Shape::Map { .. } => self.row().flags & type_flag::ATOMIC != 0,
        }
    }

    /// Fields that the schema does not know stay (structural schemas only).
    pub fn preserves_unknown(self) -> bool {
        self.row().flags & type_flag::PRESERVE != 0 || matches!(self.row().shape, Shape::Any)
    }

    pub fn is_nullable(self) -> bool {
        self.row().flags & type_flag::NULLABLE != 0
    }

    pub fn is_embedded(self) -> bool {
        self.row().flags & type_flag::EMBEDDED != 0
    }

    /// Protobuf writes this named list as a message with `repeated items = 1`.
    pub fn is_wrapped(self) -> bool {
        self.row().flags & type_flag::WRAPPED != 0
    }

    /// The fields as they stand in JSON (inline structs flattened), sorted by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = FieldRef<'s>> {
        self.flat().iter().map(move |i| FieldRef { schema: self.schema, row: &self.schema.fields[*i as usize] })
    }

    fn flat(self) -> &'s [u32] {
        match self.row().shape {
            Shape::Struct { flat_first, flat_len, .. } => {
                &self.schema.flat[flat_first as usize..flat_first as usize + flat_len as usize]
            }
            _ => &[],
        }
    }

    fn declared(self) -> &'s [Field] {
        match self.row().shape {
            Shape::Struct { first, len, .. } => &self.schema.fields[first as usize..first as usize + len as usize],
            _ => &[],
        }
    }

    /// The fields as they are declared (inline structs as one field), in the order of their protobuf numbers.
    pub fn declared_fields(self) -> impl DoubleEndedIterator<Item = FieldRef<'s>> + ExactSizeIterator {
        self.declared().iter().map(move |row| FieldRef { schema: self.schema, row })
    }

    /// The declared field of this protobuf number.
    pub fn field_numbered(self, number: u64) -> Option<FieldRef<'s>> {
        let rows = self.declared();
        let at = rows.binary_search_by_key(&number, |f| f.number.into()).ok().filter(|_| number > 0)?;
        Some(FieldRef { schema: self.schema, row: &rows[at] })
    }

    /// The field of this JSON name, inline structs flattened.
    pub fn field(self, name: &str) -> Option<FieldRef<'s>> {
        let flat = self.flat();
        let at = flat.binary_search_by(|i| self.schema.span(self.schema.fields[*i as usize].name).cmp(name)).ok()?;
        Some(FieldRef { schema: self.schema, row: &self.schema.fields[flat[at] as usize] })
    }

    /// The type of what stands under `key` of a value of this type: a struct's field or a map's value.
    pub fn child(self, key: &str) -> Option<TypeRef<'s>> {
        match self.row().shape {
            Shape::Struct { .. } => self.field(key).map(FieldRef::ty),
            Shape::Map { value } => Some(self.schema.get(value)),
            _ => None,
        }
    }

    /// Go's spelling of the type, as it stands in decoding errors: `v1.PodSpec`, `[]string`, `map[string]v1.Time`.
    pub fn go_type(self) -> String {
        let name = self.name();
        if !name.is_empty() {
            let package = self.package();
            let last = package.rsplit('.').next().unwrap_or(package);
            return format!("{last}.{name}");
        }
        match self.row().shape {
            Shape::List { element, .. } => format!("[]{}", self.schema.get(element).go_type()),
            Shape::Map { value } => format!("map[string]{}", self.schema.get(value).go_type()),
            Shape::Scalar(s) => s.go_type().to_owned(),
            Shape::Struct { .. } => "struct".to_owned(),
            Shape::Any => "interface {}".to_owned(),
        }
    }
}

/// A field of a struct type.
#[derive(Clone, Copy)]
pub struct FieldRef<'s> {
    schema: &'s Schema,
    row: &'s Field,
}

impl fmt::Debug for FieldRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.ty().go_type())
    }
}

impl<'s> FieldRef<'s> {
    fn has(self, flag: u16) -> bool {
        self.row.flags & flag != 0
    }

    /// The JSON name; for an inline struct its protobuf name.
    pub fn name(self) -> &'s str {
        self.schema.span(self.row.name)
    }

    pub fn ty(self) -> TypeRef<'s> {
        self.schema.get(self.row.ty)
    }

    /// A Go pointer: a set zero is kept apart from nothing.
    pub fn is_pointer(self) -> bool {
        self.has(flag::POINTER)
    }

    pub fn omitempty(self) -> bool {
        self.has(flag::OMITEMPTY)
    }

    pub fn omitzero(self) -> bool {
        self.has(flag::OMITZERO)
    }

    /// Go writes the field although nobody set it (`status: {}`, `containers: null`).
    pub fn is_written_when_unset(self) -> bool {
        zero::is_written_when_unset(self)
    }

    /// Flattened into its struct in JSON, though not in protobuf.
    pub fn is_inline(self) -> bool {
        self.has(flag::INLINE)
    }

    /// Structural schemas: listed under `required`.
    pub fn is_required(self) -> bool {
        self.has(flag::REQUIRED)
    }

    /// The protobuf number; 0 where protobuf has no such field (`apiVersion` and `kind` stand in the envelope).
    pub fn number(self) -> u16 {
        self.row.number
    }

    /// Server-side apply replaces what stands here as a whole, by the field's or the type's word.
    pub fn is_atomic(self) -> bool {
        !self.has(flag::GRANULAR) && (self.has(flag::ATOMIC) || self.ty().is_atomic())
    }

    /// Strategic merge merges the list by `merge_key` (or as a set of scalars when there is none).
    pub fn merges(self) -> bool {
        self.has(flag::MERGE)
    }

    /// Strategic merge drops keys that the patch does not list in `$retainKeys`.
    pub fn retains_keys(self) -> bool {
        self.has(flag::RETAIN_KEYS)
    }

    /// Strategic merge replaces the object as a whole.
    pub fn replaces(self) -> bool {
        self.has(flag::REPLACE)
    }

    /// The key of strategic merge's items; `None` when the field has none.
    pub fn merge_key(self) -> Option<&'s str> {
        if self.row.merge_key.len == 0 { None } else { Some(self.schema.span(self.row.merge_key)) }
    }

    /// The default that the schema itself declares (not the kind's defaulting code), zero values included.
    pub fn default(self) -> Option<Value> {
        if self.row.default.len > 0 {
            return crate::parse(self.schema.span(self.row.default).as_bytes()).ok();
        }
        if self.has(flag::ZERO_DEFAULT) { Some(zero::empty_of(self.ty())) } else { None }
    }

    /// A declared default that is not a zero value.
    pub fn declared_default(self) -> Option<Value> {
        if self.row.default.len == 0 { None } else { self.default() }
    }
}

#[cfg(test)]
mod tests;
