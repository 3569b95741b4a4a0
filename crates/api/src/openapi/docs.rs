//! The descriptions of types and fields, looked up by name. The text is crate `api-docs`'s; see its `text` for the form.
//!
//! Invariant: a type or field without a description has an empty one; nothing here fails.

use meta::schema::TypeRef;
use std::borrow::Cow;

#[derive(Default)]
pub struct Docs {
    text: String,
    /// Where each type's line starts, in the order of their names.
    types: Vec<u32>,
}

/// One type's descriptions.
#[derive(Clone, Copy, Default)]
pub(super) struct TypeDocs<'d> {
    description: &'d str,
    fields: &'d str,
}

impl Docs {
    /// Takes what `api_docs::text()` answers. `Docs::default()` has no descriptions at all.
    pub fn new(text: String) -> Docs {
        let mut types = Vec::with_capacity(1024);
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if !line.starts_with(' ') {
                types.push(at as u32);
            }
            at += line.len();
        }
        Docs { text, types }
    }

    /// What the field at a dotted path below a type is for.
    pub fn field(&self, ty: TypeRef<'_>, path: &str) -> String {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        match (ty.field(first), rest) {
            (Some(field), Some(rest)) => self.field(field.ty().element().unwrap_or(field.ty()), rest),
            _ => self.of(&ty.full_name().unwrap_or_default()).field(first).1.into(),
        }
    }

    pub(super) fn of(&self, type_name: &str) -> TypeDocs<'_> {
        let name_at = |start: u32| self.text[start as usize..].split(['\t', '\n']).next().unwrap_or("");
        let Ok(i) = self.types.binary_search_by(|start| name_at(*start).cmp(type_name)) else {
            return TypeDocs::default();
        };
        let end = self.types.get(i + 1).map_or(self.text.len(), |e| *e as usize);
        let block = &self.text[self.types[i] as usize..end];
        let (line, fields) = block.split_once('\n').unwrap_or((block, ""));
        TypeDocs { description: line.split_once('\t').map_or("", |(_, d)| d), fields }
    }
}

impl<'d> TypeDocs<'d> {
    pub fn description(self) -> Cow<'d, str> {
        unescaped(self.description)
    }

    /// Whether the field is required, and its description.
    pub fn field(self, name: &str) -> (bool, Cow<'d, str>) {
        for line in self.fields.lines() {
            let Some((field, description)) = line.trim_start().split_once('\t') else { continue };
            let required = field.starts_with('!');
            if field.trim_start_matches('!') == name {
                return (required, unescaped(description));
            }
        }
        (false, Cow::Borrowed(""))
    }
}

pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}
