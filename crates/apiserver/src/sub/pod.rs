//! Subresources whose body is the whole object but that change one part of it: a pod's ephemeral containers and
//! resources, a namespace's finalizers, a certificate request's approval.
//!
//! Invariant: whatever else the body says stays as it was.

use meta::field::{Error, Errors, Path};
use meta::{Status, Value};

use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::verbs::get;
use crate::verbs::patch::{Patch, patched};
use crate::write::{self, Changed, Endpoint};
use crate::{decode, metadata, reply};

/// Works out the stored document from the old one and from what the client wants it to be.
type Take = fn(&mut Value, &Value, &Value) -> Result<(), Status>;

async fn part(call: &Call, body: &[u8], name: &'static str, take: Take) -> Result<Response, Status> {
    let endpoint = Endpoint::Sub(name);
    let changed = match call.verb {
        Verb::Get => return get::get(call).await,
        Verb::Update => {
            let options = WriteOptions::parse(call, "UpdateOptions")?;
            let mut wanted = decode::object(call, body, options.validation)?;
            metadata::check_names(call, &call.target, &mut wanted)?;
            (call.target.rules.defaults)(&mut wanted);
            change(call, endpoint, &options, take, |_| Ok(wanted.clone())).await?
        }
        Verb::Patch => {
            let options = WriteOptions::parse(call, "PatchOptions")?;
            let (patch, notes) = Patch::parse(call, body)?;
            let patch = match patch {
                Patch::Apply(document) => Patch::Merge(document),
                patch => patch,
            };
            change(call, endpoint, &options, take, |old| patched(call, old, &patch, &notes, options.validation)).await?
        }
        _ => return Err(Status::method_not_allowed()),
    };
    Ok(reply::object(call, 200, &changed.object()))
}

async fn change(
    call: &Call,
    endpoint: Endpoint,
    options: &WriteOptions,
    take: Take,
    mut wanted: impl FnMut(&Value) -> Result<Value, Status> + Send,
) -> Result<Changed, Status> {
    write::update_key(call, &call.target, &call.key(), &call.path.name, endpoint, options, |old| {
        let wanted = wanted(old)?;
        let mut new = old.clone();
        take(&mut new, old, &wanted)?;
        match metadata::version(&wanted) {
            Some(version) => new.set(&["metadata", "resourceVersion"], version),
            None => {
                new.remove(&["metadata", "resourceVersion"]);
            }
        }
        Ok(new)
    })
    .await
}

fn bump(new: &mut Value, old: &Value) {
    if new["spec"] != old["spec"] {
        let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
        new.set(&["metadata", "generation"], generation + 1);
    }
}

pub async fn ephemeral_containers(call: &Call, body: &[u8]) -> Result<Response, Status> {
    part(call, body, "ephemeralcontainers", |new, old, wanted| {
        let before = old.array_at(&["spec", "ephemeralContainers"]);
        let after = wanted.array_at(&["spec", "ephemeralContainers"]);
        if let Some(lost) = before.iter().find(|b| !after.contains(b)) {
            let done = if after.iter().any(|a| a["name"] == lost["name"]) { "changed" } else { "removed" };
            let detail = format!("existing ephemeral containers {} may not be {done}\n", lost["name"]);
            refuse("Pod", old, &[Error::forbidden(&Path::new("spec.ephemeralContainers"), detail)])?;
        }
        if !after.is_empty() {
            new.set(&["spec", "ephemeralContainers"], after.to_vec());
        }
        bump(new, old);
        valid(new, "spec.ephemeralContainers")
    })
    .await
}

/// What the kind's rules say of the part that was changed.
fn valid(pod: &Value, part: &str) -> Result<(), Status> {
    let mut errors = Errors::new();
    (api::kinds::of("", "Pod").validate)(pod, &mut errors);
    errors.retain(|error| error.field.starts_with(part));
    refuse("Pod", pod, &errors)
}

fn refuse(kind: &str, object: &Value, errors: &[Error]) -> Result<(), Status> {
    match errors {
        [] => Ok(()),
        errors => Err(Status::invalid(&meta::GroupKind::new("", kind), metadata::name(object), errors)),
    }
}

/// A resize is of the containers that there are: errors for others.
fn other_containers(old: &Value, wanted: &Value, list: &str) -> Errors {
    let path = Path::new("spec").child(list);
    let (old, wanted) = (old.array_at(&["spec", list]), wanted.array_at(&["spec", list]));
    if old.len() != wanted.len() {
        return vec![Error::forbidden(&path, "containers may not be added or removed on resize")];
    }
    let renamed = old.iter().zip(wanted).enumerate().filter(|(_, (old, wanted))| old["name"] != wanted["name"]);
    let detail = "containers may not be renamed or reordered on resize";
    renamed.map(|(i, _)| Error::forbidden(&path.index(i).child("name"), detail)).collect()
}

pub async fn resize(call: &Call, body: &[u8]) -> Result<Response, Status> {
    part(call, body, "resize", |new, old, wanted| {
        for list in ["containers", "initContainers"] {
            refuse("Pod", old, &other_containers(old, wanted, list))?;
            let containers = new.at_mut(&["spec", list]).and_then(Value::as_array_mut);
            for (container, asked) in containers.into_iter().flatten().zip(wanted.array_at(&["spec", list])) {
                for member in ["resources", "resizePolicy"] {
                    match asked.get(member) {
                        Some(value) => container.set(&[member], value),
                        None => {
                            container.remove(&[member]);
                        }
                    }
                }
            }
        }
        bump(new, old);
        let was = api::kinds::pod::qos_class(&old["spec"]);
        if was != api::kinds::pod::qos_class(&new["spec"]) {
            let detail = "Pod QOS Class may not change as a result of resizing";
            refuse("Pod", old, &[Error::invalid(&Path::new("spec"), was, detail)])?;
        }
        valid(new, "spec.containers")
    })
    .await
}

/// namespaces/finalize: sets `spec.finalizers`; the last one gone lets the namespace go.
pub async fn finalize(call: &Call, body: &[u8]) -> Result<Response, Status> {
    part(call, body, "finalize", |new, old, wanted| {
        let (mut errors, path) = (Errors::new(), Path::new("spec.finalizers"));
        for (i, name) in wanted.array_at(&["spec", "finalizers"]).iter().enumerate() {
            api::kinds::namespace::validate_finalizer(name.as_str().unwrap_or_default(), &path.index(i), &mut errors);
        }
        refuse("Namespace", old, &errors)?;
        new.set(&["spec", "finalizers"], wanted.array_at(&["spec", "finalizers"]).to_vec());
        if wanted.array_at(&["spec", "finalizers"]).is_empty() {
            new.remove(&["spec", "finalizers"]);
            new.set_default(&["spec"], Value::object());
        }
        Ok(())
    })
    .await
}

/// certificatesigningrequests/approval: sets the conditions; labels and annotations may change with them.
pub async fn approval(call: &Call, body: &[u8]) -> Result<Response, Status> {
    part(call, body, "approval", |new, old, wanted| {
        let now = meta::time::seconds(meta::time::now());
        let mut conditions = wanted.array_at(&["status", "conditions"]).to_vec();
        for condition in &mut conditions {
            condition.set_default(&["lastUpdateTime"], now.as_str());
            let same = |c: &&Value| c["type"] == condition["type"] && c["status"] == condition["status"];
            let before = old.array_at(&["status", "conditions"]).iter().find(same);
            let since = before.and_then(|c| c.str_at(&["lastTransitionTime"])).unwrap_or(&now).to_string();
            condition.set_default(&["lastTransitionTime"], since);
        }
        new.set(&["status", "conditions"], conditions);
        new.set(&["metadata"], &wanted["metadata"]);
        Ok(())
    })
    .await
}
