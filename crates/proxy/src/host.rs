//! Kernel parameters that Services need on this host.
//! Writes /proc/sys. Invariant: what cannot be set is said once, with what will not work and how to mend it.

use std::process::Stdio;

use crate::{Config, Error};

const BRIDGE: &str = "net.bridge.bridge-nf-call-iptables";
const BRIDGE6: &str = "net.bridge.bridge-nf-call-ip6tables";

/// Sets the parameters. Returns true if bridged traffic passes our rules; if not, replies between pods of one bridge
/// would bypass translation, and the caller masquerades everything instead.
pub async fn prepare(config: &Config) -> Result<bool, Error> {
    must("net.ipv4.ip_forward", "1", "pods could not be reached through this node")?;
    if config.ipv6 {
        must("net.ipv6.conf.all.forwarding", "1", "pods could not be reached through this node by IPv6")?;
    }
    if config.localhost_node_ports {
        must(
            "net.ipv4.conf.all.route_localnet",
            "1",
            "node ports would not answer at 127.0.0.1 (or turn localhost node ports off)",
        )?;
    }
    if sys::sysctl::read(BRIDGE).is_err() {
        let load = tokio::process::Command::new("modprobe")
            .arg("br_netfilter")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = load.await; // without modprobe the next read says what is missing
    }
    let bridged = sys::sysctl::write(BRIDGE, "1");
    if config.ipv6 && bridged.is_ok() {
        let _ = sys::sysctl::write(BRIDGE6, "1"); // as present as its sibling
    }
    if let Err(error) = &bridged {
        tracing::warn!(%error, "bridged traffic does not pass the rules; Service traffic is masqueraded and loses its source address. Load br_netfilter to avoid that");
    }
    Ok(bridged.is_ok())
}

fn must(name: &'static str, value: &'static str, consequence: &'static str) -> Result<(), Error> {
    sys::sysctl::write(name, value).map(drop).map_err(|source| Error::Sysctl { name, value, consequence, source })
}
