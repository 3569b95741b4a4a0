//! Rules as data, and the nft text that leads from one state to another.
//! Pure. Invariant: a transaction touches only what differs; things that others may still point at are removed by a
//! second text, after the first was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

/// The fixed maps and sets of the table; true stands for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// Every cluster IP in use: what is left unanswered there is refused.
    ClusterIps(bool),
    Services(bool),
    NodePorts(bool),
    Refused(bool),
    RefusedPorts(bool),
}

impl Map {
    pub fn all() -> impl Iterator<Item = Map> {
        let kinds = [Map::ClusterIps, Map::Services, Map::NodePorts, Map::Refused, Map::RefusedPorts];
        kinds.into_iter().flat_map(|of: fn(bool) -> Map| [of(false), of(true)])
    }

    pub fn name(self) -> String {
        let (name, v6) = match self {
            Map::ClusterIps(v6) => ("cluster_ips", v6),
            Map::Services(v6) => ("services", v6),
            Map::NodePorts(v6) => ("nodeports", v6),
            Map::Refused(v6) => ("refused", v6),
            Map::RefusedPorts(v6) => ("refused_ports", v6),
        };
        format!("{name}{}", if v6 { 6 } else { 4 })
    }

    /// The declaration: kind and type.
    pub fn declaration(self) -> String {
        let address = |v6| if v6 { "ipv6_addr" } else { "ipv4_addr" };
        match self {
            Map::ClusterIps(v6) => format!("set {{}} {{ type {}; }}", address(v6)),
            Map::Services(v6) | Map::Refused(v6) => {
                format!("map {{}} {{ type {} . inet_proto . inet_service : verdict; }}", address(v6))
            }
            Map::NodePorts(_) | Map::RefusedPorts(_) => {
                "map {} { type inet_proto . inet_service : verdict; }".to_owned()
            }
        }
        .replace("{}", "NAME")
    }
}

/// Chains with their rules, sets with their declaration, elements with their verdict (empty in a set).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub chains: BTreeMap<String, Vec<String>>,
    pub sets: BTreeMap<String, String>,
    pub elements: BTreeMap<(Map, String), String>,
}

impl Rules {
    pub fn element(&mut self, map: Map, key: String, verdict: &str) {
        self.elements.insert((map, key), verdict.to_owned());
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((map, key), verdict) in &self.elements {
            let colon = if verdict.is_empty() { "" } else { " : " };
            writeln!(f, "{}: {key}{colon}{verdict}", map.name())?;
        }
        for (name, spec) in &self.sets {
            writeln!(f, "set {name}: {spec}")?;
        }
        for (name, rules) in &self.chains {
            writeln!(f, "chain {name}")?;
            rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))?;
        }
        Ok(())
    }
}

/// Chains and sets that nothing uses any more but that are still in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    pub chains: BTreeSet<String>,
    pub sets: BTreeSet<String>,
}

impl Stale {
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// The text that removes them. Their chains were emptied by the transaction before.
    pub fn text(&self, table: &str) -> String {
        let mut out = String::new();
        for chain in &self.chains {
            let _ = writeln!(out, "delete chain inet {table} {chain}");
        }
        for set in &self.sets {
            let _ = writeln!(out, "delete set inet {table} {set}");
        }
        out
    }
}

/// Pairs of old and new rules, gathered into one transaction.
#[derive(Debug, Default)]
pub struct Transaction {
    declare: String,
    fill: String,
    remove: String,
    add: String,
    empty: String,
    pub stale: Stale,
    /// Names that are in use again.
    pub revived: Stale,
}

impl Transaction {
    /// Adds the way from `old` to `new`.
    pub fn change(&mut self, table: &str, old: &Rules, new: &Rules) {
        for (name, spec) in &new.sets {
            if old.sets.get(name) != Some(spec) {
                let _ = writeln!(self.declare, "add set inet {table} {name} {{ {spec} }}");
                self.revived.sets.insert(name.clone());
            }
        }
        for (name, rules) in &new.chains {
            let known = old.chains.get(name);
            if known.is_none() {
                let _ = writeln!(self.declare, "add chain inet {table} {name}");
                self.revived.chains.insert(name.clone());
            }
            if known != Some(rules) {
                let _ = writeln!(self.fill, "flush chain inet {table} {name}");
                for rule in rules {
                    let _ = writeln!(self.fill, "add rule inet {table} {name} {rule}");
                }
            }
        }
        for (key, verdict) in &old.elements {
            if new.elements.get(key) != Some(verdict) {
                let _ = writeln!(self.remove, "delete element inet {table} {} {{ {} }}", key.0.name(), key.1);
            }
        }
        for (key, verdict) in &new.elements {
            if old.elements.get(key) != Some(verdict) {
                let colon = if verdict.is_empty() { "" } else { " : " };
                let _ = writeln!(self.add, "add element inet {table} {} {{ {}{colon}{verdict} }}", key.0.name(), key.1);
            }
        }
        for name in old.chains.keys().filter(|n| !new.chains.contains_key(*n)) {
            let _ = writeln!(self.empty, "flush chain inet {table} {name}");
            self.stale.chains.insert(name.clone());
        }
        for name in old.sets.keys().filter(|n| !new.sets.contains_key(*n)) {
            self.stale.sets.insert(name.clone());
        }
    }

    /// The whole text, in an order in which every name exists before it is used.
    pub fn text(&self) -> String {
        [&self.declare, &self.fill, &self.remove, &self.add, &self.empty].into_iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn only_differences_are_written() {
        let rules = |endpoints: &[&str], set: bool| {
            let mut out = Rules::default();
            out.element(Map::Services(false), "10.0.0.1 . tcp . 80".to_owned(), "goto svc-a");
            out.element(Map::ClusterIps(false), "10.0.0.1".to_owned(), "");
            out.chains.insert("svc-a".to_owned(), endpoints.iter().map(|e| format!("goto {e}")).collect());
            for endpoint in endpoints {
                out.chains.insert((*endpoint).to_owned(), vec![format!("dnat {endpoint}")]);
            }
            if set {
                out.sets.insert("aff-1".to_owned(), "type ipv4_addr;".to_owned());
            }
            out
        };
        let show = |old: &Rules, new: &Rules| {
            let mut t = Transaction::default();
            t.change("k", old, new);
            format!("{}---\n{}", t.text(), t.stale.text("k"))
        };
        expect![[r#"
            add set inet k aff-1 { type ipv4_addr; }
            add chain inet k ep-1
            add chain inet k svc-a
            flush chain inet k ep-1
            add rule inet k ep-1 dnat ep-1
            flush chain inet k svc-a
            add rule inet k svc-a goto ep-1
            add element inet k cluster_ips4 { 10.0.0.1 }
            add element inet k services4 { 10.0.0.1 . tcp . 80 : goto svc-a }
            ---
        "#]]
        .assert_eq(&show(&Rules::default(), &rules(&["ep-1"], true)));
        expect![[r#"
            add chain inet k ep-2
            flush chain inet k ep-2
            add rule inet k ep-2 dnat ep-2
            flush chain inet k svc-a
            add rule inet k svc-a goto ep-2
            flush chain inet k ep-1
            ---
            delete chain inet k ep-1
            delete set inet k aff-1
        "#]]
        .assert_eq(&show(&rules(&["ep-1"], true), &rules(&["ep-2"], false)));
        assert_eq!(show(&rules(&["ep-1"], true), &rules(&["ep-1"], true)), "---\n");
    }
}
