//! Mends what services have against what stands for it: IPAddress objects and the node ports' bits.
//!
//! Reads services, IPAddresses and ServiceCIDRs from the caches. Writes IPAddresses, the RangeAllocation, and events with
//! upstream's reasons and words. Invariant: an address or port that a stored service has is never freed here.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use meta::time::{self, Timestamp};
use meta::{Status, Value, json};
use store::{Compare, Op, Txn};

use super::ranges::Range;
use super::{MANAGED_BY, MAX_ATTEMPTS, NETWORKING, address, cluster_ips, is_of, node_ports};
use crate::bootstrap::ensure;
use crate::config::family;
use crate::shared::Shared;
use crate::storage::{Beside, store_error};

/// An upstream server makes the address first and the service after it.
const ORPHAN_AFTER_S: i64 = 60;
/// Events of one round; the rest is said when these are mended.
const MAX_EVENTS: usize = 100;

/// A round: at the start, and from time to time.
pub async fn run(shared: &Arc<Shared>) -> Result<(), Status> {
    shared.storage.fresh().await?;
    let mut said = addresses(shared).await?;
    said.extend(ports(shared).await?);
    for words in said.into_iter().take(MAX_EVENTS) {
        words.say(shared).await;
    }
    Ok(())
}

/// A warning about an object.
#[derive(Debug, PartialEq)]
pub struct Words {
    pub about: Value,
    pub reason: &'static str,
    pub message: String,
}

impl Words {
    pub fn new(object: &Value, reason: &'static str, message: String) -> Words {
        let mut about = object["metadata"].clone();
        about.as_object_mut().into_iter().for_each(|m| m.retain(|k, _| matches!(k, "name" | "namespace" | "uid")));
        about.set(&["kind"], &object["kind"]);
        about.set(&["apiVersion"], &object["apiVersion"]);
        Words { about, reason, message }
    }

    /// Makes an event, once until it expires: its name says all of it.
    pub async fn say(self, shared: &Arc<Shared>) {
        tracing::warn!("{}: {}", self.reason, self.message);
        let mut hasher = DefaultHasher::new();
        (self.about.to_string(), self.reason, &self.message).hash(&mut hasher);
        let name = format!("{}.{:016x}", self.about.str_at(&["name"]).unwrap_or_default(), hasher.finish());
        let namespace = self.about.str_at(&["namespace"]).unwrap_or("default").to_string();
        let now = time::seconds(time::now());
        let event = json!({
            "metadata": {"name": name, "namespace": namespace}, "involvedObject": self.about, "reason": self.reason,
            "message": self.message, "type": "Warning", "source": {"component": "kube-apiserver"}, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
        });
        if let Err(status) = ensure(shared, "", "events", &namespace, &name, event).await {
            tracing::debug!("cannot write an event: {status}");
        }
    }
}

/// A service, as far as its addresses go.
struct Claim {
    rv: u64,
    service: Value,
    ips: BTreeSet<IpAddr>,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// Stands for the address of the service with this key and revision, in the place of what is there at a revision.
    Put(IpAddr, u64, String, u64),
    Delete(String, u64),
}

async fn addresses(shared: &Arc<Shared>) -> Result<Vec<Words>, Status> {
    let served = |group, plural| shared.registry.stored(group, plural).ok_or_else(Status::unknown_resource);
    let (services, addresses) = (served("", "services")?, served(NETWORKING, "ipaddresses")?);
    let claims = services.cache.snapshot("", "", 0, false, |_| true).objects;
    let claims: BTreeMap<String, Claim> = claims
        .iter()
        .map(|object| {
            let document = object.document();
            let ips = cluster_ips(&document);
            let mut service = json!({"kind": "Service", "apiVersion": "v1"});
            service.set(&["metadata"], &document["metadata"]);
            (object.key.to_string(), Claim { rv: object.rv, service, ips })
        })
        .collect();
    // Later than the services, so that every one of those shows its addresses here.
    let found = addresses.cache.snapshot("", "", 0, false, |_| true).objects;
    let found: Vec<(u64, Value)> = found.iter().map(|o| (o.rv, o.document())).collect();
    let ranges = shared.services.ranges(shared);
    let (steps, said) = plan(&claims, &found, &ranges, time::now());
    for step in steps {
        let mut write = Beside::default();
        match step {
            Step::Put(ip, at, key, rv) => {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                write.compares.push(Compare::mod_revision(services.store_key(&key), rv));
                write.change(at, Op::put(addresses.store_key(&ip.to_string()), address(ip, namespace, name)));
            }
            Step::Delete(name, at) => write.change(at, Op::delete(addresses.store_key(&name))),
        }
        // Whoever was faster has made it right, or the next round will.
        let txn = Txn { compares: write.compares, success: write.ops, failure: Vec::new() };
        shared.storage.store.txn(txn).await.map_err(|e| store_error(&e))?;
    }
    Ok(said)
}

fn plan(
    claims: &BTreeMap<String, Claim>,
    addresses: &[(u64, Value)],
    ranges: &[Range],
    now: Timestamp,
) -> (Vec<Step>, Vec<Words>) {
    let (mut steps, mut said) = (Vec::new(), Vec::new());
    let name_of = |a: &Value| a.str_at(&["metadata", "name"]).unwrap_or_default().to_string();
    let by_ip: BTreeMap<IpAddr, &(u64, Value)> =
        addresses.iter().filter_map(|a| Some((name_of(&a.1).parse().ok()?, a))).collect();
    let parent = |a: &Value| {
        let of = |member: &str| a.str_at(&["spec", "parentRef", member]).unwrap_or_default().to_string();
        format!("{}/{}", of("namespace"), of("name"))
    };
    for (key, claim) in claims {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let mut say = |reason, message| said.push(Words::new(&claim.service, reason, message));
        for &ip in &claim.ips {
            let family = family(ip);
            if !ranges.iter().any(|r| r.cidr.contains(ip)) {
                let why = "is not within any configured Service CIDR; please recreate service";
                say("ClusterIPOutOfRange", format!("Cluster IP [{family}]: {ip} {why}"));
                continue;
            }
            let found = by_ip.get(&ip);
            match found {
                None => {
                    say("ClusterIPNotAllocated", format!("Cluster IP [{family}]: {ip} is not allocated; repairing"))
                }
                Some((_, a)) if is_of(a, namespace, name) => continue,
                Some((_, a)) if claims.get(&parent(a)).is_some_and(|other| other.ips.contains(&ip)) => {
                    let why = "was assigned to multiple services; please recreate service";
                    say("ClusterIPAlreadyAllocated", format!("Cluster IP [{family}]:{ip} {why}"));
                    continue;
                }
                Some(_) => {
                    let what = format!("the ClusterIP [{family}]: {ip} for Service {key}");
                    say("ClusterIPNotAllocated", format!("{what} has a wrong reference; repairing"));
                }
            }
            steps.push(Step::Put(ip, found.map_or(0, |(at, _)| *at), key.clone(), claim.rv));
        }
    }
    let claimed: BTreeSet<IpAddr> = claims.values().flat_map(|c| &c.ips).copied().collect();
    for (at, a) in
        addresses.iter().filter(|(_, a)| a["metadata"]["labels"][MANAGED_BY.0].as_str() == Some(MANAGED_BY.1))
    {
        let (name, key) = (name_of(a), parent(a));
        let made = a.str_at(&["metadata", "creationTimestamp"]).and_then(time::parse);
        if name.parse().is_ok_and(|ip: IpAddr| claimed.contains(&ip))
            || made.is_some_and(|made| now.duration_since(made).as_secs() < ORPHAN_AFTER_S)
        {
            continue; // it is right, mended above, or new
        }
        let (reason, what) = match claims.contains_key(&key) {
            true => ("IPAddressWrongReference", "has a wrong reference; cleaning up"),
            false => ("IPAddressNotAllocated", "appears to have leaked: cleaning up"),
        };
        let message = format!("IPAddress: {name} for Service {key} {what}");
        said.push(Words::new(a, reason, message));
        steps.push(Step::Delete(name, *at));
    }
    (steps, said)
}

async fn ports(shared: &Arc<Shared>) -> Result<Vec<Words>, Status> {
    let (ports, storage) = (&shared.services.ports, &shared.storage);
    let services = shared.registry.stored("", "services").ok_or_else(Status::unknown_resource)?;
    let mut state = ports.lock().await;
    let mut said = Vec::new();
    for _ in 0..MAX_ATTEMPTS {
        ports.load(storage, &mut state).await?;
        storage.fresh().await?;
        said.clear();
        let mut used = BTreeSet::new();
        for object in services.cache.snapshot("", "", 0, false, |_| true).objects {
            let service = object.document();
            for port in node_ports(&service) {
                let (reason, message) = if !ports.contains(port) {
                    let range = ports.name();
                    ("PortOutOfRange", format!("is not within the port range {range}; please recreate service"))
                } else if !used.insert(port) {
                    ("PortAlreadyAllocated", "was assigned to multiple services; please recreate service".into())
                } else if !state.used.contains(&port) {
                    ("PortNotAllocated", "is not allocated; repairing".into())
                } else {
                    continue;
                };
                said.push(Words::new(&service, reason, format!("Port {port} {message}")));
            }
        }
        // An upstream server marks a port before it stores the service: one that was idle before, too, is free.
        let idle = &state.used - &used;
        used.extend(idle.difference(&state.leaks));
        let (at, put) = (state.revision, ports.put(&used));
        if used != state.used || at == 0 {
            let txn = Txn {
                compares: vec![Compare::mod_revision(super::ports::KEY, at)],
                success: vec![put],
                failure: vec![],
            };
            let done = storage.store.txn(txn).await.map_err(|e| store_error(&e))?;
            if !done.succeeded {
                continue;
            }
            (state.revision, state.used) = (done.revision, used);
        }
        state.leaks = idle;
        break;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cidr;

    #[test]
    fn what_is_mended() {
        let now = time::parse("2026-01-01T00:02:00Z").expect("a time");
        let claim = |ips: &[&str]| Claim {
            rv: 7,
            service: json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s", "uid": "u", "labels": {"a": "b"}}}),
            ips: ips.iter().map(|ip| ip.parse().expect("ip")).collect(),
        };
        let claims: BTreeMap<String, Claim> = [
            ("d/good", claim(&["10.0.0.1"])),
            ("d/twice", claim(&["10.0.0.1"])),
            ("d/missing", claim(&["10.0.0.2", "9.9.9.9"])),
            ("d/stolen", claim(&["10.0.0.3"])),
        ]
        .map(|(key, claim)| (key.to_string(), claim))
        .into();
        let address = |ip: &str, service: &str, made: &str| {
            let mut a: Value = meta::parse(&address(ip.parse().expect("ip"), "d", service)).expect("an address");
            a.set(&["metadata", "creationTimestamp"], made);
            (5, a)
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z");
        let mut not_ours = address("10.0.0.8", "gone", old);
        not_ours.1.remove(&["metadata", "labels"]);
        let addresses = [
            address("10.0.0.1", "good", old),
            address("10.0.0.3", "gone", old),
            address("10.0.0.4", "good", old),
            address("10.0.0.5", "gone", old),
            address("10.0.0.6", "gone", new),
            not_ours,
        ];
        let ranges = [Range { cidr: Cidr::parse("10.0.0.0/24").expect("cidr"), ready: true }];
        let (steps, said) = plan(&claims, &addresses, &ranges, now);
        let mut told: String = steps.iter().map(|s| format!("{s:?}\n")).collect();
        told.extend(said.iter().map(|w| format!("{} {}\n", w.reason, w.message)));
        expect_test::expect_file!["repair/what_is_mended.txt"].assert_eq(&told);
        let about = json!({"apiVersion": "v1", "kind": "Service", "name": "s", "uid": "u"});
        assert_eq!(said[0].about, about);
    }
}
