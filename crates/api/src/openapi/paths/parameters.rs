//! The parameters of operations.
//!
//! Invariant: a query parameter is listed exactly where the server reads it.

use super::super::docs::Docs;
use super::super::write::Writer;
use super::Form;
use crate::schema;
use meta::schema::{Kind, Scalar};
use std::borrow::Cow;

#[derive(Clone, Debug)]
pub(super) struct Parameter {
    name: Cow<'static, str>,
    description: Cow<'static, str>,
    ty: &'static str,
    in_path: bool,
}

const fn query(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter { name: Cow::Borrowed(name), description: Cow::Borrowed(description), ty, in_path: false }
}

const fn in_path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name: Cow::Borrowed(name), description: Cow::Borrowed(description), ty: "string", in_path: true }
}

pub(super) const NAMESPACE: Parameter =
    in_path("namespace", "object name and auth scope, such as for teams and projects");
pub(super) const PATH: Parameter = in_path("path", "path to the resource");
pub(super) const PRETTY: Parameter = query("pretty", "string", "If 'true', then the output is pretty printed.");

pub(super) fn name(kind: &str) -> Parameter {
    Parameter { description: format!("name of the {kind}").into(), ..in_path("name", "") }
}

const DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "When present, nothing is stored. The only valid value is All: every stage of the request is run.",
);
const CONTINUE: Parameter = query("continue", "string", "The token of the previous answer, to get what follows it.");
const FIELD_SELECTOR: Parameter =
    query("fieldSelector", "string", "Restricts the objects to those whose fields match.");
const LABEL_SELECTOR: Parameter =
    query("labelSelector", "string", "Restricts the objects to those whose labels match.");
const LIMIT: Parameter =
    query("limit", "integer", "The most objects of one answer; the rest follows with its continue token.");
const RESOURCE_VERSION: Parameter =
    query("resourceVersion", "string", "Sets a constraint on what resource versions a request may be served from.");
const RESOURCE_VERSION_MATCH: Parameter =
    query("resourceVersionMatch", "string", "How resourceVersion is applied to a list: Exact or NotOlderThan.");
const SEND_INITIAL_EVENTS: Parameter = query(
    "sendInitialEvents",
    "boolean",
    "Begins a watch with the objects that exist, followed by a bookmark that says so.",
);
const TIMEOUT_SECONDS: Parameter =
    query("timeoutSeconds", "integer", "Ends the call after this time, regardless of any activity.");

pub(super) fn list() -> Vec<Parameter> {
    vec![
        query("allowWatchBookmarks", "boolean", "Asks for events of type BOOKMARK in a watch."),
        CONTINUE,
        FIELD_SELECTOR,
        LABEL_SELECTOR,
        LIMIT,
        RESOURCE_VERSION,
        RESOURCE_VERSION_MATCH,
        SEND_INITIAL_EVENTS,
        TIMEOUT_SECONDS,
        query("watch", "boolean", "Answers a stream of changes instead of a list."),
    ]
}

pub(super) fn list_of_deleted() -> Vec<Parameter> {
    vec![
        CONTINUE,
        FIELD_SELECTOR,
        LABEL_SELECTOR,
        LIMIT,
        RESOURCE_VERSION,
        RESOURCE_VERSION_MATCH,
        SEND_INITIAL_EVENTS,
        TIMEOUT_SECONDS,
    ]
}

pub(super) fn write() -> Vec<Parameter> {
    vec![
        DRY_RUN,
        query("fieldManager", "string", "The name of who makes the change, for managedFields; at most 128 characters."),
        query(
            "fieldValidation",
            "string",
            "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
        ),
    ]
}

pub(super) fn patch() -> Vec<Parameter> {
    let mut all = write();
    all.push(query("force", "boolean", "Takes over fields that other managers own. Only for apply patches."));
    all
}

pub(super) fn delete() -> Vec<Parameter> {
    vec![
        DRY_RUN,
        query("gracePeriodSeconds", "integer", "The time the object has to end by itself; zero deletes it at once."),
        query(
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "boolean",
            "Deletes an object that cannot be read from the store any more.",
        ),
        query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
        query("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
    ]
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
            ty: match f.ty().kind() {
                Kind::Scalar(Scalar::Bool) => "boolean",
                Kind::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
                _ => "string",
            },
            in_path: false,
        })
        .collect()
}

pub(super) fn write_one(w: &mut Writer, form: Form, parameter: &Parameter) {
    w.object(|w| {
        w.pair("name", &parameter.name);
        w.pair("in", if parameter.in_path { "path" } else { "query" });
        if !parameter.description.is_empty() {
            w.pair("description", &parameter.description);
        }
        if parameter.in_path {
            w.flag("required", true);
        }
        match form {
            Form::V2 => {
                w.pair("type", parameter.ty);
                w.flag("uniqueItems", true);
            }
            Form::V3 => w.member("schema", |w| {
                w.object(|w| {
                    w.pair("type", parameter.ty);
                    w.flag("uniqueItems", true);
                });
            }),
        }
    });
}
