//! The kubelet's resolved configuration. Reads nothing; every default is documented at its field.
//!
//! Invariant: two kubelets with different `owner`s on one machine never touch each other's sandboxes, cgroups or files.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

/// Everything the kubelet needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name. Default: the host name in lower case.
    pub node_name: String,
    /// Where pods' volumes, logs and hosts files live; must be absolute. Default `/var/lib/kubelet`.
    pub data_dir: PathBuf,
    /// The parent of the log directories `NAMESPACE_NAME_UID/CONTAINER/N.log`. Default `DATA_DIR/pod-logs`.
    pub pod_logs_dir: PathBuf,
    /// The runtime's socket. Default `unix:///run/containerd/containerd.sock`.
    pub cri_endpoint: String,
    /// Marks this kubelet's sandboxes and containers in a runtime that others may share. Default: the node's name.
    pub owner: String,
    /// The node's addresses, the primary one first. Default: the address of the default route's interface.
    pub node_ips: Vec<IpAddr>,
    /// The address of the cluster's DNS service; none means pods get the host's resolver.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain. Default `cluster.local`.
    pub cluster_domain: String,
    /// The resolver file of the host, for `dnsPolicy: Default` and for forwarding names. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where the HTTPS server listens; port 0 takes any free one. Default `0.0.0.0:10250`.
    pub listen: SocketAddr,
    /// The HTTPS server's certificate chain, PEM.
    pub server_cert_pem: String,
    /// The HTTPS server's key, PEM.
    pub server_key_pem: String,
    /// Clients of the HTTPS server must show a certificate of this CA, PEM.
    pub client_ca_pem: String,
    /// The cgroup below which everything of this kubelet lives, such as `/knarr-1a2b`; pods are in `ROOT/kubepods`. Default `/`.
    pub cgroup_root: String,
    /// How many pods fit on the node. Default 110.
    pub max_pods: u32,
    /// The node's pod address range, told to the runtime. Default none.
    pub pod_cidr: Option<String>,
    /// Labels the node registers with, besides those every node has.
    pub node_labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub register_taints: Vec<Taint>,
    /// Resources kept from pods, by name (`cpu`, `memory`, `ephemeral-storage`) as quantities. Default none.
    pub reserved: BTreeMap<String, String>,
    /// A container's log file is rotated at this size. Default 10 MiB.
    pub log_max_bytes: u64,
    /// How many log files a container keeps, the current one included. Default 5.
    pub log_max_files: u32,
    /// Unused images are removed when the image disk is fuller than this. Default 85.
    pub image_gc_high_percent: u32,
    /// Image removal stops at this. Default 80.
    pub image_gc_low_percent: u32,
    /// An image unused for less than this stays. Default 2 minutes.
    pub image_gc_min_age: Duration,
    /// How many images are pulled at once. Default 5.
    pub max_parallel_pulls: usize,
    /// The first wait before a crashed container is started again; doubles up to `crash_backoff_max`. Default 10 s.
    pub crash_backoff_initial: Duration,
    /// The longest wait before a crashed container is started again. Default 300 s.
    pub crash_backoff_max: Duration,
    /// The provider id written to the node's spec. Default none.
    pub provider_id: Option<String>,
}

impl Config {
    /// The configuration of node `node_name` with state in `data_dir` and every default.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Config {
        let (node_name, data_dir) = (node_name.into(), data_dir.into());
        Config {
            owner: node_name.clone(),
            node_name,
            pod_logs_dir: data_dir.join("pod-logs"),
            data_dir,
            cri_endpoint: "unix:///run/containerd/containerd.sock".to_string(),
            node_ips: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_string(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            server_cert_pem: String::new(),
            server_key_pem: String::new(),
            client_ca_pem: String::new(),
            cgroup_root: "/".to_string(),
            max_pods: 110,
            pod_cidr: None,
            node_labels: BTreeMap::new(),
            register_taints: Vec::new(),
            reserved: BTreeMap::new(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
            image_gc_min_age: Duration::from_secs(120),
            max_parallel_pulls: 5,
            crash_backoff_initial: Duration::from_secs(10),
            crash_backoff_max: Duration::from_secs(300),
            provider_id: None,
        }
    }

    /// The directory of a pod's own files: `DATA_DIR/pods/UID`.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// The directory of a pod's logs: `POD_LOGS_DIR/NAMESPACE_NAME_UID`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The log file of one instance of a container, relative to the pod's log directory: `NAME/ATTEMPT.log`.
    pub fn container_log_name(container: &str, attempt: u32) -> String {
        format!("{container}/{attempt}.log")
    }
}
