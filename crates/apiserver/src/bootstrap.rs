//! What every cluster has from the first moment: default namespaces, priority classes, the range of service addresses, and
//! the `kubernetes` service with its endpoints.
//!
//! Writes through the request path's own functions, as any client would. Invariant: what exists is left as it is, except
//! for the endpoints of `kubernetes`, which always lead to this server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use meta::{Reason, Status, Value, json};

use crate::accept::Accept;
use crate::admission::priority::HIGHEST_USER_VALUE;
use crate::aggregate;
use crate::call::Call;
use crate::flow::defaults;
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

/// Tells the pools of IPs and ports what stored services have.
pub fn repair(shared: &Shared) {
    let Some(services) = shared.registry.stored("", "services") else { return };
    let all = services.cache.snapshot("", "", 0, false, |_| true).objects;
    for clash in shared.services.fill(&all) {
        tracing::warn!("{clash} is used twice, or outside of the configured range; recreate one of the services");
    }
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
    let range =
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [shared.config.service_cidr.to_string()]}});
    ensure(shared, "networking.k8s.io", "servicecidrs", "", "kubernetes", range).await?;
    let local = aggregate::local_documents();
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

/// Looks after the defaults until the server stops, then takes this server out of the endpoints.
pub async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(status) = create_defaults(&shared).await {
            tracing::warn!("cannot keep the default objects: {status}");
        }
    }
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

async fn ensure(
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
    let port = match shared.config.advertise_port {
        0 => shared.address.get().map_or(0, |a| a.port()),
        port => port,
    };
    let ip = shared.services.first_ip().to_string();
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": if port == 0 { 443 } else { port }}]},
    });
    ensure(shared, "", "services", "default", "kubernetes", service).await?;
    if port == 0 {
        // Nobody outside of this process can reach us: there is no endpoint to name.
        return Ok(());
    }
    let address = shared.config.advertise.to_string();
    let subsets =
        json!([{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]);
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, "subsets": subsets,
    });
    reconcile(shared, "", "endpoints", endpoints, &["subsets"], true).await?;
    let family = match shared.config.advertise {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    reconcile(shared, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"], true).await
}

/// Makes an object, or sets these members of it where they differ; unless they are `fixed`, only while the object's
/// annotation asks for that.
async fn reconcile(
    shared: &Arc<Shared>,
    group: &str,
    resource: &str,
    mut wanted: Value,
    members: &[&str],
    fixed: bool,
) -> Result<(), Status> {
    let part = |member| wanted.str_at(&["metadata", member]).unwrap_or_default().to_string();
    let (namespace, name) = (part("namespace"), part("name"));
    let call = own_call(shared, Verb::Create, group, resource, &namespace, &name)?;
    wanted.set(&["apiVersion"], call.served.api_version.as_str());
    wanted.set(&["kind"], call.served.kind.as_str());
    call.served.strip(&mut wanted).map_err(|e| e.status(&call.served.info.version, &call.served.kind))?;
    call.served.defaults(&mut wanted);
    let mut existing = call.served.cache.get(&call.served.key(&namespace, &name));
    if existing.is_none() {
        match write::create(&call, wanted.clone(), &WriteOptions::own(MANAGER)).await {
            // Another server was faster than our cache.
            Err(status) if status.reason == Reason::AlreadyExists => {
                existing = shared.find(group, resource, &namespace, &name).await?;
            }
            made => return made.map(drop),
        }
    }
    let Some(existing) = existing.map(|existing| existing.document()) else { return Ok(()) };
    let kept = fixed || existing["metadata"]["annotations"][defaults::AUTO_UPDATE].as_str() == Some("true");
    if !kept || members.iter().all(|m| existing[*m] == wanted[*m]) {
        return Ok(());
    }
    let call = own_call(shared, Verb::Update, group, resource, &namespace, &name)?;
    let set = |old: &Value| {
        let mut new = old.clone();
        members.iter().for_each(|member| new.set(&[*member], &wanted[*member]));
        Ok(new)
    };
    write::update(&call, Endpoint::Main, &WriteOptions::own(MANAGER), set).await.map(drop)
}
