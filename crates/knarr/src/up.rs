//! `knarr up`: one node, every component, one process.
//!
//! Order: keys → containerd beside the store and API server → controllers, scheduler, proxy, DNS, kubelet, all at once,
//! each through the Kubernetes API → wait until the node is Ready and DNS answers. Components get an in-process
//! transport with an identity of their own; nothing else is shared but the informers' caches.

mod bootstrap;
pub mod containerd;
mod detach;
mod network;
mod pause;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use apiserver::audit::{Auditor, Log, Policy, Settings as LogSettings};
use apiserver::trace::{Settings as TraceSettings, Tracer};
use apiserver::{AdmissionSettings, Server, User};
use client::Informers;
use containerd::Containerd;
use k8s_openapi::api::core::v1::Node;
use pki::{CertificateRequest, Pki, Usage};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::flags::{AdmissionFlags, ApiFlags, AuditFlags, EtcdFlags, Up};
use crate::host;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::progress::{Progress, READY_MARK};
use crate::settings::Settings;

/// `knarr up --detach`.
pub fn detached(flags: &Up) -> Result<()> {
    host::require_root("knarr up")?;
    let layout = Layout::create(&flags.data_dir)?;
    detach::run(&layout, std::env::args_os().skip(1))
}

/// `knarr up`: returns when a signal ends it, or with why the cluster did not come up.
pub async fn run(flags: &Up) -> Result<()> {
    host::require_root("knarr up")?;
    let shutdown = host::shutdown_on_signal()?;
    let progress = Progress::begin();
    let layout = Layout::create(&flags.data_dir)?;
    let _lock = Lock::take(&layout.lock_file())?;
    progress.line(&format!(
        "Knarr {}, Kubernetes v1.37, data in {}",
        env!("CARGO_PKG_VERSION"),
        layout.data_dir.display()
    ));
    let plan = Plan::resolve(flags, layout)?;
    let mut cluster = Cluster { parts: JoinSet::new(), shutdown: shutdown.clone(), server: None };
    let limit = Duration::from_secs(flags.timeout);
    let came_up = tokio::select! {
        result = tokio::time::timeout(limit, bring_up(&plan, &mut cluster, &progress)) => match result {
            Ok(result) => result,
            Err(_) => Err(anyhow!("the cluster is not ready after {} s", flags.timeout)),
        },
        _ = shutdown.cancelled() => Err(anyhow!("interrupted")),
    };
    let result = match came_up {
        Ok(()) => {
            announce(&plan, &progress);
            cluster.watch_over().await
        }
        Err(error) => Err(error),
    };
    cluster.end().await;
    if result.is_ok() {
        progress.line("Knarr stopped. Its pods run on: `knarr up` finds them again, `knarr down` stops them.");
    }
    result
}

/// Everything decided before anything is started.
struct Plan {
    layout: Layout,
    settings: Settings,
    node_name: String,
    node_ip: IpAddr,
    kubeconfig: PathBuf,
    flags: Up,
}

impl Plan {
    fn resolve(flags: &Up, layout: Layout) -> Result<Self> {
        let settings = Settings::load_or_choose(&layout, flags.pod_cidr, flags.service_cidr)?;
        if let Some(gate) = flags.apis.feature_gates.turned_on().next() {
            bail!(
                "feature gate {gate}: Knarr has the API behind it, but neither a scheduler nor controllers that act on it; \
                 leave it out here, or run `knarr apiserver` beside components that do"
            );
        }
        Ok(Plan {
            node_name: flags.node_name.clone().unwrap_or_else(host::node_name),
            node_ip: flags.node_ip.map_or_else(host::address, Ok)?,
            kubeconfig: flags.kubeconfig.clone().unwrap_or_else(|| layout.admin_kubeconfig()),
            flags: flags.clone(),
            settings,
            layout,
        })
    }
}

/// The running parts. A part that ends before it is told to has failed.
struct Cluster {
    parts: JoinSet<(&'static str, Result<()>)>,
    shutdown: CancellationToken,
    server: Option<Server>,
}

impl Cluster {
    fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.parts.spawn(async move { (name, part.await.map_err(|e| anyhow!("{e}"))) });
    }

    /// The first part that ended by itself.
    async fn first_failure(&mut self) -> anyhow::Error {
        match self.parts.join_next().await {
            Some(Ok((name, Err(error)))) => error.context(format!("the {name} failed")),
            Some(Ok((name, Ok(())))) => anyhow!("the {name} ended"),
            Some(Err(error)) => anyhow!("a part of the cluster failed: {error}"),
            None => anyhow!("nothing runs"),
        }
    }

    /// Until a signal comes (Ok) or a part fails.
    async fn watch_over(&mut self) -> Result<()> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            _ = shutdown.cancelled() => Ok(()),
            error = self.first_failure() => if shutdown.is_cancelled() { Ok(()) } else { Err(error) },
        }
    }

    /// Ends every part, the API server last, since the others write to it while they end.
    async fn end(mut self) {
        self.shutdown.cancel();
        let all = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), all).await.is_err() {
            tracing::warn!("some parts do not end; leaving them");
            self.parts.abort_all();
        }
        if let Some(server) = self.server {
            server.shutdown().await;
        }
    }
}

async fn bring_up(plan: &Plan, cluster: &mut Cluster, progress: &Progress) -> Result<()> {
    let began = Instant::now();
    let pki = Pki::open(&plan.layout.pki_dir())?;
    progress.done("keys and certificates", &plan.layout.pki_dir().display().to_string(), began.elapsed());

    let (containerd, server) = tokio::try_join!(start_runtime(plan, progress), start_server(plan, &pki, progress))?;
    let supervised = cluster.shutdown.clone();
    cluster.spawn("container runtime", async move {
        containerd.supervise(supervised).await;
        Ok::<_, anyhow::Error>(())
    });
    let address = server.addr().context("the API server listens nowhere")?;
    write_admin_kubeconfig(plan, &pki, address.port())?;
    let began = Instant::now();
    let api = Api { server: &server, informers: None };
    let ready = start_components(plan, &pki, cluster, api).await?;
    cluster.server = Some(server);
    progress.done("components", "controllers, scheduler, kubelet, proxy, DNS", began.elapsed());

    let waits = async {
        tokio::try_join!(node_ready(plan, &ready.informers, progress), dns_answers(plan, &ready, progress))?;
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        result = waits => result,
        error = cluster.first_failure() => Err(error),
    }
}

async fn start_runtime(plan: &Plan, progress: &Progress) -> Result<Containerd> {
    let began = Instant::now();
    let containerd = Containerd::start(&plan.layout).await?;
    pause::import(&plan.layout).await?;
    progress.done("container runtime", &plan.layout.containerd_socket().display().to_string(), began.elapsed());
    Ok(containerd)
}

async fn start_server(plan: &Plan, pki: &Pki, progress: &Progress) -> Result<Server> {
    let began = Instant::now();
    let (first, last) = plan.flags.node_port_range;
    let options = ServerOptions {
        listen: SocketAddr::new(IpAddr::from([0, 0, 0, 0]), plan.flags.api_port),
        advertise: plan.node_ip,
        names: plan.flags.tls_san.clone(),
        node_name: plan.node_name.clone(),
        cluster_domain: plan.flags.cluster_domain.clone(),
        service_cidrs: vec![plan.settings.service_cidr],
        node_ports: first..=last,
        etcd: plan.flags.etcd.clone(),
        audit: plan.flags.audit.clone(),
        apis: plan.flags.apis.clone(),
        admission: plan.flags.admission.clone(),
        tracing: plan.flags.tracing_config_file.clone(),
    };
    let server = serve(&plan.layout, pki, options).await?;
    let port = server.addr().map_or(0, |a| a.port());
    progress.done("API server", &format!("https://{}", SocketAddr::new(plan.node_ip, port)), began.elapsed());
    Ok(server)
}

/// What an API server is told, alone or in `knarr up`.
pub struct ServerOptions {
    pub listen: SocketAddr,
    pub advertise: IpAddr,
    pub names: Vec<String>,
    pub node_name: String,
    pub cluster_domain: String,
    pub service_cidrs: Vec<meta::cidr::Cidr>,
    pub node_ports: std::ops::RangeInclusive<u16>,
    pub etcd: EtcdFlags,
    pub audit: AuditFlags,
    pub apis: ApiFlags,
    pub admission: AdmissionFlags,
    /// A TracingConfiguration.
    pub tracing: Option<PathBuf>,
}

/// Opens the store and serves it.
pub async fn serve(layout: &Layout, pki: &Pki, options: ServerOptions) -> Result<Server> {
    options.apis.runtime_config.check(&options.apis.feature_gates)?;
    let store = open_store(layout, &options.etcd)?;
    let issuer = format!("https://kubernetes.default.svc.{}", options.cluster_domain);
    let key = pki.service_account_key_pem.as_str();
    let tokens = apiserver::config::Tokens {
        signer: Arc::new(pki::tokens::Signer::from_pem(key, &issuer)?),
        verifier: Arc::new(pki::tokens::Verifier::from_pems(&[key], &issuer)?),
        audiences: vec![issuer],
    };
    let mut dns_names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).to_vec();
    dns_names.push(format!("kubernetes.default.svc.{}", options.cluster_domain));
    dns_names.push(options.node_name);
    let mut ips = vec![options.advertise, IpAddr::from([127, 0, 0, 1]), "::1".parse()?];
    ips.extend(options.service_cidrs.first().map(|cidr| cidr.nth(1)));
    for name in options.names {
        match name.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => dns_names.push(name),
        }
    }
    let tls = pki.certificate("apiserver", &CertificateRequest::server("kube-apiserver", &dns_names, &ips))?;
    let to_kubelet = CertificateRequest::client("kube-apiserver-kubelet-client", Some("system:masters"));
    let config = apiserver::Config {
        listen: Some(options.listen),
        advertise: options.advertise,
        tls: Some(tls),
        client_ca_pem: Some(pki.ca.certificate_pem().into()),
        tokens: Some(tokens),
        service_cidrs: options.service_cidrs,
        node_ports: options.node_ports,
        kubelet_client: Some(apiserver::config::KubeletClient {
            identity: pki.certificate("apiserver-kubelet-client", &to_kubelet)?,
            ca_pem: pki.ca.certificate_pem().into(),
        }),
        front_proxy: Some(apiserver::config::FrontProxy {
            identity: pki.front_proxy_client()?,
            ca_pem: pki.front_proxy_ca.certificate_pem().into(),
        }),
        runtime_config: options.apis.runtime_config,
        feature_gates: options.apis.feature_gates,
        admission: admission(&options.admission)?,
        audit: audit(&options.audit)?,
        tracer: options.tracing.as_deref().map(tracer).transpose()?,
        ..apiserver::Config::new(store)
    };
    Ok(Server::start(config).await?)
}

fn admission(flags: &AdmissionFlags) -> Result<AdmissionSettings> {
    let mut settings = AdmissionSettings::default();
    settings
        .switch(&flags.enable_admission_plugins, &flags.disable_admission_plugins)
        .map_err(|why| anyhow!("{why}"))?;
    if let Some(file) = &flags.admission_control_config_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        // Relative to the file.
        let read = |path: &str| {
            let path = file.parent().unwrap_or(Path::new("")).join(path);
            std::fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))
        };
        let wrong = |why: String| anyhow!("cannot use the admission configuration {}: {why}", file.display());
        settings.configure(&text, read).map_err(wrong)?;
    }
    Ok(settings)
}

fn audit(flags: &AuditFlags) -> Result<Option<Arc<Auditor>>> {
    let (Some(policy), Some(path)) = (&flags.audit_policy_file, &flags.audit_log_path) else { return Ok(None) };
    let text = std::fs::read_to_string(policy).with_context(|| format!("cannot read {}", policy.display()))?;
    let policy = Policy::parse(&text)
        .map_err(|why| anyhow::anyhow!("cannot use the audit policy {}: {why}", policy.display()))?;
    let log = Log::open(LogSettings {
        path: path.clone(),
        max_size_mib: flags.audit_log_maxsize,
        max_backups: flags.audit_log_maxbackup,
        max_age_days: flags.audit_log_maxage,
    });
    let log = log.with_context(|| format!("cannot open the audit log {}", path.display()))?;
    Ok(Some(Arc::new(Auditor::new(policy, log))))
}

fn tracer(file: &Path) -> Result<Arc<Tracer>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let wrong = |why: String| anyhow!("cannot use the tracing configuration {}: {why}", file.display());
    let settings = TraceSettings::parse(&text).map_err(wrong)?;
    Ok(Arc::new(Tracer::new(&settings).map_err(|e| wrong(e.to_string()))?))
}

fn open_store(layout: &Layout, flags: &EtcdFlags) -> Result<Arc<dyn store::Store>> {
    if flags.etcd_servers.is_empty() {
        let dir = layout.store_dir();
        let store = store::open(&dir, store::Options::default());
        return Ok(store.with_context(|| format!("cannot open the store in {}", dir.display()))?);
    }
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {} for etcd", path.display()));
    let identity = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
        (Some(certificate), Some(key)) => {
            Some(pki::Issued { certificate_pem: read(certificate)?, key_pem: read(key)? })
        }
        _ => None,
    };
    let trust = |ca: &PathBuf| anyhow::Ok(Arc::new(pki::tls::client(&read(ca)?, identity.as_ref())?));
    Ok(store::Etcd::new(store::EtcdOptions {
        servers: flags.etcd_servers.clone(),
        tls: flags.etcd_cafile.as_ref().map(trust).transpose()?,
        prefix: flags.etcd_prefix.clone(),
        ..store::EtcdOptions::default()
    })?)
}

/// The admin's kubeconfig, for this machine: by loopback, so that it works whatever the network does.
pub fn admin_kubeconfig(pki: &Pki, server: &str) -> Result<String> {
    let request = CertificateRequest::client("kubernetes-admin", Some("system:masters"));
    let identity = pki.certificate("admin", &request)?;
    Ok(pki::kubeconfig::render("knarr", server, pki.ca.certificate_pem(), "kubernetes-admin", &identity))
}

fn write_admin_kubeconfig(plan: &Plan, pki: &Pki, port: u16) -> Result<()> {
    let server = format!("https://{}", SocketAddr::new(plan.node_ip, port));
    pki::files::write_private(&plan.kubeconfig, &admin_kubeconfig(pki, &server)?)?;
    Ok(())
}

/// The way to the API server for components of this process.
struct Api<'a> {
    server: &'a Server,
    informers: Option<Informers>,
}

impl Api<'_> {
    fn client(&self, name: &str, group: Option<&str>) -> kube::Client {
        let user = User::new(name, group);
        client::local::client(self.server.local(user), "default")
    }
}

/// What the waits need.
struct Started {
    informers: Informers,
    dns: SocketAddr,
}

async fn start_components(plan: &Plan, pki: &Pki, cluster: &mut Cluster, mut api: Api<'_>) -> Result<Started> {
    let shutdown = cluster.shutdown.clone();
    let informers = Informers::new(api.client("system:knarr", Some("system:masters")), shutdown.clone());
    api.informers = Some(informers.clone());

    let config = controllers::Config {
        cluster_cidrs: vec![plan.settings.pod_cidr.to_string()],
        root_ca_pem: pki.ca.certificate_pem().into(),
        ..controllers::Config::default()
    };
    let client = api.client("system:kube-controller-manager", None);
    cluster.spawn("controllers", controllers::run(config, client, informers.clone(), shutdown.clone()));

    let client = api.client("system:kube-scheduler", None);
    let config = scheduler::Config::default();
    cluster.spawn("scheduler", scheduler::run(config, client, informers.clone(), shutdown.clone()));

    let client = api.client("system:kube-proxy", None);
    let config = proxy_config(plan);
    cluster.spawn("proxy", proxy::run(config, client, informers.clone(), shutdown.clone()));

    let dns_config = dns::Config {
        listen: vec![SocketAddr::new(plan.node_ip, plan.flags.dns_port)],
        cluster_domain: plan.flags.cluster_domain.clone(),
        ..dns::Config::default()
    };
    let server = dns::Server::bind(dns_config).await?;
    let dns = server.addr();
    let client = api.client("system:kube-dns", None);
    cluster.spawn("DNS server", server.run(client, informers.clone(), shutdown.clone()));

    let client = api.client(&format!("system:node:{}", plan.node_name), Some("system:nodes"));
    let config = kubelet_config(plan, pki)?;
    // The kubelet sees its node's pods only, as one that runs alone does.
    let own = Informers::new(client.clone(), shutdown.clone());
    cluster.spawn("kubelet", kubelet::run(config, client, own, shutdown.clone()));

    let (layout, node_name, nodes) = (plan.layout.clone(), plan.node_name.clone(), informers.clone());
    let until = shutdown.clone();
    cluster.spawn("pod network", async move {
        network::configure(&layout, &nodes, &node_name, &until).await?;
        until.cancelled().await;
        Ok::<_, anyhow::Error>(())
    });
    let bootstrap = api.client("system:knarr", Some("system:masters"));
    bootstrap::dns_service(&bootstrap, plan.settings.dns_ip(), dns).await?;
    Ok(Started { informers, dns })
}

fn proxy_config(plan: &Plan) -> proxy::Config {
    proxy::Config {
        table: plan.layout.nft_table(),
        node_name: plan.node_name.clone(),
        pod_cidrs: vec![plan.settings.pod_cidr],
        ..proxy::Config::default()
    }
}

/// The kubelet's configuration as far as it follows from the layout: enough to find its pods in the runtime.
pub fn kubelet_paths(layout: &Layout, node_name: &str) -> kubelet::Config {
    kubelet::Config {
        cri_endpoint: format!("unix://{}", layout.containerd_socket().display()),
        owner: layout.id.clone(),
        pod_logs_dir: layout.pod_logs_dir(),
        cgroup_root: layout.cgroup_root(),
        ..kubelet::Config::new(node_name, layout.kubelet_dir())
    }
}

fn kubelet_config(plan: &Plan, pki: &Pki) -> Result<kubelet::Config> {
    let request = CertificateRequest {
        common_name: format!("system:node:{}", plan.node_name),
        organization: Some("system:nodes".into()),
        dns_names: vec![plan.node_name.clone(), "localhost".into()],
        ips: vec![plan.node_ip, IpAddr::from([127, 0, 0, 1])],
        usage: Usage::ServerAndClient,
        days: 365,
    };
    let identity = pki.certificate("kubelet", &request)?;
    Ok(kubelet::Config {
        node_ips: vec![plan.node_ip],
        cluster_dns: vec![plan.settings.dns_ip()],
        cluster_domain: plan.flags.cluster_domain.clone(),
        listen: SocketAddr::new(IpAddr::from([0, 0, 0, 0]), plan.flags.kubelet_port),
        server_cert_pem: identity.certificate_pem,
        server_key_pem: identity.key_pem,
        client_ca_pem: pki.ca.certificate_pem().into(),
        ..kubelet_paths(&plan.layout, &plan.node_name)
    })
}

async fn node_ready(plan: &Plan, informers: &Informers, progress: &Progress) -> Result<()> {
    let nodes = informers.of::<Node>();
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    while !nodes.get("", &plan.node_name).is_some_and(|node| ready(&node)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    progress.done("node Ready", &plan.node_name, progress.elapsed());
    Ok(())
}

/// Asks the DNS server for the `kubernetes` service, as a pod would, by the service's address.
async fn dns_answers(plan: &Plan, started: &Started, progress: &Progress) -> Result<()> {
    let name = format!("kubernetes.default.svc.{}", plan.flags.cluster_domain);
    let service = SocketAddr::new(plan.settings.dns_ip(), 53);
    for server in [started.dns, service] {
        while !dns_has(server, &name).await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    progress.done("DNS answers", &format!("at {service}"), progress.elapsed());
    Ok(())
}

/// Whether `server` answers an A query for `name` with at least one record. Source: RFC 1035, section 4.
async fn dns_has(server: SocketAddr, name: &str) -> Result<bool> {
    let socket = tokio::net::UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).await?;
    socket.connect(server).await?;
    let mut query = vec![0x4b, 0x6e, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send(&query).await?;
    let mut answer = [0; 512];
    let length = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut answer)).await??;
    if length < 12 || answer[..2] != query[..2] {
        bail!("not an answer to the question");
    }
    Ok(answer[3] & 0x0f == 0 && (answer[6], answer[7]) != (0, 0))
}

fn announce(plan: &Plan, progress: &Progress) {
    let seconds = progress.elapsed().as_secs_f64();
    progress.line(&format!("Ready in {seconds:.2} s. Next:"));
    progress.line(&format!("  export KUBECONFIG={}", plan.kubeconfig.display()));
    progress.line("  kubectl get nodes");
    if std::env::var_os("KNARR_DETACHED").is_some() {
        progress.line(READY_MARK);
    }
}
