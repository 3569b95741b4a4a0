//! The parameters of operations.
//!
//! Invariant: a query parameter is listed exactly where the server reads it; `shardSelector`, whose gate is off, where
//! upstream's lists it.

use super::super::docs::{Docs, unescaped};
use super::super::write::Writer;
use super::Form;
use crate::schema;
use meta::schema::{Kind, Scalar};
use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    name: Cow<'static, str>,
    description: Cow<'static, str>,
    ty: &'static str,
    in_path: bool,
}

/// `NAME TYPE DESCRIPTION` (escaped as `docs` has it; `NAME@patch` is what NAME means in a patch) of every query parameter that is no field of a type.
const QUERY: &str = include_str!("../../data/parameters.txt");

fn query(name: &'static str) -> Parameter {
    let row = QUERY.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix(' '));
    let (ty, description) = row.and_then(|row| row.split_once(' ')).expect("a test asks for every parameter");
    let name = name.split('@').next().unwrap_or(name);
    Parameter { name: name.into(), description: unescaped(description), ty, in_path: false }
}

const fn in_path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name: Cow::Borrowed(name), description: Cow::Borrowed(description), ty: "string", in_path: true }
}

pub(super) const NAMESPACE: Parameter =
    in_path("namespace", "object name and auth scope, such as for teams and projects");
pub(super) const PATH: Parameter = in_path("path", "path to the resource");

pub(super) fn name(kind: &str) -> Parameter {
    Parameter { description: format!("name of the {kind}").into(), ..in_path("name", "") }
}

pub(super) fn pretty() -> Parameter {
    query("pretty")
}

pub(super) fn list() -> Vec<Parameter> {
    [vec![query("allowWatchBookmarks")], list_of_deleted(), vec![query("watch")]].concat()
}

pub(super) fn list_of_deleted() -> Vec<Parameter> {
    let selecting = ["continue", "fieldSelector", "labelSelector", "limit"].map(query);
    let versions = ["resourceVersion", "resourceVersionMatch", "sendInitialEvents"].map(query);
    [&selecting[..], &versions, &["shardSelector", "timeoutSeconds"].map(query)].concat()
}

pub(super) fn write() -> Vec<Parameter> {
    ["dryRun", "fieldManager", "fieldValidation"].map(query).into()
}

pub(super) fn patch() -> Vec<Parameter> {
    ["dryRun", "fieldManager@patch", "fieldValidation", "force"].map(query).into()
}

pub(super) fn delete() -> Vec<Parameter> {
    let risky = query("ignoreStoreReadErrorWithClusterBreakingPotential");
    vec![query("dryRun"), query("gracePeriodSeconds"), risky, query("orphanDependents"), query("propagationPolicy")]
}

/// The fields of an options type of core, which stand in the query of streams and logs.
pub(super) fn of_options(docs: &Docs, kind: &str) -> Vec<Parameter> {
    let full_name = format!("io.k8s.api.core.v1.{kind}");
    let Some(ty) = schema().find(&full_name) else { return Vec::new() };
    let own = docs.of(&full_name);
    ty.fields()
        .filter(|f| !matches!(f.name(), "apiVersion" | "kind"))
        .map(|f| Parameter {
            name: f.name().into(),
            description: own.field(f.name()).1.into_owned().into(),
            ty: match f.ty().element().unwrap_or(f.ty()).kind() {
                Kind::Scalar(Scalar::Bool) => "boolean",
                Kind::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
                _ => "string",
            },
            in_path: false,
        })
        .collect()
}

pub(super) fn sort(parameters: &mut [Parameter]) {
    parameters.sort_by(|a, b| (&a.name, !a.in_path).cmp(&(&b.name, !b.in_path)));
}

/// The members of a parameter.
pub(super) fn write_one(w: &mut Writer, form: Form, parameter: &Parameter) {
    w.pair("name", &parameter.name);
    w.pair("in", if parameter.in_path { "path" } else { "query" });
    if !parameter.description.is_empty() {
        w.pair("description", &parameter.description);
    }
    if parameter.in_path {
        w.flag("required", true);
    }
    let schema = |w: &mut Writer| {
        w.pair("type", parameter.ty);
        w.flag("uniqueItems", true);
    };
    match form {
        Form::V2 => schema(w),
        Form::V3 => w.within("schema", schema),
    }
}
