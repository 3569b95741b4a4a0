//! The command line: every command and flag, with its help. Wiring is elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use api::feature_gates::FeatureGates;
use api::runtime_config::RuntimeConfig;
use meta::cidr::Cidr;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/knarr";

/// All of Kubernetes in one small binary.
///
/// `knarr up` brings up a one-node cluster: API server, store, controllers, scheduler, kubelet, service proxy and DNS in
/// one process. Use it with your own kubectl.
#[derive(Parser)]
#[command(
    name = "knarr",
    version,
    after_help = "Examples:
  knarr up                          a cluster in the foreground; Ctrl-C ends Knarr, pods go on
  knarr up --detach                 the same in the background; returns when the node is Ready
  export KUBECONFIG=/var/lib/knarr/admin.kubeconfig
  kubectl get nodes                 use it
  knarr down                        stop Knarr and its pods; objects stay
  knarr up --data-dir /tmp/two --api-port 0 --kubelet-port 0    a second cluster beside it"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// What to log, as `LEVEL` or `CRATE=LEVEL,...`: error, warn, info, debug, trace
    #[arg(long, global = true, env = "KNARR_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
    /// How to log: lines for people, or an object of JSON each
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub logging_format: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Bring up a one-node cluster
    Up(Box<Up>),
    /// Stop a cluster and its pods; every object stays for the next `knarr up`
    Down(Down),
    /// Run only the API server with its store
    Apiserver(Box<Apiserver>),
    /// Run only the controllers, against the API server of a kubeconfig
    ControllerManager(ControllerManager),
    /// Run only the scheduler, against the API server of a kubeconfig
    Scheduler(Scheduler),
    /// Run only the node agent, against the API server of a kubeconfig and a container runtime
    Kubelet(Box<Kubelet>),
    /// Run only the service proxy, against the API server of a kubeconfig
    Proxy(Proxy),
    /// Run only the cluster's DNS server, against the API server of a kubeconfig
    Dns(Dns),
}

#[derive(Args, Clone)]
#[command(after_help = "Examples:
  knarr up                                    everything in the foreground
  knarr up --detach                           in the background; 0 once the node is Ready and DNS answers
  knarr up --data-dir /srv/k8s --kubeconfig ~/.kube/config
  knarr up --etcd-servers https://10.0.0.1:2379 --etcd-cafile ca.crt --etcd-certfile client.crt --etcd-keyfile client.key
  knarr up --data-dir /tmp/two --api-port 0 --kubelet-port 0   beside another cluster: 0 takes any free port

Needs root, and from the system: containerd, runc, CNI plugins, nftables.")]
pub struct Up {
    /// Return once the cluster is ready, and leave it running in the background
    #[arg(long, short)]
    pub detach: bool,
    /// Where all state is held
    #[arg(long, default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the admin's kubeconfig is written [default: DIR/admin.kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Port of the API server; 0 takes any free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
    /// Port of the kubelet's HTTPS server; 0 takes any free one
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// Port of the DNS server on the node's address (pods reach it at the service's port 53); 0 takes any free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub dns_port: u16,
    /// Addresses of pods [default: 10.244.0.0/16, or the next that is free]
    #[arg(long, value_name = "CIDR", value_parser = pod_range)]
    pub pod_cidr: Option<Cidr>,
    /// Addresses of services [default: 10.96.0.0/16, or the next that is free]
    #[arg(long, value_name = "CIDR", value_parser = pod_range)]
    pub service_cidr: Option<Cidr>,
    /// Ports that services of type NodePort may have
    #[arg(long, default_value = "30000-32767", value_name = "FIRST-LAST", value_parser = port_range)]
    pub node_port_range: (u16, u16),
    /// This node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// This node's address [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// A further name or address for the API server's certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// Domain of service names
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Seconds until a cluster that is not ready is given up
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub timeout: u64,
    #[command(flatten)]
    pub etcd: EtcdFlags,
    #[command(flatten)]
    pub audit: AuditFlags,
    #[command(flatten)]
    pub apis: ApiFlags,
    #[command(flatten)]
    pub admission: AdmissionFlags,
    /// What is traced and where spans are sent: a TracingConfiguration of apiserver.config.k8s.io/v1 (YAML)
    #[arg(long, value_name = "FILE", help_heading = "Traces")]
    pub tracing_config_file: Option<PathBuf>,
}

/// Where objects are kept, other than in the data directory.
#[derive(Args, Clone)]
#[command(next_help_heading = "Store")]
pub struct EtcdFlags {
    /// Keep objects in this etcd (3.4 or later): URLs of its members [default: Knarr's own store in the data directory]
    #[arg(long, value_name = "URL,URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// Authority of etcd's certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate to show to etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile", requires = "etcd_cafile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the certificate to show to etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Where in etcd the objects are
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub etcd_prefix: String,
}

/// What the API server lets be stored.
#[derive(Args, Clone)]
#[command(next_help_heading = "Admission")]
pub struct AdmissionFlags {
    /// How plugins are configured: an AdmissionConfiguration of apiserver.config.k8s.io/v1 (YAML)
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Plugins to turn on beside those that are on by default
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Plugins to turn off
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
}

/// Which APIs the API server has.
#[derive(Args, Clone)]
#[command(next_help_heading = "APIs")]
pub struct ApiFlags {
    /// Versions of built-in resources to serve or not: GROUP/VERSION=true|false, api/all, api/ga, api/beta or api/alpha
    /// [default: all settled versions (v1, v2), no others]
    #[arg(long, value_name = "NAME=BOOL,...", default_value = "", hide_default_value = true)]
    pub runtime_config: RuntimeConfig,
    /// Feature gates: upstream's defaults, and of those that are off the ones that Knarr has the API of
    #[arg(long, value_name = "NAME=BOOL,...", default_value = "", hide_default_value = true)]
    pub feature_gates: FeatureGates,
}

/// Who asked for what.
#[derive(Args, Clone)]
#[command(next_help_heading = "Audit log")]
pub struct AuditFlags {
    /// Which requests are written to the audit log, and how much of them: a Policy of audit.k8s.io/v1 (YAML)
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where the audit log is written, a JSON object a line; `-` is the standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Size at which the file is put aside and begun anew
    #[arg(long, default_value_t = 100, value_name = "MiB", value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_log_maxsize: u64,
    /// How many files put aside are kept; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub audit_log_maxbackup: usize,
    /// For how many days files put aside are kept; 0 keeps them for ever
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u64,
}

#[derive(Args)]
#[command(after_help = "Examples:
  knarr down
  knarr down --data-dir /tmp/two")]
pub struct Down {
    /// Which cluster
    #[arg(long, default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Examples:
  knarr apiserver --data-dir /tmp/api --port 0 --service-cidr 10.96.0.0/16
  kubectl --kubeconfig /tmp/api/admin.kubeconfig get namespaces
  knarr apiserver --etcd-servers https://10.0.0.1:2379,https://10.0.0.2:2379 \\
    --etcd-cafile ca.crt --etcd-certfile client.crt --etcd-keyfile client.key     several of these make one cluster

Keys and certificates are made in DIR/pki, laid out as kubeadm does; put your own there before to use them. API servers of
one etcd need the same ones: copy DIR/pki of the first to the others.")]
pub struct Apiserver {
    /// Where the store, keys and certificates are held
    #[arg(long, default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the admin's kubeconfig is written [default: DIR/admin.kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub bind_address: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub port: u16,
    /// Address that clients reach the server at [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// Addresses of services: one range, or one of each family, the default one first
    #[arg(long, alias = "service-cluster-ip-range", default_value = "10.96.0.0/16", value_name = "CIDR[,CIDR]")]
    #[arg(value_delimiter = ',', value_parser = service_range)]
    pub service_cidr: Vec<Cidr>,
    /// Ports that services of type NodePort may have
    #[arg(long, default_value = "30000-32767", value_name = "FIRST-LAST", value_parser = port_range)]
    pub node_port_range: (u16, u16),
    /// A further name or address for the certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    #[command(flatten)]
    pub etcd: EtcdFlags,
    #[command(flatten)]
    pub audit: AuditFlags,
    #[command(flatten)]
    pub apis: ApiFlags,
    #[command(flatten)]
    pub admission: AdmissionFlags,
    /// What is traced and where spans are sent: a TracingConfiguration of apiserver.config.k8s.io/v1 (YAML)
    #[arg(long, value_name = "FILE", help_heading = "Traces")]
    pub tracing_config_file: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:
  knarr controller-manager --kubeconfig controller-manager.kubeconfig --root-ca-file ca.crt --cluster-cidr 10.244.0.0/16")]
pub struct ControllerManager {
    #[command(flatten)]
    pub api: ApiAccess,
    /// Authority that pods shall trust (PEM), published in every namespace
    #[arg(long, value_name = "FILE")]
    pub root_ca_file: Option<PathBuf>,
    /// Addresses of pods, of which every node gets a part
    #[arg(long, value_name = "CIDR", value_parser = pod_range)]
    pub cluster_cidr: Option<Cidr>,
    /// Stand for election first, so that several may run
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub leader_elect: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  knarr scheduler --kubeconfig scheduler.kubeconfig")]
pub struct Scheduler {
    #[command(flatten)]
    pub api: ApiAccess,
    /// Pods whose schedulerName is this are ours
    #[arg(long, default_value = "default-scheduler", value_name = "NAME")]
    pub scheduler_name: String,
    /// Stand for election first, so that several may run
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub leader_elect: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  knarr kubelet --kubeconfig kubelet.kubeconfig --container-runtime-endpoint unix:///run/containerd/containerd.sock \\
    --tls-cert-file kubelet.crt --tls-private-key-file kubelet.key --client-ca-file ca.crt --cluster-dns 10.96.0.10")]
pub struct Kubelet {
    #[command(flatten)]
    pub api: ApiAccess,
    /// Where volumes and logs of pods are held
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    pub root_dir: PathBuf,
    /// The container runtime's CRI socket
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock", value_name = "URL")]
    pub container_runtime_endpoint: String,
    /// This node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// This node's address [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Address and port of the HTTPS server; port 0 takes any free one
    #[arg(long, default_value = "0.0.0.0:10250", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Certificate of the HTTPS server (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: PathBuf,
    /// Key of the HTTPS server (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: PathBuf,
    /// Authority of the clients of the HTTPS server (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: PathBuf,
    /// Address of the cluster's DNS service; may be given several times
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of service names
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// The cgroup below which pods run
    #[arg(long, default_value = "/", value_name = "CGROUP")]
    pub cgroup_root: String,
    /// How many pods the node takes
    #[arg(long, default_value_t = 110, value_name = "N")]
    pub max_pods: u32,
}

#[derive(Args)]
#[command(after_help = "Examples:
  knarr proxy --kubeconfig proxy.kubeconfig --cluster-cidr 10.244.0.0/16
  knarr proxy --cleanup            remove the rules and end")]
pub struct Proxy {
    #[command(flatten)]
    pub api: ApiAccess,
    /// Addresses of pods: what goes from them to elsewhere is masqueraded
    #[arg(long, value_name = "CIDR", value_parser = pod_range)]
    pub cluster_cidr: Option<Cidr>,
    /// This node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// The nftables table that is ours
    #[arg(long, default_value = "knarr-proxy", value_name = "NAME")]
    pub table: String,
    /// Remove the table and end
    #[arg(long)]
    pub cleanup: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  knarr dns --kubeconfig dns.kubeconfig --listen 10.0.0.1:53")]
pub struct Dns {
    #[command(flatten)]
    pub api: ApiAccess,
    /// Address and port to answer at, UDP and TCP; port 0 takes any free one
    #[arg(long, default_value = "0.0.0.0:53", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Domain of service names
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
}

/// How a component reaches the API server.
#[derive(Args)]
pub struct ApiAccess {
    /// Kubeconfig of the API server [default: the pod's service account]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What `up` gives to pods or services, and components are told of pods.
fn pod_range(text: &str) -> Result<Cidr, String> {
    let cidr = Cidr::parse(text).filter(|cidr| !cidr.is_v6());
    let cidr = cidr.ok_or_else(|| format!("{text:?} is not an IPv4 range such as 10.244.0.0/16"))?;
    if cidr.bits > 30 || !text.starts_with(&format!("{}/", cidr.address)) {
        return Err(format!("{text:?} is not the beginning of an IPv4 range, such as 10.244.0.0/16"));
    }
    Ok(cidr)
}

fn service_range(text: &str) -> Result<Cidr, String> {
    let cidr = Cidr::parse(text).filter(|cidr| cidr.to_string() == text);
    let cidr = cidr.ok_or_else(|| format!("{text:?} is not the beginning of a range, such as 10.96.0.0/16"))?;
    // Source: upstream's allocator.
    let fits = cidr.address.is_ipv4() || cidr.bits >= 64;
    fits.then_some(cidr)
        .ok_or_else(|| format!("shortest allowed prefix length for service CIDR is 64, got {}", cidr.bits))
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not a range of ports such as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let range: (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if range.0 == 0 || range.0 > range.1 { Err(bad()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(service_range("fd00::/108").is_ok());
        for bad in ["10.0.0.1/16", "fd00::/63", "10.0.0.0"] {
            assert!(service_range(bad).is_err(), "{bad}");
        }
        assert!(pod_range("10.244.0.0/16").is_ok());
        for bad in ["10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/31", "x/8", "fd00::/64"] {
            assert!(pod_range(bad).is_err(), "{bad}");
        }
        assert_eq!(port_range("1-2"), Ok((1, 2)));
        for bad in ["", "1", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_command_teaches_by_example() {
        for command in Cli::command().get_subcommands().chain([&Cli::command()]) {
            let help = command.get_after_help().map(|h| h.to_string()).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", command.get_name());
        }
    }
}
