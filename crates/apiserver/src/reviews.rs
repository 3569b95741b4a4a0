//! Resources that are questions: reviews of tokens and of access. Nothing of them is stored.
//!
//! Also `bindings`, which changes a pod, and the old `componentstatuses`.

mod selectors;

use bytes::Bytes;
use meta::field::{Error, Errors, Path};
use meta::{Status, Value, json};

use crate::authz::Ask;
use crate::body::Response;
use crate::call::Call;
use crate::filter::Filter;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::user::User;
use crate::{authn, decode, managed, metadata, reply, sub};

pub async fn dispatch(call: &Call, body: Bytes) -> Result<Response, Status> {
    if call.served.info.plural == "componentstatuses" {
        return component_statuses(call).await;
    }
    if call.verb != Verb::Create {
        return Err(Status::method_not_allowed());
    }
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let mut document = decode::object(call, &body, options.validation)?;
    match &*call.served.info.plural {
        "selfsubjectreviews" => document.set(&["status"], json!({})),
        "bindings" => {
            let name = metadata::name(&document).to_string();
            return sub::bind(call, &name, &document, &options).await;
        }
        _ => {}
    }
    let plural = &*call.served.info.plural;
    if !matches!(plural, "selfsubjectreviews" | "selfsubjectrulesreviews") {
        metadata::settle_namespace(call, &call.target, &mut document)?;
        let cluster = (!call.served.namespaced).then_some("namespace");
        for member in ["uid", "creationTimestamp"].into_iter().chain(cluster) {
            document.remove(&["metadata", member]);
        }
        managed::created(call, &call.target, &mut document, &options);
    }
    match plural {
        "selfsubjectreviews" => document.set(&["status", "userInfo"], call.user.to_value()),
        "selfsubjectaccessreviews" => {
            check(call, &document, Errors::new())?;
            let user = (*call.user).clone();
            decide(call, &mut document, &user);
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(call, &document)?;
            decide(call, &mut document, &user);
        }
        "selfsubjectrulesreviews" => {
            if document.str_at(&["spec", "namespace"]).unwrap_or_default().is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            rules(call, &mut document);
        }
        "tokenreviews" => review_token(call, &mut document).await?,
        other => return Err(Status::internal(format!("{other} cannot be answered"))),
    }
    Ok(reply::document(call, 201, &document))
}

fn subject(call: &Call, document: &Value) -> Result<User, Status> {
    let list = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
    let spec = &document["spec"];
    let user = User {
        name: spec.str_at(&["user"]).unwrap_or_default().to_string(),
        uid: spec.str_at(&["uid"]).unwrap_or_default().to_string(),
        groups: list(&spec["groups"]),
        extra: Vec::new(),
    };
    let mut errors = Errors::new();
    if user.name.is_empty() && user.groups.is_empty() {
        let path = Path::new("spec").child("user");
        errors.push(Error::invalid(&path, "", "at least one of user or group must be specified"));
    }
    check(call, document, errors)?;
    Ok(user)
}

/// Refuses what is no question, besides what is wrong with its subject.
fn check(call: &Call, document: &Value, subject: Errors) -> Result<(), Status> {
    let local = call.served.namespaced;
    let [resource, other] = ["resourceAttributes", "nonResourceAttributes"].map(|m| &document["spec"][m]);
    let spec = Path::new("spec");
    // Compat: shown as upstream's internal type has it.
    let text = |member: &str| other.str_at(&[member]).unwrap_or_default();
    let shown = if other.is_null() { Value::Null } else { json!({"Path": text("path"), "Verb": text("verb")}) };
    let mut errors = Errors::new();
    if resource.is_null() == other.is_null() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&spec, shown.clone(), detail));
    } else {
        errors.extend(selectors::check(resource, &spec.child("resourceAttributes")));
    }
    errors.extend(subject);
    let own = |member: &str| member != "managedFields" && !(local && member == "namespace");
    if document["metadata"].as_object().is_some_and(|metadata| metadata.keys().any(own)) {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(Error::invalid(&Path::new("metadata"), document["metadata"].clone(), detail));
    }
    let namespace = resource.str_at(&["namespace"]).unwrap_or_default();
    if local && !resource.is_null() && namespace != call.path.namespace {
        let path = spec.child("resourceAttributes").child("namespace");
        errors.push(Error::invalid(&path, namespace, "must match metadata.namespace"));
    }
    if local && !other.is_null() {
        errors.push(Error::invalid(&spec.child("nonResourceAttributes"), shown, "disallowed on this kind of request"));
    }
    // Compat: upstream leaves the kind out.
    let kind = meta::GroupKind::new("authorization.k8s.io", "");
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&kind, "", &errors)) }
}

fn decide(call: &Call, document: &mut Value, user: &User) {
    let spec = &document["spec"];
    let attributes = &spec["resourceAttributes"];
    let text = |v: &Value, member: &str| v.str_at(&[member]).unwrap_or_default().to_string();
    let decision = if attributes.is_null() {
        let path = &spec["nonResourceAttributes"];
        let (method, path) = (text(path, "verb").to_ascii_uppercase(), text(path, "path"));
        call.shared.authorizer.decide(user, &Ask::Path { method: &method, path: &path })
    } else {
        let [verb, group, resource, subresource, namespace, name] =
            ["verb", "group", "resource", "subresource", "namespace", "name"].map(|m| text(attributes, m));
        let ask = Ask::Review {
            verb: &verb,
            group: &group,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
        };
        call.shared.authorizer.decide(user, &ask)
    };
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status.set(&["reason"], decision.reason);
    }
    document.set(&["status"], status);
}

/// As long as whoever is known may do everything, that is the one rule.
fn rules(call: &Call, document: &mut Value) {
    let ask = Ask::Review { verb: "*", group: "*", resource: "*", subresource: "", namespace: "", name: "" };
    let allowed = call.shared.authorizer.decide(&call.user, &ask).allowed;
    let mut status = json!({"incomplete": false, "nonResourceRules": [], "resourceRules": []});
    if allowed {
        status.set(&["resourceRules"], json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        status.set(&["nonResourceRules"], json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]));
    }
    document.set(&["status"], status);
}

async fn review_token(call: &Call, document: &mut Value) -> Result<(), Status> {
    let token = document.str_at(&["spec", "token"]).unwrap_or_default().to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> =
        document.array_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let own = call.shared.config.tokens.as_ref().map(|t| t.audiences.clone()).unwrap_or_default();
    let audiences = if asked.is_empty() { own } else { asked };
    let status = match authn::token_user(&call.shared, &token, &audiences).await {
        Ok(user) => {
            let mut status = json!({"authenticated": true});
            status.set(&["user"], user.to_value());
            status.set(&["audiences"], audiences);
            status
        }
        Err(why) => {
            let mut status = json!({"user": {}});
            status.set(&["error"], why);
            status
        }
    };
    document.set(&["status"], status);
    Ok(())
}

/// The old list of components. Of those the server knows its store; the others have health endpoints of their own.
async fn component_statuses(call: &Call) -> Result<Response, Status> {
    const STORE: &str = "etcd-0";
    let (status, message) = match call.shared.storage.store.revision().await {
        Ok(_) => ("True", "ok".to_string()),
        Err(error) => ("False", error.to_string()),
    };
    let store = json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": STORE},
        "conditions": [{"type": "Healthy", "status": status, "message": message}]});
    call.warn("v1 ComponentStatus is deprecated in v1.19+");
    match call.verb {
        Verb::List => {
            Filter::parse(&call.served, &call.path, &call.query)?;
            let mut list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}});
            list.set(&["items"], vec![store]);
            Ok(reply::document(call, 200, &list))
        }
        Verb::Get if call.path.name == STORE => Ok(reply::document(call, 200, &store)),
        _ => Err(call.not_found()),
    }
}
