//! The resolved configuration of the server: every choice made, every default filled in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use pki::Issued;
use pki::tokens::{Signer, Verifier};
use store::Store;

use crate::audit::Auditor;

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
    pub features: Features,
    /// `None` writes no audit log.
    pub audit: Option<Arc<Auditor>>,
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

/// An IPv4 or IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl Cidr {
    /// Reads `10.96.0.0/12`; the address is cut to the network.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let address = match address {
            IpAddr::V4(a) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
            _ => return None,
        };
        Some(Cidr { address, bits })
    }

    pub fn family(&self) -> &'static str {
        family(self.address)
    }

    /// The places that services may have: neither the network's own address nor, in IPv4, its last one.
    pub fn places(&self) -> RangeInclusive<u128> {
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        let last = u128::MAX.checked_shr(128 - width + u32::from(self.bits)).unwrap_or(0);
        1..=last - u128::from(self.address.is_ipv4() && last > 0)
    }

    /// The address at `offset` from the network's first.
    pub fn nth(&self, offset: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => IpAddr::V4(u32::from(a).wrapping_add(offset as u32).into()),
            IpAddr::V6(a) => IpAddr::V6(u128::from(a).wrapping_add(offset).into()),
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let network = Cidr::parse(&format!("{ip}/{}", self.bits));
        family(ip) == self.family() && network.is_some_and(|n| n.address == self.address)
    }
}

/// As Services and EndpointSlices name it.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
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
    /// Volumes and claims get a finalizer that a controller has to remove. Off until that controller runs.
    pub storage_object_in_use_protection: bool,
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
            features: Features::default(),
            audit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let cidr = Cidr::parse("10.96.3.4/12").expect("cidr");
        assert_eq!(cidr.to_string(), "10.96.0.0/12");
        assert_eq!(cidr.nth(258).to_string(), "10.96.1.2");
        let contains = |ip: &str| cidr.contains(ip.parse().expect("ip"));
        assert_eq!(["10.96.1.2", "10.95.1.2", "10.112.0.0", "fd00::1"].map(contains), [true, false, false, false]);
        let places = |text: &str| Cidr::parse(text).map(|c| c.places());
        assert_eq!(places("10.96.0.0/12"), Some(1..=(1 << 20) - 2));
        assert_eq!(places("fd00::/108"), Some(1..=(1 << 20) - 1));
        assert_eq!(["10.0.0.1/32", "10.0.0.0/31", "fd00::/128"].map(|c| places(c).map(|p| p.count())), [Some(0); 3]);
        assert_eq!(places("0.0.0.0/0").map(|p| *p.end()), Some((1 << 32) - 2));
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
    }
}
