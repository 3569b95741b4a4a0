//! The resolved configuration of the server: every choice made, every default filled in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use api::feature_gates::FeatureGates;
use api::runtime_config::RuntimeConfig;
pub use meta::cidr::{Cidr, family};
use pki::Issued;
use pki::tokens::{Signer, Verifier};
use store::Store;

use crate::admission;
use crate::audit::Auditor;
use crate::trace::Tracer;

/// The audience of tokens for the API server, and their issuer, where nothing else is asked for.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub struct Config {
    /// Where to listen; `None` serves in-process only. Port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// The address that the `kubernetes` service leads to; the listen address when that is not "any".
    pub advertise: IpAddr,
    /// The port that the `kubernetes` service leads to when `listen` is `None` or clients come another way; 0 means the
    /// bound port.
    pub advertise_port: u16,
    pub tls: Option<Issued>,
    /// The authority of client certificates (PEM).
    pub client_ca_pem: Option<String>,
    pub tokens: Option<Tokens>,
    /// One, or one of each family; the first's is what services get that ask for none.
    pub service_cidrs: Vec<Cidr>,
    pub node_ports: RangeInclusive<u16>,
    pub store: Arc<dyn Store>,
    /// What the server shows to kubelets for logs, exec, attach and port-forward.
    pub kubelet_client: Option<KubeletClient>,
    /// What the server shows to API servers behind it.
    pub front_proxy: Option<FrontProxy>,
    pub limits: Limits,
    /// Which versions of built-in resources are served.
    pub runtime_config: RuntimeConfig,
    /// What is on beside upstream's defaults.
    pub feature_gates: FeatureGates,
    pub features: Features,
    /// Which admission plugins are on, and how they are configured.
    pub admission: admission::Settings,
    /// `None` writes no audit log.
    pub audit: Option<Arc<Auditor>>,
    /// `None` traces nothing.
    pub tracer: Option<Arc<Tracer>>,
}

/// Service account tokens: who signs them and who reads them.
#[derive(Clone)]
pub struct Tokens {
    pub signer: Arc<Signer>,
    pub verifier: Arc<Verifier>,
    /// Audiences that are this server; the first is put into tokens that ask for none.
    pub audiences: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct KubeletClient {
    pub identity: Issued,
    /// The authority of kubelets' serving certificates (PEM).
    pub ca_pem: String,
}

#[derive(Clone, Debug)]
pub struct FrontProxy {
    pub identity: Issued,
    /// The authority of that identity (PEM): API servers behind this one take nobody else's word for who asks.
    pub ca_pem: String,
}

/// Bounds of what clients may ask.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body: upstream's 3 MiB.
    pub body_bytes: usize,
    /// Reads under way at once; further ones get 429.
    pub reads: usize,
    /// Writes under way at once; further ones get 429.
    pub writes: usize,
    /// How long a request that is no watch may take.
    pub request: Duration,
    /// How long a read waits for a revision that the caches do not have yet, as upstream's watch cache does.
    pub fresh: Duration,
    /// Watches end after this long at least, after twice that at most, unless the client says otherwise.
    pub watch_min: Duration,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark: Duration,
    /// How long Events live.
    pub event_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 3 << 20,
            reads: 400,
            writes: 200,
            request: Duration::from_secs(60),
            fresh: Duration::from_secs(3),
            watch_min: Duration::from_secs(1800),
            bookmark: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// Switches of parts that depend on other components.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Services may lead to this machine's loopback and link-local addresses. Off: whoever may write EndpointSlices could
    /// otherwise reach, through us, what listens for this machine alone.
    pub loopback_endpoints: bool,
}

impl Config {
    /// The defaults around a store: in-process only, no tokens.
    pub fn new(store: Arc<dyn Store>) -> Config {
        Config {
            listen: None,
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise_port: 0,
            tls: None,
            client_ca_pem: None,
            tokens: None,
            service_cidrs: vec![Cidr { address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), bits: 12 }],
            node_ports: 30000..=32767,
            store,
            kubelet_client: None,
            front_proxy: None,
            limits: Limits::default(),
            runtime_config: RuntimeConfig::default(),
            feature_gates: FeatureGates::default(),
            features: Features::default(),
            admission: admission::Settings::default(),
            audit: None,
            tracer: None,
        }
    }
}
