//! What every cluster has from the first moment: default namespaces, priority classes, the range of service addresses, and
//! the `kubernetes` service.
//!
//! Writes through the request path's own functions, as any client would. Invariant: what exists is left as it is, unless
//! its maker asked for it to be kept in line.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use meta::{Status, Value, json};

use crate::accept::Accept;
use crate::admission::priority::HIGHEST_USER_VALUE;
use crate::aggregate;
use crate::alloc::{NETWORKING, repair};
use crate::call::Call;
use crate::flow::defaults;
use crate::masters;
use crate::metadata;
use crate::object::Object;
use crate::options::WriteOptions;
use crate::registry::Served;
use crate::request::{Query, ResourcePath, Verb};
use crate::shared::Shared;
use crate::user::User;
use crate::write::{self, Endpoint};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const MANAGER: &str = "kube-apiserver";
/// How often the objects here are looked after.
const EVERY: Duration = Duration::from_secs(60);
/// Addresses and ports of services are looked after every third time, as often as upstream does.
const REPAIR_ROUNDS: u64 = 3;

/// Before anybody is served: the range of service addresses, and that what services have is known to be theirs.
pub async fn settle_services(shared: &Arc<Shared>) -> Result<(), Status> {
    service_range(shared).await?;
    repair::run(shared).await
}

/// Makes what is missing.
pub async fn create_defaults(shared: &Arc<Shared>) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name}});
        ensure(shared, "", "namespaces", "", name, namespace).await?;
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2 * HIGHEST_USER_VALUE,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2 * HIGHEST_USER_VALUE + 1000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(shared, "scheduling.k8s.io", "priorityclasses", "", name, class).await?;
    }
    flow_control(shared).await?;
    service_range(shared).await?;
    let local = aggregate::local_documents(&shared.registry.resources());
    let local = local.into_iter().map(|(name, document)| async move {
        ensure(shared, aggregate::GROUP, aggregate::RESOURCE, "", &name, document).await
    });
    futures::future::try_join_all(local).await?;
    let data = aggregate::trust(&shared.config);
    if data.as_object().is_some_and(|d| !d.is_empty()) {
        const NAME: &str = "extension-apiserver-authentication";
        let trust = json!({"metadata": {"name": NAME, "namespace": "kube-system"}, "data": data});
        reconcile(shared, "", "configmaps", trust, &["data"], true).await?;
    }
    kubernetes_service(shared).await
}

/// Flow schemas and priority levels: the mandatory ones are kept as they are meant, the suggested ones where their
/// annotation asks for it.
async fn flow_control(shared: &Arc<Shared>) -> Result<(), Status> {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    let levels = defaults::mandatory_levels().into_iter().map(|l| (l, true));
    let levels = levels.chain(defaults::suggested_levels().map(|l| (l, false)));
    let schemas = defaults::mandatory_schemas().into_iter().map(|s| (s, true));
    let schemas = schemas.chain(defaults::suggested_schemas().into_iter().map(|s| (s, false)));
    let all = levels.map(|l| ("prioritylevelconfigurations", l)).chain(schemas.map(|s| ("flowschemas", s)));
    for (resource, (wanted, mandatory)) in all {
        reconcile(shared, GROUP, resource, wanted, &["spec"], mandatory).await?;
    }
    Ok(())
}

/// Looks after the defaults until the server stops.
pub async fn keep(shared: Arc<Shared>) {
    for round in 1u64.. {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(status) = create_defaults(&shared).await {
            tracing::warn!("cannot keep the default objects: {status}");
        }
        if round.is_multiple_of(REPAIR_ROUNDS)
            && let Err(status) = repair::run(&shared).await
        {
            tracing::warn!("cannot repair the addresses and ports of services: {status}");
        }
    }
}

/// The default ServiceCIDR: the ranges of the configuration, to which a second one may be added later.
async fn service_range(shared: &Arc<Shared>) -> Result<(), Status> {
    const NAME: &str = "kubernetes";
    let cidrs: Vec<Value> = shared.config.service_cidrs.iter().map(|c| c.to_string().into()).collect();
    let wanted = json!({"metadata": {"name": NAME}, "spec": {"cidrs": cidrs.clone()}});
    ensure(shared, NETWORKING, "servicecidrs", "", NAME, wanted).await?;
    let Some(existing) = shared.find(NETWORKING, "servicecidrs", "", NAME).await? else { return Ok(()) };
    let existing = existing.document();
    let has = existing.array_at(&["spec", "cidrs"]);
    let call = own_call(shared, Verb::Update, NETWORKING, "servicecidrs", "", NAME)?;
    if has == cidrs && existing.array_at(&["status", "conditions"]).is_empty() {
        let ready = json!([{"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": meta::time::seconds(meta::time::now())}]);
        set(&call, Endpoint::Status, &[(&["status", "conditions"], &ready)]).await?;
    } else if has.len() == 1 && cidrs.len() == 2 && has == &cidrs[..1] {
        set(&call, Endpoint::Main, &[(&["spec", "cidrs"], &cidrs.into())]).await?;
    } else if has != cidrs {
        let message = format!(
            "The default ServiceCIDR {} does not match the controller flag configurations {}",
            Value::from(has.to_vec()),
            Value::from(cidrs)
        );
        repair::Words::new(&existing, "KubernetesDefaultServiceCIDRInconsistent", message).say(shared).await;
    }
    Ok(())
}

/// A call of the server's own.
pub fn own_call(
    shared: &Arc<Shared>,
    verb: Verb,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Call, Status> {
    let served = shared.registry.stored(group, resource).ok_or_else(Status::unknown_resource)?;
    Ok(own_call_on(shared, verb, served, namespace, name))
}

/// A call of the server's own, for a resource at hand.
pub fn own_call_on(shared: &Arc<Shared>, verb: Verb, served: Arc<Served>, namespace: &str, name: &str) -> Call {
    let path = ResourcePath {
        group: served.info.group.to_string(),
        version: served.info.version.to_string(),
        namespace: namespace.into(),
        resource: served.info.plural.to_string(),
        name: if verb == Verb::Create { String::new() } else { name.into() },
        subresource: String::new(),
        rest: String::new(),
        watch_prefix: false,
    };
    let user = User::loopback();
    debug_assert!(path.verb(&Method::GET, &Query::default()).is_some());
    Call::new(shared.clone(), user, verb, path, Query::default(), HeaderMap::new(), Accept::JSON, served, true)
}

pub async fn ensure(
    shared: &Arc<Shared>,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    mut document: Value,
) -> Result<(), Status> {
    document.set(&["metadata", "name"], name);
    if !namespace.is_empty() {
        document.set(&["metadata", "namespace"], namespace);
    }
    reconcile(shared, group, resource, document, &[], true).await
}

async fn kubernetes_service(shared: &Arc<Shared>) -> Result<(), Status> {
    let Some(ip) = shared.services.first_ip() else { return Ok(()) };
    let port = masters::port(shared).unwrap_or(443);
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": ip.to_string(), "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]},
    });
    ensure(shared, "", "services", "default", "kubernetes", service).await
}

/// Makes an object, or sets these members of it where they differ; unless they are `fixed`, only while the object's
/// annotation asks for that.
pub async fn reconcile(
    shared: &Arc<Shared>,
    group: &str,
    resource: &str,
    mut wanted: Value,
    members: &[&str],
    fixed: bool,
) -> Result<(), Status> {
    let call = prepare(shared, group, resource, &mut wanted)?;
    let (namespace, name) = (metadata::namespace(&wanted).to_string(), metadata::name(&wanted).to_string());
    let existing = match call.served.cache.get(&call.served.key(&namespace, &name)) {
        Some(existing) => existing,
        None => match write::create(&call, wanted.clone(), &WriteOptions::own(MANAGER)).await {
            Ok(_) => return Ok(()),
            // Another server may have been faster; of a service it has the address too, which is what the error is about then.
            Err(status) => shared.find(group, resource, &namespace, &name).await?.ok_or(status)?,
        },
    };
    let existing = existing.document();
    let kept = fixed || existing["metadata"]["annotations"][defaults::AUTO_UPDATE].as_str() == Some("true");
    if kept { set_members(shared, group, resource, &existing, &wanted, members, None).await } else { Ok(()) }
}

/// As `reconcile`, of what the caller has seen in the store, if it was there: a change since then is a conflict.
pub async fn reconcile_seen(
    shared: &Arc<Shared>,
    group: &str,
    resource: &str,
    seen: Option<Arc<Object>>,
    mut wanted: Value,
    members: &[&str],
) -> Result<(), Status> {
    let call = prepare(shared, group, resource, &mut wanted)?;
    let Some(seen) = seen else {
        return write::create(&call, wanted, &WriteOptions::own(MANAGER)).await.map(drop);
    };
    let version = Value::from(seen.rv.to_string());
    set_members(shared, group, resource, &seen.document(), &wanted, members, Some(&version)).await
}

/// Sets those members where they differ; in this version of the object alone, if one is given.
async fn set_members(
    shared: &Arc<Shared>,
    group: &str,
    resource: &str,
    existing: &Value,
    wanted: &Value,
    members: &[&str],
    version: Option<&Value>,
) -> Result<(), Status> {
    if members.iter().all(|m| existing[*m] == wanted[*m]) {
        return Ok(());
    }
    let (namespace, name) = (metadata::namespace(wanted), metadata::name(wanted));
    let call = own_call(shared, Verb::Update, group, resource, namespace, name)?;
    let mut parts: Vec<(&[&str], &Value)> = members.iter().map(|m| (std::slice::from_ref(m), &wanted[*m])).collect();
    parts.extend(version.map(|version| (&["metadata", "resourceVersion"][..], version)));
    set(&call, Endpoint::Main, &parts).await
}

/// A call that makes this object, and the object as a client's would be decoded.
fn prepare(shared: &Arc<Shared>, group: &str, resource: &str, wanted: &mut Value) -> Result<Call, Status> {
    let call = own_call(shared, Verb::Create, group, resource, metadata::namespace(wanted), metadata::name(wanted))?;
    wanted.set(&["apiVersion"], call.served.api_version.as_str());
    wanted.set(&["kind"], call.served.kind.as_str());
    call.served.strip(wanted).map_err(|e| e.status(&call.served.info.version, &call.served.kind))?;
    call.served.defaults(wanted);
    Ok(call)
}

/// Sets parts of an object that is there.
async fn set(call: &Call, endpoint: Endpoint, parts: &[(&[&str], &Value)]) -> Result<(), Status> {
    let make = |old: &Value| {
        let mut new = old.clone();
        parts.iter().for_each(|(path, value)| new.set(path, *value));
        Ok(new)
    };
    write::update(call, endpoint, &WriteOptions::own(MANAGER), make).await.map(drop)
}
