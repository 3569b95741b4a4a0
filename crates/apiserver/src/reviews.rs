//! Resources that are questions: reviews of tokens and of access. Nothing of them is stored.
//!
//! Also `bindings`, which changes a pod, and the old `componentstatuses`.

mod selectors;

use bytes::Bytes;
use meta::{Status, Value, json};

use crate::authz::Ask;
use crate::body::Response;
use crate::call::Call;
use crate::filter::Filter;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::user::User;
use crate::{authn, decode, reply, sub};

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
            let name = crate::metadata::name(&document).to_string();
            return sub::bind(call, &name, &document, &options).await;
        }
        _ => {}
    }
    match &*call.served.info.plural {
        "selfsubjectreviews" => document.set(&["status", "userInfo"], call.user.to_value()),
        "selfsubjectaccessreviews" => {
            one_question(&document)?;
            let user = (*call.user).clone();
            decide(call, &mut document, &user);
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(&document)?;
            let asked = document.str_at(&["spec", "resourceAttributes", "namespace"]).unwrap_or_default();
            if call.served.namespaced && asked != call.path.namespace {
                let path = spec_path().child("resourceAttributes").child("namespace");
                return Err(bad_spec(&path, asked, "must match metadata.namespace"));
            }
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

fn subject(document: &Value) -> Result<User, Status> {
    let list = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
    let spec = &document["spec"];
    let user = User {
        name: spec.str_at(&["user"]).unwrap_or_default().to_string(),
        uid: spec.str_at(&["uid"]).unwrap_or_default().to_string(),
        groups: list(&spec["groups"]),
        extra: Vec::new(),
    };
    one_question(document)?;
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(bad_spec(&spec_path().child("user"), "", "at least one of user or group must be specified"));
    }
    Ok(user)
}

fn one_question(document: &Value) -> Result<(), Status> {
    let [resource, other] = ["resourceAttributes", "nonResourceAttributes"].map(|m| &document["spec"][m]);
    if resource.is_null() != other.is_null() {
        let wrong = selectors::check(resource, &spec_path().child("resourceAttributes"));
        return if wrong.is_empty() { Ok(()) } else { Err(bad(&wrong)) };
    }
    // Compat: shown as upstream's internal type has it.
    let text = |member: &str| other.str_at(&[member]).unwrap_or_default();
    let shown = if other.is_null() { Value::Null } else { json!({"Path": text("path"), "Verb": text("verb")}) };
    Err(bad_spec(&spec_path(), shown, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
}

fn spec_path() -> meta::field::Path {
    meta::field::Path::new("spec")
}

/// Compat: upstream leaves the kind out.
fn bad_spec(path: &meta::field::Path, value: impl Into<Value>, detail: &str) -> Status {
    bad(&[meta::field::Error::invalid(path, value, detail)])
}

fn bad(errors: &[meta::field::Error]) -> Status {
    Status::invalid(&meta::GroupKind::new("authorization.k8s.io", ""), "", errors)
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
