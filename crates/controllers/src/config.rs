//! The resolved configuration of all controllers, with upstream's defaults.
//! Reads and writes nothing. Invariant: every interval and limit a controller uses is named here.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    /// As upstream's `--controllers`: `*` all that are on by default, `foo` on, `-foo` off.
    pub controllers: Vec<String>,
    /// Keys each controller works on at a time.
    pub concurrency: usize,
    /// PEM of the CA bundle published to every namespace; empty: none is published.
    pub root_ca_pem: String,
    /// Pod ranges are cut from these, one IPv4 and one IPv6 at most; empty: nodes get none from here.
    pub cluster_cidrs: Vec<String>,
    pub node_cidr_mask_ipv4: u8,
    pub node_cidr_mask_ipv6: u8,
    /// How often node health is judged.
    pub node_monitor_period: Duration,
    /// A node whose lease and status are older than this is Unknown.
    pub node_monitor_grace_period: Duration,
    /// The same for a node that never reported.
    pub node_startup_grace_period: Duration,
    /// Nodes per second that may be tainted unreachable for eviction.
    pub node_eviction_rate: f64,
    /// Terminated pods are deleted, oldest first, beyond this many; 0: never.
    pub terminated_pods_max: usize,
    /// How often pods are collected.
    pub pod_gc_period: Duration,
    /// How long a node must be gone before its pods are deleted.
    pub pod_gc_quarantine: Duration,
    /// How often the garbage collector looks for new kinds.
    pub discovery_period: Duration,
    /// Endpoints per EndpointSlice.
    pub endpoints_per_slice: usize,
    /// How often every resource quota is counted anew.
    pub quota_resync_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            controllers: vec!["*".to_string()],
            concurrency: 5,
            root_ca_pem: String::new(),
            cluster_cidrs: Vec::new(),
            node_cidr_mask_ipv4: 24,
            node_cidr_mask_ipv6: 64,
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            terminated_pods_max: 12_500,
            pod_gc_period: Duration::from_secs(20),
            pod_gc_quarantine: Duration::from_secs(40),
            discovery_period: Duration::from_secs(30),
            endpoints_per_slice: 100,
            quota_resync_period: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Whether a controller runs: an explicit mention wins over `*`.
    pub fn enabled(&self, name: &str) -> bool {
        if self.controllers.iter().any(|entry| entry == name) {
            return true;
        }
        if self.controllers.iter().any(|entry| entry.strip_prefix('-') == Some(name)) {
            return false;
        }
        self.controllers.iter().any(|entry| entry == "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enabled_as_upstream() {
        let config =
            |list: &[&str]| Config { controllers: list.iter().map(ToString::to_string).collect(), ..Config::default() };
        for (list, want) in [
            (&["*"][..], true),
            (&["*", "-job-controller"], false),
            (&["-job-controller", "job-controller"], true),
            (&["job-controller"], true),
            (&["other"], false),
            (&[], false),
        ] {
            assert_eq!(config(list).enabled("job-controller"), want, "{list:?}");
        }
    }
}
