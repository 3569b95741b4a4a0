//! Each component alone: `knarr apiserver`, `scheduler`, ... against any API server that a kubeconfig names.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use client::{Informers, leader};
use pki::Pki;
use tokio_util::sync::CancellationToken;

use crate::flags::{ApiAccess, Apiserver, ControllerManager, Dns, Kubelet, Proxy, Scheduler};
use crate::host;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::up::{ServerOptions, admin_kubeconfig, serve};

pub async fn apiserver(flags: &Apiserver) -> Result<()> {
    let shutdown = host::shutdown_on_signal()?;
    let layout = Layout::create(&flags.data_dir)?;
    let _lock = Lock::take(&layout.lock_file())?;
    let ended = serve_alone(flags, &layout, shutdown).await;
    // A component alone puts nothing there; a directory that holds something is somebody's and stays.
    let _ = std::fs::remove_dir(layout.run_dir());
    ended
}

async fn serve_alone(flags: &Apiserver, layout: &Layout, shutdown: CancellationToken) -> Result<()> {
    let pki = Pki::open(&layout.pki_dir())?;
    let advertise = flags.advertise_address.map_or_else(host::address, Ok)?;
    match flags.service_cidr[..] {
        [_] => {}
        [one, two] if one.family() != two.family() => {}
        _ => bail!("--service-cidr takes one range, or one of IPv4 and one of IPv6"),
    }
    let (first, last) = flags.node_port_range;
    let options = ServerOptions {
        listen: SocketAddr::new(flags.bind_address, flags.port),
        advertise,
        names: flags.tls_san.clone(),
        node_name: host::node_name(),
        cluster_domain: "cluster.local".into(),
        service_cidrs: flags.service_cidr.clone(),
        node_ports: first..=last,
        etcd: flags.etcd.clone(),
        audit: flags.audit.clone(),
        apis: flags.apis.clone(),
        admission: flags.admission.clone(),
        tracing: flags.tracing_config_file.clone(),
    };
    let server = serve(layout, &pki, options).await?;
    let port = server.addr().context("the API server listens nowhere")?.port();
    let reachable = if flags.bind_address.is_loopback() { flags.bind_address } else { advertise };
    let url = format!("https://{}", SocketAddr::new(reachable, port));
    let path = flags.kubeconfig.clone().unwrap_or_else(|| layout.admin_kubeconfig());
    pki::files::write_private(&path, &admin_kubeconfig(&pki, &url)?)?;
    Progress::begin().line(&format!("The API server listens at {url}. Next:\n  export KUBECONFIG={}", path.display()));
    shutdown.cancelled().await;
    server.shutdown().await;
    Ok(())
}

/// A client, the informers over it, and what ends both.
struct Connection {
    client: kube::Client,
    informers: Informers,
    shutdown: CancellationToken,
}

async fn connect(api: &ApiAccess) -> Result<Connection> {
    let shutdown = host::shutdown_on_signal()?;
    let client = client::config::client(api.kubeconfig.as_deref()).await?;
    let informers = Informers::new(client.clone(), shutdown.clone());
    Ok(Connection { client, informers, shutdown })
}

/// Runs `component` at once, or, with `elect`, as soon as and for as long as this process holds the lease `name`.
async fn as_leader<F, Fut>(connection: Connection, name: &str, elect: bool, component: F) -> Result<()>
where
    F: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    if !elect {
        return component(connection).await;
    }
    // Two on one machine must not take each other for themselves.
    let identity = format!("{}_{}", host::node_name(), std::process::id());
    let config = leader::Config::new("kube-system", name, identity);
    let (client, shutdown) = (connection.client.clone(), connection.shutdown.clone());
    let outcome = std::sync::Arc::new(std::sync::Mutex::new(Ok(())));
    let result = outcome.clone();
    leader::run(config, client, shutdown, move |until| async move {
        let ended = component(Connection { shutdown: until, ..connection }).await;
        if let Ok(mut slot) = result.lock() {
            *slot = ended;
        }
    })
    .await?;
    let mut ended = outcome.lock().map_err(|_| anyhow::anyhow!("the component panicked"))?;
    std::mem::replace(&mut *ended, Ok(()))
}

pub async fn controller_manager(flags: &ControllerManager) -> Result<()> {
    let mut config = controllers::Config::default();
    if let Some(path) = &flags.root_ca_file {
        config.root_ca_pem = read(path)?;
    }
    config.cluster_cidrs = flags.cluster_cidr.iter().map(ToString::to_string).collect();
    let connection = connect(&flags.api).await?;
    as_leader(connection, "kube-controller-manager", flags.leader_elect, |c| async move {
        controllers::run(config, c.client, c.informers, c.shutdown).await?;
        Ok(())
    })
    .await
}

pub async fn scheduler(flags: &Scheduler) -> Result<()> {
    let config = scheduler::Config { scheduler_name: flags.scheduler_name.clone(), ..scheduler::Config::default() };
    let connection = connect(&flags.api).await?;
    as_leader(connection, "kube-scheduler", flags.leader_elect, |c| async move {
        scheduler::run(config, c.client, c.informers, c.shutdown).await?;
        Ok(())
    })
    .await
}

pub async fn kubelet(flags: &Kubelet) -> Result<()> {
    host::require_root("knarr kubelet")?;
    let node_name = flags.hostname_override.clone().unwrap_or_else(host::node_name);
    let node_ip: IpAddr = flags.node_ip.map_or_else(host::address, Ok)?;
    let config = kubelet::Config {
        cri_endpoint: flags.container_runtime_endpoint.clone(),
        node_ips: vec![node_ip],
        cluster_dns: flags.cluster_dns.clone(),
        cluster_domain: flags.cluster_domain.clone(),
        listen: flags.listen,
        server_cert_pem: read(&flags.tls_cert_file)?,
        server_key_pem: read(&flags.tls_private_key_file)?,
        client_ca_pem: read(&flags.client_ca_file)?,
        cgroup_root: flags.cgroup_root.clone(),
        max_pods: flags.max_pods,
        ..kubelet::Config::new(node_name, flags.root_dir.clone())
    };
    let c = connect(&flags.api).await?;
    kubelet::run(config, c.client, c.informers, c.shutdown).await?;
    Ok(())
}

pub async fn proxy(flags: &Proxy) -> Result<()> {
    host::require_root("knarr proxy")?;
    if flags.cleanup {
        proxy::cleanup(&flags.table).await?;
        return Ok(());
    }
    let config = proxy::Config {
        table: flags.table.clone(),
        node_name: flags.hostname_override.clone().unwrap_or_else(host::node_name),
        pod_cidrs: flags.cluster_cidr.into_iter().collect(),
        ..proxy::Config::default()
    };
    let c = connect(&flags.api).await?;
    proxy::run(config, c.client, c.informers, c.shutdown).await?;
    Ok(())
}

pub async fn dns(flags: &Dns) -> Result<()> {
    let config = dns::Config {
        listen: vec![flags.listen],
        cluster_domain: flags.cluster_domain.clone(),
        ..dns::Config::default()
    };
    let server = dns::Server::bind(config).await?;
    Progress::begin().line(&format!("The DNS server answers at {}", server.addr()));
    let c = connect(&flags.api).await?;
    server.run(c.client, c.informers, c.shutdown).await?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
