//! The text form of a schema, as `tools/schema-gen` writes it.
//!
//! ```text
//! package io.k8s.api.core.v1 core.v1          full name and the alias that references use; types follow
//! type PullPolicy string                      a named scalar, list or map
//! struct PodSpec                              fields follow, in Go's order; `struct! X` is atomic for apply
//!  containers 2 o []Container merge=name      NAME NUMBER FLAGS TYPE, then merge=, strategy=, default=
//! ```
//! FLAGS: `o` omitempty, `z` omitzero, `e` kept though empty, `p` pointer, `i` inline, `a` atomic here, `g` granular here
//! though the type is atomic, `d` zero default, `-` none.
//! TYPE: a scalar's word, `Name` of this package, `alias.Name` of another, `[]T` (atomic), `[set]T`, `[map:k1,k2]T`,
//! `{}T` (granular map), `{!}T` (atomic map). `type! X` marks a list that protobuf wraps.
//! Invariant: what the generator writes parses; anything else is refused with its line.

use super::{Builder, FieldSpec, ListKind, Scalar, Schema, TypeId, flag, type_flag};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("schema line {line}: {what}; regenerate the data with tools/schema-gen")]
    Line { line: usize, what: String },
    #[error("schema: type {0} is used but not defined")]
    Undefined(String),
    #[error("schema: inline field {0} is not a struct")]
    Inline(String),
    #[error("schema: more than 65536 types; split the schema")]
    TooManyTypes,
    #[error("schema: {path}: {what}")]
    Structural { path: String, what: String },
}

struct Parser<'t> {
    builder: Builder,
    names: HashMap<(&'t str, &'t str), TypeId>,
    line: usize,
}

pub(super) fn parse(text: Cow<'static, str>) -> Result<Schema, SchemaError> {
    match text {
        Cow::Borrowed(text) => parse_lines(Builder::new(text), text),
        Cow::Owned(text) => parse_lines(Builder::new(String::with_capacity(text.len())), &text),
    }
}

fn parse_lines(builder: Builder, text: &str) -> Result<Schema, SchemaError> {
    let mut parser = Parser { builder, names: HashMap::with_capacity(2048), line: 0 };
    parser.declare_all(text)?;
    parser.define_all(text)?;
    parser.builder.finish()
}

impl<'t> Parser<'t> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, SchemaError> {
        Err(SchemaError::Line { line: self.line, what: what.into() })
    }

    /// First pass: every named type gets its id, so that references may point forward.
    fn declare_all(&mut self, text: &'t str) -> Result<(), SchemaError> {
        let (mut package, mut alias) = (0, "");
        for (number, line) in text.lines().enumerate() {
            self.line = number + 1;
            if line.starts_with(' ') || line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut words = line.split(' ');
            let (what, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            match what {
                "package" => {
                    package = self.builder.package(name);
                    alias = words.next().unwrap_or("");
                }
                "type" | "type!" | "struct" | "struct!" => {
                    let id = self.builder.declare(package, name)?;
                    if self.names.insert((alias, name), id).is_some() {
                        return self.fail(format!("type {name} is there twice"));
                    }
                }
                _ => return self.fail(format!("unknown line {what:?}")),
            }
        }
        Ok(())
    }

    fn define_all(&mut self, text: &'t str) -> Result<(), SchemaError> {
        let mut alias = "";
        let mut open: Option<TypeId> = None;
        let mut specs: Vec<FieldSpec<'t>> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            self.line = number + 1;
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if let Some(field) = line.strip_prefix(' ') {
                let spec = self.field(alias, field)?;
                specs.push(spec);
                continue;
            }
            if let Some(id) = open.take() {
                self.builder.define_struct(id, &specs);
                specs.clear();
            }
            let mut words = line.split(' ');
            let (what, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let rest = words.next().unwrap_or("");
            if what == "package" {
                alias = rest;
                continue;
            }
            let Some(id) = self.names.get(&(alias, name)).copied() else {
                return self.fail(format!("type {name} was not declared"));
            };
            let marked = what.ends_with('!');
            if what.starts_with("struct") {
                open = Some(id);
                if marked {
                    self.builder.add_flags(id, type_flag::ATOMIC);
                }
            } else {
                let other = self.ty(alias, rest)?;
                self.builder.define_as(id, other);
                if marked {
                    self.builder.add_flags(id, type_flag::WRAPPED);
                }
            }
        }
        if let Some(id) = open {
            self.builder.define_struct(id, &specs);
        }
        Ok(())
    }

    fn field(&mut self, alias: &'t str, line: &'t str) -> Result<FieldSpec<'t>, SchemaError> {
        let mut words = line.splitn(5, ' ');
        let (Some(name), Some(number), Some(letters), Some(ty)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return self.fail("a field needs NAME NUMBER FLAGS TYPE");
        };
        let Ok(number) = number.parse() else {
            return self.fail(format!("bad number {number:?}"));
        };
        let mut flags = 0;
        for letter in letters.chars() {
            flags |= match letter {
                'o' => flag::OMITEMPTY,
                'z' => flag::OMITZERO,
                'e' => flag::KEPT_EMPTY,
                'p' => flag::POINTER,
                'i' => flag::INLINE,
                'a' => flag::ATOMIC,
                'g' => flag::GRANULAR,
                'd' => flag::ZERO_DEFAULT,
                '-' => 0,
                _ => return self.fail(format!("unknown flag {letter:?}")),
            };
        }
        let ty = self.ty(alias, ty)?;
        let mut spec = FieldSpec { name, ty, flags, number, merge_key: "", default: "" };
        let mut extras = words.next().unwrap_or("");
        while !extras.is_empty() {
            // A default is JSON and may hold spaces: it is always the last.
            if let Some(default) = extras.strip_prefix("default=") {
                spec.default = default;
                break;
            }
            let (extra, rest) = extras.split_once(' ').unwrap_or((extras, ""));
            extras = rest;
            match extra.split_once('=') {
                Some(("merge", key)) => spec.merge_key = key,
                Some(("strategy", list)) => {
                    for strategy in list.split(',') {
                        spec.flags |= match strategy {
                            "merge" => flag::MERGE,
                            "retainKeys" => flag::RETAIN_KEYS,
                            "replace" => flag::REPLACE,
                            _ => return self.fail(format!("unknown patch strategy {strategy:?}")),
                        };
                    }
                }
                _ => return self.fail(format!("unknown word {extra:?}")),
            }
        }
        Ok(spec)
    }

    fn ty(&mut self, alias: &'t str, expr: &'t str) -> Result<TypeId, SchemaError> {
        if let Some(element) = expr.strip_prefix("[]") {
            let element = self.ty(alias, element)?;
            return self.builder.list(element, ListKind::Atomic, &[]);
        }
        if let Some(element) = expr.strip_prefix("[set]") {
            let element = self.ty(alias, element)?;
            return self.builder.list(element, ListKind::Set, &[]);
        }
        if let Some((keys, element)) = expr.strip_prefix("[map:").and_then(|rest| rest.split_once(']')) {
            let element = self.ty(alias, element)?;
            let keys: Vec<&str> = keys.split(',').collect();
            return self.builder.list(element, ListKind::Map, &keys);
        }
        if let Some(value) = expr.strip_prefix("{}") {
            let value = self.ty(alias, value)?;
            return self.builder.map(value, false);
        }
        if let Some(value) = expr.strip_prefix("{!}") {
            let value = self.ty(alias, value)?;
            return self.builder.map(value, true);
        }
        if let Some(scalar) = Scalar::from_word(expr) {
            return self.builder.scalar(scalar);
        }
        let (package, name) = expr.rsplit_once('.').unwrap_or((alias, expr));
        match self.names.get(&(package, name)) {
            Some(id) => Ok(*id),
            None => self.fail(format!("unknown type {expr:?}")),
        }
    }
}
