//! The schemas of a document: every type that its paths use, and what those are made of.
//!
//! Invariant: a type that is referred to is noted in `Used` and gets written.

use super::docs::Docs;
use super::facts::Facts;
use super::write::Writer;
use super::{Form, paths};
use crate::resource::{self, Resource};
use meta::Value;
use meta::schema::{FieldRef, Kind, ListKind, Scalar, Schema, TypeId, TypeRef};
use std::collections::{BTreeSet, HashSet};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// A type of the documents only.
const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
const VERSION_FIELDS: [&str; 9] =
    ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];

/// The types that a document refers to so far.
pub(super) struct Used<'s> {
    schema: &'s Schema,
    seen: HashSet<TypeId>,
    waiting: Vec<TypeRef<'s>>,
    /// Group versions whose resources have paths in the document.
    versions: BTreeSet<(String, String)>,
    patch: bool,
    version: bool,
    /// Custom kinds, each with the full name of its schema.
    custom: Vec<(Resource, String)>,
}

impl<'s> Used<'s> {
    pub fn new(schema: &'s Schema) -> Self {
        Used {
            schema,
            seen: HashSet::new(),
            waiting: Vec::new(),
            versions: BTreeSet::new(),
            patch: false,
            version: false,
            custom: Vec::new(),
        }
    }

    pub fn serve(&mut self, resource: &Resource) {
        self.versions.insert((resource.group.to_string(), resource.version.to_string()));
        if resource.schema.is_some() {
            self.meta("ObjectMeta");
            self.meta("ListMeta");
            let group: Vec<&str> = resource.group.rsplit('.').collect();
            self.custom.push((resource.clone(), format!("{}.{}", group.join("."), resource.version)));
        }
    }

    /// The full name of a custom kind's schema, or of its list's.
    pub fn custom(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let mut all = self.custom.iter().filter(|(r, _)| r.group == group && r.version == version);
        all.find(|(r, _)| r.kind == kind || r.list_kind == kind).map(|(_, package)| format!("{package}.{kind}"))
    }

    /// The full name to refer to this type by.
    fn take(&mut self, ty: TypeRef<'s>) -> String {
        if self.seen.insert(ty.id()) {
            self.waiting.push(ty);
        }
        ty.full_name().unwrap_or_default()
    }

    /// The full name to refer to a type by; `None` when there is no such type.
    pub fn named(&mut self, name: &str) -> Option<String> {
        let ty = self.schema.find(name)?;
        Some(self.take(ty))
    }

    /// What `/version` answers.
    pub fn version(&mut self) -> String {
        self.version = true;
        VERSION.into()
    }

    pub fn meta(&mut self, name: &str) -> String {
        if name == "Patch" {
            // Compat: a type of the documents only; Go has it as bytes without a struct.
            self.patch = true;
            return format!("{META}.Patch");
        }
        self.named(&format!("{META}.{name}")).unwrap_or_default()
    }
}

pub(super) fn write(w: &mut Writer, form: Form, docs: &Docs, used: &mut Used<'_>) {
    if used.patch {
        let name = format!("{META}.Patch");
        w.within(&name, |w| {
            let description = docs.of(&name).description();
            let fallback = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
            w.pair("description", if description.is_empty() { fallback } else { &description });
            w.pair("type", "object");
        });
    }
    if used.version {
        w.within(VERSION, |w| {
            w.pair("description", "What the server was built from, and how.");
            w.pair("type", "object");
            w.strings("required", VERSION_FIELDS);
            w.within("properties", |w| {
                VERSION_FIELDS.iter().for_each(|field| w.within(field, |w| w.pair("type", "string")));
            });
        });
    }
    for (r, package) in std::mem::take(&mut used.custom) {
        let Some(schema) = &r.schema else { continue };
        let gvk = (&*r.group, &*r.version, &*r.kind);
        let name = format!("{package}.{}", r.kind);
        w.member(&name, |w| w.value(&structural::publish::kind(schema, gvk, form == Form::V2)));
        let list = structural::publish::list(&name, schema, gvk, &r.plural, &r.list_kind, form == Form::V2);
        w.member(&format!("{package}.{}", r.list_kind), |w| w.value(&list));
    }
    while let Some(ty) = used.waiting.pop() {
        let name = ty.full_name().unwrap_or_default();
        w.within(&name, |w| write_type(w, form, docs, used, ty, &name));
    }
}

fn write_type<'s>(w: &mut Writer, form: Form, docs: &Docs, used: &mut Used<'s>, ty: TypeRef<'s>, name: &str) {
    let own = docs.of(name);
    let facts = Facts::of(name);
    let kinds = kinds_of(ty, name, used);
    let description = match (own.description(), ty.name().strip_suffix("List")) {
        (text, Some(kind)) if text.is_empty() && !kinds.is_empty() => {
            format!("{} is a list of {kind} objects.", ty.name()).into()
        }
        (text, _) => text,
    };
    if !description.is_empty() {
        w.pair("description", &description);
    }
    match ty.kind() {
        Kind::Scalar(scalar) => return write_scalar(w, form, scalar),
        Kind::Struct => {}
        _ => return write_content(w, form, used, ty, Use::default()),
    }
    w.pair("type", "object");
    let is_list = !kinds.is_empty() && ty.field("items").is_some() && ty.name().ends_with("List");
    let mut required: Vec<&str> = Vec::new();
    if ty.fields().len() > 0 {
        w.within("properties", |w| {
            for field in ty.fields() {
                let (is_required, mut text) = own.field(field.name());
                // Compat: k8s-openapi makes metadata of every kind required; upstream's documents do not.
                let is_required = is_required && !field.omitempty() && (kinds.is_empty() || field.name() != "metadata");
                if is_required || (is_list && field.name() == "items") {
                    required.push(field.name());
                }
                if text.is_empty() && is_list {
                    text = list_field_text(docs, field.name());
                }
                let values = facts.values(field.name());
                let is_items = is_list && field.name() == "items";
                w.within(field.name(), |w| write_field(w, form, used, (field, is_items, values.as_deref()), &text));
            }
        });
    }
    required = facts.required().map_or(required, <[_]>::to_vec);
    required.sort_by_key(|name| ty.declared_fields().position(|field| field.name() == *name));
    if !required.is_empty() {
        w.strings("required", required);
    }
    if !kinds.is_empty() {
        w.objects("x-kubernetes-group-version-kind", &kinds, |w, (g, v, k)| paths::write_gvk(w, (g, v, k)));
    }
    if ty.is_atomic() {
        w.pair("x-kubernetes-map-type", "atomic");
    } else if facts.is_granular() {
        w.pair("x-kubernetes-map-type", "granular");
    }
    facts.write_unions(w);
}

/// Lists are described by no one: their fields mean the same in all of them.
fn list_field_text<'d>(docs: &'d Docs, field: &str) -> std::borrow::Cow<'d, str> {
    match field {
        "apiVersion" | "kind" => docs.of(&format!("{META}.Status")).field(field).1,
        "items" => "The objects of the list.".into(),
        "metadata" => "Standard list metadata: resourceVersion, continue, remainingItemCount.".into(),
        _ => "".into(),
    }
}

/// The kinds that a type is on the wire of this document.
fn kinds_of<'n>(ty: TypeRef<'_>, name: &'n str, used: &Used<'_>) -> Vec<(String, String, &'n str)> {
    let short = name.rsplit('.').next().unwrap_or(name);
    if matches!(ty.name(), "DeleteOptions" | "WatchEvent") && ty.package() == META {
        let mut versions = used.versions.clone();
        versions.insert((String::new(), "v1".into()));
        return versions.into_iter().map(|(g, v)| (g, v, short)).collect();
    }
    if ty.package() == META
        && matches!(ty.name(), "Status" | "APIResourceList" | "APIGroup" | "APIGroupList" | "APIVersions")
    {
        return vec![(String::new(), "v1".into(), short)];
    }
    // A kind has apiVersion and kind of its own; plain parts do not.
    if ty.field("apiVersion").is_none() || ty.field("kind").is_none() || ty.field("metadata").is_none() {
        return Vec::new();
    }
    let mut package = resource::all_with_previews()
        .iter()
        .filter(|r| r.type_name.rsplit_once('.').is_some_and(|(package, _)| package == ty.package()));
    package.next().map(|r| vec![(r.group.to_string(), r.version.to_string(), short)]).unwrap_or_default()
}

/// What stands for a field that is left out, where Go has no pointer to leave out.
fn default_of(field: FieldRef<'_>) -> Option<Value> {
    let zero = || match field.ty().kind() {
        Kind::Struct => Some(Value::object()),
        Kind::Scalar(_) if field.omitempty() => None,
        Kind::Scalar(Scalar::Bool) => Some(false.into()),
        Kind::Scalar(Scalar::Int32 | Scalar::Int64) => Some(0.into()),
        Kind::Scalar(Scalar::String) => Some("".into()),
        _ => None,
    };
    field.default().or_else(|| if field.is_pointer() { None } else { zero() })
}

/// `is_items`: of a list of objects; `values`: what it may be.
fn write_field<'s>(
    w: &mut Writer,
    form: Form,
    used: &mut Used<'s>,
    (field, is_items, values): (FieldRef<'s>, bool, Option<&[&str]>),
    description: &str,
) {
    let ty = field.ty();
    if !description.is_empty() {
        w.pair("description", description);
    }
    // Version 2 has no place for defaults beside a reference, and upstream's says none.
    let default = if form == Form::V3 { default_of(field) } else { None };
    if let Some(default) = &default {
        w.member("default", |w| w.value(default));
    }
    let siblings = !description.is_empty() || default.is_some();
    write_use(w, form, used, ty, Use { siblings, values, bare: is_items });
    if let Some(key) = field.merge_key() {
        w.pair("x-kubernetes-patch-merge-key", key);
    }
    let strategies: Vec<&str> =
        [(field.merges(), "merge"), (field.retains_keys(), "retainKeys"), (field.replaces(), "replace")]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, s)| *s)
            .collect();
    if !strategies.is_empty() {
        w.pair("x-kubernetes-patch-strategy", &strategies.join(","));
    }
    if field.is_atomic() && !ty.is_atomic() || (matches!(ty.kind(), Kind::Map) && ty.is_atomic()) {
        w.pair("x-kubernetes-map-type", "atomic");
    } else if !field.is_atomic() && ty.is_atomic() {
        w.pair("x-kubernetes-map-type", "granular");
    }
}

/// How a type is used where it stands.
#[derive(Clone, Copy, Default)]
struct Use<'v> {
    /// Something else is said beside it.
    siblings: bool,
    /// What it, or each of its items, may be.
    values: Option<&'v [&'v str]>,
    /// How a list merges is not said.
    bare: bool,
}

/// The members that say a type where it is used: a reference, or its content when it has no schema of its own.
fn write_use<'s>(w: &mut Writer, form: Form, used: &mut Used<'s>, ty: TypeRef<'s>, how: Use<'_>) {
    let named = match ty.kind() {
        Kind::Struct => !ty.name().is_empty(),
        Kind::Scalar(s) => !s.is_basic() && !ty.name().is_empty(),
        _ => false,
    };
    if !named {
        return write_content(w, form, used, ty, how);
    }
    let target = format!("{}{}", form.ref_prefix(), used.take(ty));
    if form == Form::V3 && how.siblings {
        // A reference may have no siblings in version 3.0.
        w.objects("allOf", [target], |w, target| w.pair("$ref", &target));
    } else {
        w.pair("$ref", &target);
    }
}

fn write_content<'s>(w: &mut Writer, form: Form, used: &mut Used<'s>, ty: TypeRef<'s>, how: Use<'_>) {
    let of_items = Use { values: how.values, ..Use::default() };
    match ty.kind() {
        Kind::Scalar(scalar) => {
            write_scalar(w, form, scalar);
            if let Some(values) = how.values {
                w.strings("enum", values.iter().copied());
            }
        }
        Kind::Any => {}
        Kind::Struct => w.pair("type", "object"),
        Kind::Map => {
            w.pair("type", "object");
            if let Some(value) = ty.element() {
                w.within("additionalProperties", |w| write_use(w, form, used, value, Use { bare: true, ..of_items }));
            }
        }
        Kind::List(kind) => {
            w.pair("type", "array");
            if let Some(item) = ty.element() {
                w.within("items", |w| write_use(w, form, used, item, of_items));
            }
            if how.bare {
                return;
            }
            w.pair(
                "x-kubernetes-list-type",
                match kind {
                    ListKind::Atomic => "atomic",
                    ListKind::Set => "set",
                    ListKind::Map => "map",
                },
            );
            if kind == ListKind::Map {
                w.strings("x-kubernetes-list-map-keys", ty.list_keys());
            }
        }
    }
}

fn write_scalar(w: &mut Writer, form: Form, scalar: Scalar) {
    use Scalar::*;
    let (ty, format) = match scalar {
        Bool => ("boolean", ""),
        Int32 | UInt8 | UInt16 | UInt32 => ("integer", "int32"),
        Int64 | UInt64 => ("integer", "int64"),
        Float64 => ("number", "double"),
        String | Duration => ("string", ""),
        Bytes => ("string", "byte"),
        Time | MicroTime => ("string", "date-time"),
        Raw | FieldsV1 => ("object", ""),
        Quantity if form == Form::V2 => ("string", ""),
        IntOrString if form == Form::V2 => ("string", "int-or-string"),
        Quantity => return w.objects("oneOf", ["string", "number"], |w, ty| w.pair("type", ty)),
        IntOrString => {
            w.pair("format", "int-or-string");
            return w.objects("oneOf", ["integer", "string"], |w, ty| w.pair("type", ty));
        }
        // Anything goes: saying nothing says so.
        Json | SchemaOrBool | SchemaOrArray | SchemaOrStrings => return,
    };
    w.pair("type", ty);
    if !format.is_empty() {
        w.pair("format", format);
    }
}
