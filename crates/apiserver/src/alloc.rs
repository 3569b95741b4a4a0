//! What services are given: cluster IPs and node ports.
//!
//! Reads and changes service documents. An address is an IPAddress object, the ports are bits of one RangeAllocation; both
//! change in the transaction that stores or deletes the service. Invariant: no two services get the same address or port,
//! under any concurrency and however many API servers write to the store; a write that fails takes nothing.

mod families;
pub mod ports;
pub mod ranges;
pub mod repair;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use meta::field::{Error, Path};
use meta::{Status, Value, json};
use store::Op;

use crate::config::{Cidr, family};
use crate::metadata;
use crate::object::Object;
use crate::registry::Served;
use crate::shared::Shared;
use crate::storage::{Beside, Written};
use ports::Ports;
use ranges::Range;

pub const NETWORKING: &str = "networking.k8s.io";
/// Who made an IPAddress. Source: the well-known labels.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How often the ports are looked up anew because another server changed them meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// The ranges of the cluster.
pub struct Services {
    cidrs: Vec<Cidr>,
    /// Those of the ServiceCIDR objects, as of this revision of their cache.
    ranges: Mutex<(u64, Arc<Vec<Range>>)>,
    pub ports: Ports,
}

impl Services {
    pub fn new(cidrs: Vec<Cidr>, node_ports: RangeInclusive<u16>) -> Services {
        Services { cidrs, ranges: Mutex::default(), ports: Ports::new(node_ports) }
    }

    /// The address of the `kubernetes` service.
    pub fn first_ip(&self) -> Option<IpAddr> {
        self.cidrs.first().map(|c| c.nth(1))
    }

    fn ranges(&self, shared: &Shared) -> Arc<Vec<Range>> {
        let Some(served) = shared.registry.stored(NETWORKING, "servicecidrs") else { return Arc::default() };
        let mut known = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let since = served.cache.since();
        if known.0 != since {
            let objects = served.cache.snapshot("", "", 0, false, |_| true).objects;
            *known = (since, Arc::new(objects.iter().flat_map(|o| ranges::of(&o.document())).collect()));
        }
        known.1.clone()
    }
}

/// What a write of a service takes and makes free.
#[derive(Clone, Default)]
pub struct Allocation {
    services: Option<Arc<Services>>,
    /// The IPAddress objects, and what else changes with the service.
    addresses: Beside,
    takes: BTreeSet<u16>,
    frees: BTreeSet<u16>,
}

impl Allocation {
    /// Also changes this.
    pub fn with(mut self, more: Beside) -> Allocation {
        self.addresses.compares.extend(more.compares);
        self.addresses.ops.extend(more.ops);
        self
    }

    /// Writes the object (`None` deletes it) and what goes with it. `Contended`: work the allocation out anew.
    pub async fn write(
        self,
        shared: &Shared,
        served: &Served,
        key: &str,
        at: u64,
        value: Option<(Bytes, i64)>,
    ) -> Result<Written, Status> {
        let storage = &shared.storage;
        let Some(services) = self.services.filter(|_| !(self.takes.is_empty() && self.frees.is_empty())) else {
            return storage.write(served, key, at, value, self.addresses).await;
        };
        let ports = &services.ports;
        let mut state = ports.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            if !state.used.is_disjoint(&self.takes) {
                break;
            }
            let mut used = &state.used - &self.frees;
            used.extend(&self.takes);
            let mut beside = self.addresses.clone();
            beside.change(state.revision, ports.put(&used));
            let written = storage.write(served, key, at, value.clone(), beside).await?;
            match written {
                Written::At(revision) => (state.revision, state.used) = (revision, used),
                Written::Contended => {
                    let before = state.revision;
                    ports.load(storage, &mut state).await?;
                    if state.revision == before {
                        break; // it was an address
                    }
                    continue;
                }
                Written::Changed(_) => {}
            }
            return Ok(written);
        }
        Ok(Written::Contended)
    }
}

/// Before a write is validated: what the client left out of what the service was given stays as it was, and what only
/// the old type had goes.
pub fn carry_over(served: &Served, new: &mut Value, old: Option<&Value>) {
    if !served.is_core("services") {
        return;
    }
    const GIVEN: [&str; 4] = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];
    let is_empty = |s: &Value, member: &str| s["spec"][member].is_empty();
    if let Some(old) = old.filter(|old| wants_ip(old)) {
        let unchanged = |new: &Value, member: &str| new["spec"][member] == old["spec"][member];
        if !wants_ip(new) {
            for member in GIVEN {
                if unchanged(new, member) {
                    new.remove(&["spec", member]);
                }
            }
        } else {
            if is_empty(new, "clusterIP") && (is_empty(new, "clusterIPs") || unchanged(new, "clusterIPs")) {
                copy(new, old, "clusterIP");
            }
            if unchanged(new, "clusterIP") && is_empty(new, "clusterIPs") {
                copy(new, old, "clusterIPs");
            } else if !unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
                new.remove(&["spec", "clusterIPs"]);
            }
            for member in ["ipFamilies", "ipFamilyPolicy"] {
                if is_empty(new, member) {
                    copy(new, old, member);
                }
            }
        }
    }
    if wants_ip(new) && is_empty(new, "clusterIPs") && !is_empty(new, "clusterIP") {
        let ip = new["spec"]["clusterIP"].clone();
        new.set(&["spec", "clusterIPs"], vec![ip]);
    }
    let Some(old) = old else { return };
    let old_ports = old.array_at(&["spec", "ports"]).to_vec();
    let (wants, wanted) = (wants_ports(new), wants_ports(old));
    if wanted {
        let ports = new.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
            let was = old_ports.iter().find(same).and_then(|o| o.int_at(&["nodePort"]));
            let now = port.int_at(&["nodePort"]).filter(|p| *p != 0);
            match was {
                Some(was) if wants && now.is_none() => port.set(&["nodePort"], was),
                // Compat: a type without node ports drops those that the client merely sent back.
                Some(was) if !wants && now == Some(was) => {
                    port.remove(&["nodePort"]);
                }
                _ => {}
            }
        }
    }
    if wants_health_port(new)
        && wants_health_port(old)
        && new.int_at(&["spec", "healthCheckNodePort"]).unwrap_or(0) == 0
    {
        copy(new, old, "healthCheckNodePort");
    }
}

fn copy(new: &mut Value, old: &Value, member: &str) {
    if let Some(value) = old.at(&["spec", member]) {
        new.set(&["spec", member], value);
    }
}

/// Gives a service that is valid what it needs, and frees what it no longer does.
pub async fn allocate(
    shared: &Shared,
    served: &Served,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Allocation, Status> {
    if !served.is_core("services") {
        return Ok(Allocation::default());
    }
    // Others may have freed what is asked for, or taken what would be chosen.
    shared.storage.fresh().await?;
    let mut work = Work::new(shared, served, new, old);
    if wants_ip(new) {
        let configured: Vec<&str> = shared.services.cidrs.iter().map(Cidr::family).collect();
        let errors = families::settle(new, old.filter(|old| wants_ip(old)), &configured);
        if !errors.is_empty() {
            return Err(Status::invalid(&served.gk, &work.name, &errors));
        }
    }
    work.ips(new)?;
    work.ports(new).await?;
    work.frees(&cluster_ips(new), &node_ports(new))?;
    Ok(work.allocation)
}

/// Frees what a service that is to be deleted has.
pub async fn release(shared: &Shared, served: &Served, object: &Object) -> Result<Allocation, Status> {
    if !served.is_core("services") {
        return Ok(Allocation::default());
    }
    shared.storage.fresh().await?;
    let service = object.stored_document();
    let mut work = Work::new(shared, served, &service, Some(&service));
    work.frees(&BTreeSet::new(), &BTreeSet::new())?;
    Ok(work.allocation)
}

/// The IPAddress object of a service's address.
fn address(ip: IpAddr, namespace: &str, name: &str) -> Bytes {
    let mut address = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "labels": {"ipaddress.kubernetes.io/ip-family": family(ip), MANAGED_BY.0: MANAGED_BY.1},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    });
    metadata::fill_new(&mut address);
    metadata::stored_bytes(&mut address)
}

/// Whether an IPAddress belongs to this service.
fn is_of(address: &Value, namespace: &str, name: &str) -> bool {
    let parent = &address["spec"]["parentRef"];
    let is = |member: &str, want: &str| parent.str_at(&[member]).unwrap_or_default() == want;
    is("group", "") && is("resource", "services") && is("namespace", namespace) && is("name", name)
}

fn service_type(service: &Value) -> &str {
    service.str_at(&["spec", "type"]).filter(|t| !t.is_empty()).unwrap_or("ClusterIP")
}

fn wants_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

fn wants_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false),
        _ => false,
    }
}

fn wants_health_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

/// The addresses of a service that is not headless.
fn cluster_ips(service: &Value) -> BTreeSet<IpAddr> {
    let list = service.array_at(&["spec", "clusterIPs"]);
    let single = if list.is_empty() { service.at(&["spec", "clusterIP"]) } else { None };
    let all = list.iter().chain(single).filter(|_| wants_ip(service));
    all.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

fn node_ports(service: &Value) -> BTreeSet<u16> {
    let ports = service.array_at(&["spec", "ports"]).iter().filter_map(|p| p.int_at(&["nodePort"]));
    // Two protocols of one service may share a port.
    let all = ports.chain(service.int_at(&["spec", "healthCheckNodePort"]));
    all.filter_map(|p| u16::try_from(p).ok().filter(|p| *p > 0)).collect()
}

struct Work<'a> {
    shared: &'a Shared,
    served: &'a Served,
    namespace: String,
    name: String,
    has_ips: BTreeSet<IpAddr>,
    has_ports: BTreeSet<u16>,
    allocation: Allocation,
}

impl<'a> Work<'a> {
    fn new(shared: &'a Shared, served: &'a Served, service: &Value, old: Option<&Value>) -> Work<'a> {
        Work {
            shared,
            served,
            namespace: metadata::namespace(service).to_string(),
            name: metadata::name(service).to_string(),
            has_ips: old.map(cluster_ips).unwrap_or_default(),
            has_ports: old.map(node_ports).unwrap_or_default(),
            allocation: Allocation { services: Some(shared.services.clone()), ..Allocation::default() },
        }
    }

    fn invalid(&self, error: Error) -> Status {
        Status::invalid(&self.served.gk, &self.name, &[error])
    }

    fn addresses(&self) -> Result<Arc<Served>, Status> {
        self.shared.registry.stored(NETWORKING, "ipaddresses").ok_or_else(Status::unknown_resource)
    }

    fn ips(&mut self, service: &mut Value) -> Result<(), Status> {
        if !wants_ip(service) || service.str_at(&["spec", "clusterIP"]) == Some("None") {
            return Ok(());
        }
        let ranges = self.shared.services.ranges(self.shared);
        let addresses = self.addresses()?;
        let mut ips: Vec<Value> = service.array_at(&["spec", "clusterIPs"]).to_vec();
        let asked: BTreeSet<IpAddr> = &cluster_ips(service) - &self.has_ips;
        for ip in asked {
            let taken = addresses.cache.get(&ip.to_string()).is_some();
            let taken = if taken { Err("provided IP is already allocated".into()) } else { Ok(()) };
            ranges::admit(&ranges, ip).and(taken).map_err(|why| {
                let at = Path::new("spec").child("clusterIPs");
                self.invalid(Error::invalid(&at, ips.clone(), format!("failed to allocate IP {ip}: {why}")))
            })?;
            self.take(&addresses, ip);
        }
        let families = service.array_at(&["spec", "ipFamilies"]).to_vec();
        for of_family in families.iter().skip(ips.len()).filter_map(Value::as_str) {
            let is_taken = |ip: IpAddr| addresses.cache.get(&ip.to_string()).is_some();
            let ip = ranges::pick(&ranges, of_family, is_taken);
            let ip = ip.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
            self.take(&addresses, ip);
            ips.push(ip.to_string().into());
        }
        service.set(&["spec", "clusterIP"], ips.first().cloned().unwrap_or_default());
        service.set(&["spec", "clusterIPs"], ips);
        Ok(())
    }

    fn take(&mut self, addresses: &Served, ip: IpAddr) {
        let value = address(ip, &self.namespace, &self.name);
        self.allocation.addresses.change(0, Op::put(addresses.store_key(&ip.to_string()), value));
    }

    /// Frees what the service had and does not keep.
    fn frees(&mut self, keeps: &BTreeSet<IpAddr>, keeps_ports: &BTreeSet<u16>) -> Result<(), Status> {
        let ports = |p: &&u16| self.shared.services.ports.contains(**p);
        self.allocation.frees = (&self.has_ports - keeps_ports).iter().filter(ports).copied().collect();
        let addresses = self.addresses()?;
        for ip in &self.has_ips - keeps {
            let found = addresses.cache.get(&ip.to_string());
            if let Some(found) = found.filter(|a| is_of(&a.document(), &self.namespace, &self.name)) {
                let delete = Op::delete(addresses.store_key(&found.key));
                self.allocation.addresses.change(found.rv, delete);
            }
        }
        Ok(())
    }

    async fn ports(&mut self, service: &mut Value) -> Result<(), Status> {
        let wants = wants_ports(service);
        let base = Path::new("spec").child("ports");
        for i in 0..service.array_at(&["spec", "ports"]).len() {
            let asked = service["spec"]["ports"][i].int_at(&["nodePort"]).unwrap_or(0);
            if asked != 0 {
                self.take_port(asked, &base.index(i).child("nodePort")).await?;
            } else if wants {
                let number = match shared_port(service, i) {
                    Some(number) => number,
                    None => self.any_port(service).await?,
                };
                if let Some(ports) = service.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut) {
                    ports[i].set(&["nodePort"], number);
                }
            }
        }
        if wants_health_port(service) {
            let path = Path::new("spec").child("healthCheckNodePort");
            match service.int_at(&["spec", "healthCheckNodePort"]).unwrap_or(0) {
                0 => {
                    let number = self.any_port(service).await?;
                    service.set(&["spec", "healthCheckNodePort"], number);
                }
                asked => self.take_port(asked, &path).await?,
            }
        }
        Ok(())
    }

    async fn any_port(&mut self, service: &Value) -> Result<u16, Status> {
        let mine = &(&node_ports(service) | &self.allocation.takes) | &self.has_ports;
        let number = self.shared.services.ports.any(&mine).await;
        let number = number.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        self.allocation.takes.insert(number);
        Ok(number)
    }

    async fn take_port(&mut self, asked: i64, path: &Path) -> Result<(), Status> {
        let is = |ports: &BTreeSet<u16>| u16::try_from(asked).is_ok_and(|port| ports.contains(&port));
        if is(&self.has_ports) || is(&self.allocation.takes) {
            return Ok(());
        }
        let port = self.shared.services.ports.admit(&self.shared.storage, asked).await;
        self.allocation.takes.insert(port.map_err(|why| self.invalid(Error::invalid(path, asked, why)))?);
        Ok(())
    }
}

/// The same port of another protocol has a node port already, which this one shares.
fn shared_port(service: &Value, i: usize) -> Option<u16> {
    let ports = service.array_at(&["spec", "ports"]);
    let this = &ports[i];
    let twin = ports[..i].iter().find(|p| p["port"] == this["port"] && p["protocol"] != this["protocol"])?;
    u16::try_from(twin.int_at(&["nodePort"])?).ok().filter(|p| *p > 0)
}
