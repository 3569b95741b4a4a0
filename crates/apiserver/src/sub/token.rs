//! serviceaccounts/token: signs a token for an account.
//!
//! Reads: the account, and the pod, secret or node that the token is to be bound to. Invariant: a token names the uid of
//! everything that it is bound to, so it ends with any of them.

use meta::field::{Error, Path};
use meta::{GroupKind, Status, Value, time};
use pki::tokens::{Bound, Claims, ObjectRef};

use crate::admission::{Operation, outside};
use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::verbs::get;
use crate::{decode, reply};

const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let Some(tokens) = &call.shared.config.tokens else {
        return Err(Status::unavailable("this server signs no tokens; start it with a service account key"));
    };
    let ty = api::resource::root_type("authentication.k8s.io", "v1", KIND);
    let mut request = decode::typed(call, body, options.validation, &[API_VERSION], KIND, ty)?;
    outside::examine(call, Operation::Create, &mut request, options.dry_run).await?;
    let account = get::find(call).await?;
    let seconds = match request.int_at(&["spec", "expirationSeconds"]) {
        None => DEFAULT_SECONDS,
        Some(seconds) => check_seconds(seconds)?,
    };
    let mut audiences: Vec<String> =
        request.array_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    if audiences.is_empty() {
        audiences = tokens.audiences.iter().take(1).cloned().collect();
    }
    let mut bound = Bound {
        namespace: call.path.namespace.clone(),
        serviceaccount: ObjectRef { name: account.name.to_string(), uid: account.uid.to_string() },
        pod: None,
        secret: None,
        node: None,
    };
    bind(call, &request, &mut bound).await?;
    let now = time::now();
    let claims = Claims {
        iss: tokens.signer.issuer.clone(),
        sub: format!("{}{}:{}", crate::authn::SERVICE_ACCOUNT, call.path.namespace, account.name),
        aud: audiences.clone(),
        iat: now.as_second(),
        nbf: now.as_second(),
        exp: now.as_second() + seconds,
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: bound,
    };
    let token = tokens.signer.sign(&claims).map_err(Status::internal)?;
    request.set(&["metadata", "name"], account.name.as_str());
    request.set(&["metadata", "namespace"], call.path.namespace.as_str());
    request.set(&["metadata", "creationTimestamp"], time::seconds(now));
    request.set(&["spec", "audiences"], audiences);
    request.set(&["spec", "expirationSeconds"], seconds);
    request.set(&["status", "token"], token);
    request.set(&["status", "expirationTimestamp"], time::seconds(now + jiff::SignedDuration::from_secs(seconds)));
    Ok(reply::document(call, 201, &request))
}

fn check_seconds(seconds: i64) -> Result<i64, Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let error = if seconds < MIN_SECONDS {
        Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > MAX_SECONDS {
        Error::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(seconds);
    };
    Err(Status::invalid(&GroupKind::new("authentication.k8s.io", KIND), "", &[error]))
}

async fn bind(call: &Call, request: &Value, bound: &mut Bound) -> Result<(), Status> {
    let wanted = &request["spec"]["boundObjectRef"];
    if wanted.is_null() {
        return Ok(());
    }
    let text = |member: &str| wanted.str_at(&[member]).unwrap_or_default();
    let (resource, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", call.path.namespace.as_str()),
        ("v1", "Secret") => ("secrets", call.path.namespace.as_str()),
        ("v1", "Node") => ("nodes", ""),
        _ => {
            let why = format!("cannot bind token to object of type {}", meta::apply::kind_of(wanted));
            return Err(Status::bad_request(why));
        }
    };
    let name = text("name");
    let gr = meta::GroupResource::new("", resource);
    let found = call.shared.find("", resource, namespace, name).await?;
    let found = found.ok_or_else(|| Status::not_found(&gr, name))?;
    let uid = text("uid");
    if !uid.is_empty() && uid != found.uid {
        let why =
            format!("the UID in the bound object reference ({uid}) does not match the UID in record ({})", found.uid);
        return Err(Status::conflict(
            &gr,
            name,
            format!("{why}. The object might have been deleted and then recreated"),
        ));
    }
    let object = Some(ObjectRef { name: name.to_string(), uid: found.uid.to_string() });
    match resource {
        "pods" => {
            let pod = found.document();
            let account = pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default();
            if account != call.path.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.path.name
                )));
            }
            // A token of a pod ends with its node as well.
            if let Some(node) = pod.str_at(&["spec", "nodeName"]).filter(|n| !n.is_empty()) {
                let uid = call.shared.peek("", "nodes", "", node).map(|n| n.uid.to_string()).unwrap_or_default();
                bound.node = Some(ObjectRef { name: node.to_string(), uid });
            }
            bound.pod = object;
        }
        "secrets" => bound.secret = object,
        _ => bound.node = object,
    }
    Ok(())
}
