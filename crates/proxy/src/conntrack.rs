//! Which tracked UDP flows have become wrong: UDP has no end, so a client that keeps sending would stay with a dead endpoint.
//! Pure: it makes the arguments for `conntrack -D`. Invariant: only flows to our Services' addresses are named.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::fragment::{Fragment, UdpFront};

/// Argument lists, one per kind of flow to forget, after a Service went from `old` to `new`.
pub fn stale_flows(old: &Fragment, new: &Fragment) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let none = BTreeSet::new();
    for (front, before) in &old.udp {
        let after = new.udp.get(front).unwrap_or(&none);
        out.extend(before.difference(after).map(|gone| flow(front, Some(gone))));
    }
    for (front, after) in &new.udp {
        // Flows that began while nobody answered were tracked without translation.
        if !after.is_empty() && old.udp.get(front).is_none_or(BTreeSet::is_empty) {
            out.push(flow(front, None));
        }
    }
    out
}

fn flow(front: &UdpFront, endpoint: Option<&IpAddr>) -> Vec<String> {
    let (family, port) = match front {
        UdpFront::Address(ip, port) => (ip.is_ipv6(), port),
        UdpFront::NodePort(v6, port) => (*v6, port),
    };
    let mut args: Vec<String> = ["-f", if family { "ipv6" } else { "ipv4" }, "-p", "udp"].map(str::to_owned).into();
    if let UdpFront::Address(ip, _) = front {
        args.extend(["--orig-dst".to_owned(), ip.to_string()]);
    }
    args.extend(["--orig-port-dst".to_owned(), port.to_string()]);
    if let Some(ip) = endpoint {
        args.extend(["--reply-src".to_owned(), ip.to_string()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_left_and_services_that_came_alive() {
        let fragment = |endpoints: &[&str]| {
            let mut out = Fragment::default();
            out.udp.insert(
                UdpFront::Address("10.96.0.10".parse().unwrap(), 53),
                endpoints.iter().map(|e| e.parse().unwrap()).collect(),
            );
            out
        };
        let show = |old: &[&str], new: &[&str]| {
            stale_flows(&fragment(old), &fragment(new)).iter().map(|a| a.join(" ")).collect::<Vec<_>>()
        };
        let base = "-f ipv4 -p udp --orig-dst 10.96.0.10 --orig-port-dst 53";
        assert_eq!(show(&["10.42.0.1", "10.42.0.2"], &["10.42.0.2"]), [format!("{base} --reply-src 10.42.0.1")]);
        assert_eq!(show(&[], &["10.42.0.2"]), [base]);
        assert!(show(&["10.42.0.2"], &["10.42.0.2"]).is_empty());
    }
}
