//! Puts a schema together, type by type: the one way in for generated text and for structural schemas.
//!
//! Types may refer to each other before they are defined: `declare` gives the id, `define_*` the content.
//! Invariant: `finish` answers a closed schema, or says which named type was never defined.

use super::text::SchemaError;
use super::{Field, ListKind, Scalar, Schema, Shape, Span, Type, TypeId, TypeRef, flag, type_flag};
use std::borrow::Cow;
use std::collections::HashMap;

/// What a field is made from; see `FieldRef` for what each part means.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec<'a> {
    pub name: &'a str,
    pub ty: TypeId,
    pub(crate) flags: u16,
    pub number: u16,
    pub merge_key: &'a str,
    /// JSON text; empty for none.
    pub default: &'a str,
}

impl<'a> FieldSpec<'a> {
    /// An optional field as custom resources have it.
    pub fn optional(name: &'a str, ty: TypeId) -> Self {
        FieldSpec { name, ty, flags: flag::OMITEMPTY | flag::POINTER, number: 0, merge_key: "", default: "" }
    }

    pub fn required(mut self) -> Self {
        self.flags |= flag::REQUIRED;
        self
    }
}

/// Unnamed types are made once per content.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Unnamed {
    Scalar(Scalar),
    List(TypeId, ListKind, Vec<String>),
    Map(TypeId, bool),
    Any,
}

pub struct Builder {
    text: Cow<'static, str>,
    packages: Vec<Span>,
    types: Vec<Type>,
    defined: Vec<bool>,
    fields: Vec<Field>,
    keys: Vec<Span>,
    unnamed: HashMap<Unnamed, TypeId>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new("")
    }
}

impl Builder {
    /// Starts a schema whose names will mostly be pieces of `text`: those cost no memory of their own.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Builder {
        Builder {
            text: text.into(),
            packages: Vec::new(),
            types: Vec::new(),
            defined: Vec::new(),
            fields: Vec::new(),
            keys: Vec::new(),
            unnamed: HashMap::new(),
        }
    }

    /// The span of `piece`: found by address when it is a slice of the static text, appended otherwise.
    fn span(&mut self, piece: &str) -> Span {
        if piece.is_empty() {
            return Span::default();
        }
        let base = self.text.as_ptr() as usize;
        let at = piece.as_ptr() as usize;
        if matches!(self.text, Cow::Borrowed(_)) && at >= base && at + piece.len() <= base + self.text.len() {
            return Span { start: (at - base) as u32, len: piece.len() as u32 };
        }
        let text = self.text.to_mut();
        let start = text.len() as u32;
        text.push_str(piece);
        Span { start, len: piece.len() as u32 }
    }

    fn push(&mut self, package: u16, name: Span, flags: u8, shape: Option<Shape>) -> Result<TypeId, SchemaError> {
        let id = u16::try_from(self.types.len()).map_err(|_| SchemaError::TooManyTypes)?;
        self.types.push(Type { package, name, flags, shape: shape.unwrap_or(Shape::Any) });
        self.defined.push(shape.is_some());
        Ok(TypeId(id))
    }

    pub(crate) fn package(&mut self, name: &str) -> u16 {
        let span = self.span(name);
        self.packages.push(span);
        (self.packages.len() - 1) as u16
    }

    /// Makes room for a named type.
    pub(crate) fn declare(&mut self, package: u16, name: &str) -> Result<TypeId, SchemaError> {
        let name = self.span(name);
        self.push(package, name, 0, None)
    }

    /// Makes an unnamed struct, filled by `define_struct`.
    pub fn unnamed_struct(&mut self) -> Result<TypeId, SchemaError> {
        self.push(0, Span::default(), 0, None)
    }

    pub(crate) fn add_flags(&mut self, id: TypeId, flags: u8) {
        self.types[id.0 as usize].flags |= flags;
    }

    pub fn define_struct(&mut self, id: TypeId, fields: &[FieldSpec<'_>]) {
        let first = self.fields.len() as u32;
        for spec in fields {
            let name = self.span(spec.name);
            let merge_key = self.span(spec.merge_key);
            let default = self.span(spec.default);
            self.fields.push(Field { name, ty: spec.ty, flags: spec.flags, number: spec.number, merge_key, default });
        }
        self.fields[first as usize..].sort_by_key(|f| f.number);
        let len = fields.len() as u16;
        self.define(id, Shape::Struct { first, len, flat_first: 0, flat_len: 0 });
    }

    fn define(&mut self, id: TypeId, shape: Shape) {
        self.types[id.0 as usize].shape = shape;
        self.defined[id.0 as usize] = true;
    }

    /// Gives a named type the content of `other` (`type ResourceList map[...]`).
    pub(crate) fn define_as(&mut self, id: TypeId, other: TypeId) {
        let shape = self.types[other.0 as usize].shape;
        let flags = self.types[other.0 as usize].flags;
        self.add_flags(id, flags);
        self.define(id, shape);
    }

    pub fn scalar(&mut self, scalar: Scalar) -> Result<TypeId, SchemaError> {
        self.unnamed(Unnamed::Scalar(scalar), |_| Shape::Scalar(scalar), 0)
    }

    pub fn any(&mut self) -> Result<TypeId, SchemaError> {
        self.unnamed(Unnamed::Any, |_| Shape::Any, 0)
    }

    pub fn map(&mut self, value: TypeId, atomic: bool) -> Result<TypeId, SchemaError> {
        let flags = if atomic { type_flag::ATOMIC } else { 0 };
        self.unnamed(Unnamed::Map(value, atomic), |_| Shape::Map { value }, flags)
    }

    pub fn list(&mut self, element: TypeId, kind: ListKind, keys: &[&str]) -> Result<TypeId, SchemaError> {
        let content = Unnamed::List(element, kind, keys.iter().map(|k| (*k).to_owned()).collect());
        self.unnamed(
            content,
            |b| {
                let keys_first = b.keys.len() as u16;
                for key in keys {
                    let span = b.span(key);
                    b.keys.push(span);
                }
                Shape::List { element, kind, keys_first, keys_len: keys.len() as u8 }
            },
            0,
        )
    }

    fn unnamed(
        &mut self,
        content: Unnamed,
        shape: impl FnOnce(&mut Self) -> Shape,
        flags: u8,
    ) -> Result<TypeId, SchemaError> {
        if let Some(id) = self.unnamed.get(&content) {
            return Ok(*id);
        }
        let shape = shape(self);
        let id = self.push(0, Span::default(), flags, Some(shape))?;
        self.unnamed.insert(content, id);
        Ok(id)
    }

    /// Copies a type of another schema, and all it needs, as unnamed types (for metadata in custom resources).
    pub fn import(&mut self, ty: TypeRef<'_>) -> Result<TypeId, SchemaError> {
        self.import_seen(ty, &mut HashMap::new())
    }

    fn import_seen(&mut self, ty: TypeRef<'_>, seen: &mut HashMap<TypeId, TypeId>) -> Result<TypeId, SchemaError> {
        if let Some(id) = seen.get(&ty.id) {
            return Ok(*id);
        }
        let package = self.package(ty.package());
        let name = self.span(ty.name());
        let id = self.push(package, name, ty.row().flags, None)?;
        seen.insert(ty.id, id);
        let shape = match ty.row().shape {
            Shape::Scalar(s) => Shape::Scalar(s),
            Shape::Any => Shape::Any,
            Shape::Map { value } => Shape::Map { value: self.import_seen(ty.schema.get(value), seen)? },
            Shape::List { element, kind, .. } => {
                let element = self.import_seen(ty.schema.get(element), seen)?;
                let keys_first = self.keys.len() as u16;
                for key in ty.list_keys() {
                    let span = self.span(key);
                    self.keys.push(span);
                }
                Shape::List { element, kind, keys_first, keys_len: ty.list_keys().len() as u8 }
            }
            Shape::Struct { .. } => {
                let mut specs = Vec::new();
                for field in ty.declared_fields() {
                    specs.push(FieldSpec {
                        name: field.name(),
                        ty: self.import_seen(field.ty(), seen)?,
                        flags: field.row.flags,
                        number: field.row.number,
                        merge_key: field.merge_key().unwrap_or(""),
                        default: ty.schema.span(field.row.default),
                    });
                }
                self.define_struct(id, &specs);
                return Ok(id);
            }
        };
        self.define(id, shape);
        Ok(id)
    }

    /// Closes the schema: flattens inline fields and sorts the names.
    pub fn finish(self) -> Result<Schema, SchemaError> {
        let mut schema = Schema {
            text: self.text,
            packages: self.packages,
            types: self.types,
            fields: self.fields,
            flat: Vec::new(),
            keys: self.keys,
            named: Vec::new(),
        };
        if let Some(open) = self.defined.iter().position(|d| !d) {
            return Err(SchemaError::Undefined(schema.get(TypeId(open as u16)).go_type()));
        }
        for i in 0..schema.types.len() {
            let Shape::Struct { first, len, .. } = schema.types[i].shape else {
                continue;
            };
            let mut flat = Vec::new();
            flatten(&schema, first, len, 0, &mut flat)?;
            flat.sort_by(|a, b| {
                let name = |f: &u32| schema.span(schema.fields[*f as usize].name);
                name(a).cmp(name(b))
            });
            let (flat_first, flat_len) = (schema.flat.len() as u32, flat.len() as u16);
            schema.flat.extend(flat);
            schema.types[i].shape = Shape::Struct { first, len, flat_first, flat_len };
        }
        let mut named: Vec<TypeId> =
            (0..schema.types.len() as u16).map(TypeId).filter(|id| schema.types[id.0 as usize].name.len > 0).collect();
        named.sort_by_key(|id| (schema.get(*id).package(), schema.get(*id).name()));
        schema.named = named;
        schema.types.shrink_to_fit();
        schema.fields.shrink_to_fit();
        schema.flat.shrink_to_fit();
        Ok(schema)
    }
}

/// Inline structs nest two deep at most in the published types; a bound keeps a bad table from looping.
const INLINE_DEPTH_MAX: u8 = 8;

fn flatten(schema: &Schema, first: u32, len: u16, depth: u8, out: &mut Vec<u32>) -> Result<(), SchemaError> {
    for i in first..first + u32::from(len) {
        let field = &schema.fields[i as usize];
        if field.flags & flag::INLINE == 0 {
            out.push(i);
            continue;
        }
        match schema.types[field.ty.0 as usize].shape {
            Shape::Struct { first, len, .. } if depth < INLINE_DEPTH_MAX => {
                flatten(schema, first, len, depth + 1, out)?;
            }
            _ => return Err(SchemaError::Inline(schema.span(field.name).to_owned())),
        }
    }
    Ok(())
}
