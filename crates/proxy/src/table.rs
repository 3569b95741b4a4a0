//! The fixed part of our nftables table: hooks, maps, masquerading, refusal. Everything about Services is added to it.
//! Pure. Invariant: nothing outside the one named table is touched.

use std::fmt::Write;

use crate::Config;
use crate::fragment::Context;
use crate::rules::Map;

/// The bit that marks packets to masquerade; the one kube-proxy uses.
const MASQUERADE_MARK: &str = "0x4000";

/// A chain that exists exactly while the table is whole.
pub const SENTINEL_CHAIN: &str = "services";

/// Text that replaces whatever the table held by its fixed part, to be followed by the Services' rules in one transaction.
pub fn base(config: &Config, context: &Context) -> String {
    let table = &config.table;
    let mut out = format!("add table inet {table}\ndelete table inet {table}\nadd table inet {table}\n");
    for map in Map::all() {
        let declaration = map.declaration();
        let (kind, spec) = declaration.split_once(" NAME ").unwrap_or(("set", ""));
        let _ = writeln!(out, "add {kind} inet {table} {} {spec}", map.name());
    }
    let nodeport = node_port_rules(config);
    let hooks = [
        ("prerouting", "type nat hook prerouting priority dstnat; policy accept;"),
        ("output", "type nat hook output priority -100; policy accept;"),
        ("postrouting", "type nat hook postrouting priority srcnat; policy accept;"),
        ("filter_input", "type filter hook input priority -10; policy accept;"),
        ("filter_forward", "type filter hook forward priority -10; policy accept;"),
        ("filter_output", "type filter hook output priority -10; policy accept;"),
    ];
    for chain in ["mark_masquerade", "masquerade_now", "refuse", SENTINEL_CHAIN, "refusals"] {
        let _ = writeln!(out, "add chain inet {table} {chain}");
    }
    for (name, spec) in hooks {
        let _ = writeln!(out, "add chain inet {table} {name} {{ {spec} }}");
    }
    let mut rule = |chain: &str, text: &str| {
        let _ = writeln!(out, "add rule inet {table} {chain} {text}");
    };
    rule("mark_masquerade", &format!("meta mark set meta mark or {MASQUERADE_MARK}"));
    rule("masquerade_now", &format!("meta mark set meta mark xor {MASQUERADE_MARK}"));
    rule("masquerade_now", "masquerade fully-random");
    // A reset, because the kernel sends only a few ICMP errors a second to one client and the rest would hang.
    rule("refuse", "meta l4proto tcp reject with tcp reset");
    rule("refuse", "reject");
    rule(SENTINEL_CHAIN, "ip daddr . meta l4proto . th dport vmap @services4");
    rule(SENTINEL_CHAIN, "ip6 daddr . meta l4proto . th dport vmap @services6");
    for (guard, v6) in &nodeport {
        rule(SENTINEL_CHAIN, &format!("{guard} meta l4proto . th dport vmap @nodeports{}", if *v6 { 6 } else { 4 }));
    }
    rule("prerouting", &format!("jump {SENTINEL_CHAIN}"));
    rule("output", &format!("jump {SENTINEL_CHAIN}"));
    rule("refusals", "ip daddr . meta l4proto . th dport vmap @refused4");
    rule("refusals", "ip6 daddr . meta l4proto . th dport vmap @refused6");
    for (guard, v6) in &nodeport {
        rule("refusals", &format!("{guard} meta l4proto . th dport vmap @refused_ports{}", if *v6 { 6 } else { 4 }));
    }
    rule("refusals", "ip daddr @cluster_ips4 goto refuse");
    rule("refusals", "ip6 daddr @cluster_ips6 goto refuse");
    if config.localhost_node_ports {
        // route_localnet lets neighbours send to 127.0.0.0/8; only answers to what started here may pass.
        rule("filter_input", "ip daddr 127.0.0.0/8 ip saddr != 127.0.0.0/8 ct state new drop");
    }
    for hook in ["filter_input", "filter_forward", "filter_output"] {
        rule(hook, "ct state new jump refusals");
    }
    rule("postrouting", &format!("meta mark and {MASQUERADE_MARK} != 0 jump masquerade_now"));
    if config.masquerade_egress {
        for (v6, family, multicast) in [(false, "ip", "224.0.0.0/4"), (true, "ip6", "ff00::/8")] {
            if let Some(pods) = context.pods(v6) {
                rule(
                    "postrouting",
                    &format!(
                        "{family} saddr {pods} {family} daddr != {pods} {family} daddr != {multicast} masquerade fully-random"
                    ),
                );
            }
        }
    }
    out
}

/// What a packet must meet to count as one for a node port, per family.
fn node_port_rules(config: &Config) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    for (v6, family) in [(false, "ip"), (true, "ip6")] {
        let ranges: Vec<_> =
            config.node_port_addresses.iter().filter(|c| c.is_v6() == v6).map(ToString::to_string).collect();
        let mut guard = match (config.node_port_addresses.is_empty(), ranges.is_empty()) {
            (true, _) => format!("meta nfproto {} fib daddr type local", if v6 { "ipv6" } else { "ipv4" }),
            (false, true) => continue,
            (false, false) => format!("{family} daddr {{ {} }} fib daddr type local", ranges.join(", ")),
        };
        match (v6, config.localhost_node_ports) {
            (true, _) => guard.push_str(" ip6 daddr != ::1"), // the kernel routes no foreign source to ::1
            (false, false) => guard.push_str(" ip daddr != 127.0.0.0/8"),
            (false, true) => {}
        }
        out.push((guard, v6));
    }
    out
}
