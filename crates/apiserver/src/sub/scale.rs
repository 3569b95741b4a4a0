//! The scale subresource: a workload's replica count as `autoscaling/v1` Scale.
//!
//! Changes: `spec.replicas` only. Invariant: a Scale carries the version of the workload it was made from.

use meta::field::{Error, Path};
use meta::selector::LabelSelector;
use meta::{GroupKind, Status, Value, apply, json};

use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::verbs::get;
use crate::verbs::patch::{Patch, check_apply, check_kind};
use crate::write::{self, Endpoint};
use crate::{decode, managed, metadata, reply};

const API_VERSION: &str = apply::scale::API_VERSION;
const KIND: &str = "Scale";

pub async fn scale(call: &Call, body: &[u8]) -> Result<Response, Status> {
    match call.verb {
        Verb::Get => {
            let object = get::find(call).await?;
            Ok(reply::document(call, 200, &scale_in(call, &object.document())?))
        }
        Verb::Update => {
            let options = WriteOptions::parse(call, "UpdateOptions")?;
            let ty = api::resource::root_type("autoscaling", "v1", KIND);
            let scale = decode::typed(call, body, options.validation, &[API_VERSION], KIND, ty)?;
            check(call, &scale)?;
            store(call, options, |_| Ok(scale.clone())).await
        }
        Verb::Patch => {
            let mut options = WriteOptions::parse(call, "PatchOptions")?;
            let (patch, notes) = Patch::parse(call, body)?;
            if let Patch::Apply(document) = &patch {
                check_apply(call, document, API_VERSION, KIND)?;
                options.applied = true;
            }
            decode::report(call, notes, options.validation, "v1", KIND)?;
            let ty = api::resource::root_type("autoscaling", "v1", KIND);
            let applier = options.clone();
            store(call, options, |live| {
                let mut scale = live.clone();
                match (&patch, ty) {
                    (Patch::Apply(document), Some(ty)) => {
                        scale = managed::scale_applied(ty, live, document, &applier)?;
                    }
                    _ => patch_scale(&mut scale, &patch, ty)?,
                }
                if let Patch::Json(_) | Patch::Merge(_) = patch {
                    check_kind(call, &patch, &scale, API_VERSION, KIND)?;
                }
                decode::prune(call, &mut scale, Vec::new(), applier.validation, API_VERSION, KIND, ty)?;
                check(call, &scale)?;
                Ok(scale)
            })
            .await
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn patch_scale(scale: &mut Value, patch: &Patch, ty: Option<meta::schema::TypeRef<'static>>) -> Result<(), Status> {
    use meta::patch as patches;
    match (patch, ty) {
        (Patch::Json(patch), _) => patches::json_patch(scale, patch).map_err(|e| e.to_status()),
        (Patch::Strategic(patch), Some(ty)) => patches::strategic_merge(scale, patch, ty).map_err(|e| e.to_status()),
        (Patch::Merge(patch) | Patch::Strategic(patch) | Patch::Apply(patch), _) => {
            patches::merge_patch(scale, patch).map_err(|e| e.to_status())
        }
    }
}

fn check(call: &Call, scale: &Value) -> Result<(), Status> {
    metadata::check_name(call, metadata::name(scale))?;
    let replicas = scale.int_at(&["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let error = Error::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(&GroupKind::new("autoscaling", KIND), &call.path.name, &[error]));
    }
    Ok(())
}

/// Stores the replicas of the Scale that `make` makes of the live one, and who owns them.
async fn store(
    call: &Call,
    mut options: WriteOptions,
    mut make: impl FnMut(&Value) -> Result<Value, Status> + Send,
) -> Result<Response, Status> {
    let served = &call.target;
    let generation_counts = served.has_status || served.custom.is_some();
    let at: Vec<&str> = match served.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(paths) => paths.spec.iter().map(String::as_str).collect(),
        None => vec!["spec", "replicas"],
    };
    let writer = options.clone();
    // Its owners are settled here, as owners of a Scale.
    options.applied = true;
    let object =
        write::update_key(call, served, &call.key(), &call.path.name, Endpoint::Sub("scale"), &options, |old| {
            let mut live = scale_in(call, old)?;
            apply::scale::tell_owners(&mut live, old, &at);
            let mut scale = make(&live)?;
            if !writer.applied {
                managed::scale_updated(&live, &mut scale, &writer);
            }
            let mut new = old.clone();
            apply::scale::take_owners(&mut new, &at, &call.target.api_version, &scale);
            let replicas = scale.int_at(&["spec", "replicas"]).unwrap_or(0);
            if generation_counts && old.int_at(&at) != Some(replicas) {
                let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
                new.set(&["metadata", "generation"], generation + 1);
            }
            new.set(&at, replicas);
            for member in ["resourceVersion", "uid"] {
                match scale.at(&["metadata", member]) {
                    Some(value) => new.set(&["metadata", member], value),
                    None => {
                        new.remove(&["metadata", member]);
                    }
                }
            }
            Ok(new)
        })
        .await?
        .object();
    Ok(reply::document(call, 200, &scale_in(call, &object.document())?))
}

/// The Scale of an object: of a custom one by the paths that its definition names.
pub fn scale_in(call: &Call, object: &Value) -> Result<Value, Status> {
    let Some(paths) = call.served.custom.as_ref().and_then(|c| c.scale.as_ref()) else { return Ok(scale_of(object)) };
    let at = |path: &[String]| object.at(&path.iter().map(String::as_str).collect::<Vec<_>>());
    let Some(replicas) = at(&paths.spec).and_then(Value::as_i64) else {
        let path = paths.spec.join(".");
        return Err(Status::internal(format!("the spec replicas field \".{path}\" does not exist")));
    };
    let mut plain = json!({"kind": call.served.kind.as_str(), "spec": {"replicas": replicas}, "status": {}});
    plain.set(&["metadata"], &object["metadata"]);
    plain.set(&["status", "replicas"], at(&paths.status).and_then(Value::as_i64).unwrap_or(0));
    let mut scale = scale_of(&plain);
    if let Some(selector) = at(&paths.selector).and_then(Value::as_str).filter(|_| !paths.selector.is_empty()) {
        scale.set(&["status", "selector"], selector);
    }
    Ok(scale)
}

/// The Scale of a workload.
fn scale_of(workload: &Value) -> Value {
    let mut scale = json!({"kind": KIND, "apiVersion": API_VERSION, "metadata": {}, "spec": {}, "status": {}});
    for member in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = workload.at(&["metadata", member]) {
            scale.set(&["metadata", member], value);
        }
    }
    if let Some(replicas) = workload.int_at(&["spec", "replicas"]).filter(|r| *r != 0) {
        scale.set(&["spec", "replicas"], replicas);
    }
    scale.set(&["status", "replicas"], workload.int_at(&["status", "replicas"]).unwrap_or(0));
    let selector = &workload["spec"]["selector"];
    // The selector of a ReplicationController is a plain map of labels.
    let text = match selector.as_object() {
        Some(map) if workload.str_at(&["kind"]) == Some("ReplicationController") => {
            map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
        }
        Some(_) => selector_text(&LabelSelector::from_valid_object(selector)),
        None => String::new(),
    };
    if !text.is_empty() {
        scale.set(&["status", "selector"], text);
    }
    scale
}

/// A selector in its text form.
fn selector_text(selector: &LabelSelector) -> String {
    use meta::selector::Operator;
    let requirement = |r: &meta::selector::Requirement| {
        let values = || r.values.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(",");
        match r.operator {
            Operator::In if r.values.len() == 1 => format!("{}={}", r.key, values()),
            Operator::In => format!("{} in ({})", r.key, values()),
            Operator::NotIn => format!("{} notin ({})", r.key, values()),
            Operator::Exists => r.key.to_string(),
            Operator::DoesNotExist => format!("!{}", r.key),
            Operator::GreaterThan => format!("{}>{}", r.key, values()),
            Operator::LessThan => format!("{}<{}", r.key, values()),
        }
    };
    let mut all: Vec<String> = selector.requirements().iter().map(requirement).collect();
    all.sort_unstable();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let deployment = json!({"kind": "Deployment", "metadata": {"name": "d", "resourceVersion": "3"}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}]}},
            "status": {"replicas": 1}});
        assert_eq!(
            scale_of(&deployment).to_string(),
            r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d","resourceVersion":"3"},"spec":{"replicas":2},"status":{"replicas":1,"selector":"a=1,b=2,c in (x,y)"}}"#
        );
    }
}
