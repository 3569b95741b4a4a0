//! What services are given: cluster IPs and node ports.
//!
//! Reads and changes service documents. The pools live in memory and are filled from the stored services at the start.
//! Invariants: no two services get the same IP or port, under any concurrency; what a failed write took is given back.

mod pool;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use meta::field::{Error, Path};
use meta::{Status, Value};

use crate::config::Cidr;
use crate::object::Object;
use crate::registry::Served;
use crate::shared::Shared;
use pool::{Pool, Taken};

/// The pools of the cluster.
pub struct Services {
    cidr: Cidr,
    ports_range: RangeInclusive<u16>,
    ips: Pool,
    ports: Pool,
}

impl Services {
    pub fn new(cidr: Cidr, ports_range: RangeInclusive<u16>) -> Services {
        let last = cidr.size().saturating_sub(if cidr.address.is_ipv4() { 2 } else { 1 });
        // The first addresses are for who asks for one by name, so that chance seldom takes those. Source: KEP-3070.
        let reserved = (cidr.size() / 16).clamp(16, 256);
        let ports = u64::from(*ports_range.start())..=u64::from(*ports_range.end());
        let port_reserved = ((ports.end() - ports.start() + 1) / 32).clamp(16, 128);
        let ports_pool = Pool::new(ports, port_reserved);
        Services { ips: Pool::new(1..=last, reserved), ports: ports_pool, cidr, ports_range }
    }

    /// Marks what stored services have. Answers what two of them share, which should not be.
    pub fn fill(&self, services: &[Arc<Object>]) -> Vec<String> {
        let mut clashes = Vec::new();
        for object in services {
            let service = object.document();
            for ip in cluster_ips(&service) {
                if let Some(offset) = self.cidr.offset(ip)
                    && self.ips.take(offset) != Taken::New
                {
                    clashes.push(format!("cluster IP {ip} of service {}", object.key));
                }
            }
            for port in node_ports(&service) {
                if self.ports.take(port) == Taken::Already {
                    clashes.push(format!("node port {port} of service {}", object.key));
                }
            }
        }
        clashes
    }

    pub fn first_ip(&self) -> IpAddr {
        self.cidr.nth(1)
    }
}

/// What a write has taken and what it makes free. Unless it is kept, dropping it gives back what was taken.
#[derive(Default)]
pub struct Allocation {
    services: Option<Arc<Services>>,
    took_ips: Vec<u64>,
    took_ports: Vec<u64>,
    frees_ips: Vec<u64>,
    frees_ports: Vec<u64>,
}

impl Allocation {
    /// The write was stored.
    pub fn keep(&mut self) {
        self.took_ips.clear();
        self.took_ports.clear();
        let Some(services) = &self.services else { return };
        self.frees_ips.drain(..).for_each(|ip| services.ips.give_back(ip));
        self.frees_ports.drain(..).for_each(|port| services.ports.give_back(port));
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let Some(services) = &self.services else { return };
        self.took_ips.drain(..).for_each(|ip| services.ips.give_back(ip));
        self.took_ports.drain(..).for_each(|port| services.ports.give_back(port));
    }
}

fn is_service(served: &Served) -> bool {
    served.info.plural == "services" && served.info.group.is_empty()
}

/// Gives a new service its IP and ports.
pub fn on_create(shared: &Shared, served: &Served, document: &mut Value, _dry_run: bool) -> Result<Allocation, Status> {
    if !is_service(served) {
        return Ok(Allocation::default());
    }
    let mut work = Work::new(&shared.services, served, document);
    work.ips(document, &[])?;
    work.ports(document, &[])?;
    Ok(work.allocation)
}

/// Before an update is validated: what the client left out of what the service was given stays as it was.
pub fn carry_over(served: &Served, new: &mut Value, old: &Value) {
    if !is_service(served) {
        return;
    }
    if wants_ip(new) && wants_ip(old) {
        if new.str_at(&["spec", "clusterIP"]).unwrap_or_default().is_empty() {
            copy(new, old, "clusterIP");
            copy(new, old, "clusterIPs");
        } else if new.array_at(&["spec", "clusterIPs"]).is_empty() {
            copy(new, old, "clusterIPs");
        }
        for member in ["ipFamilies", "ipFamilyPolicy"] {
            if new["spec"][member].is_empty() {
                copy(new, old, member);
            }
        }
    }
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

/// Gives a changed service what it now needs, and frees what it no longer does.
pub fn on_update(
    shared: &Shared,
    served: &Served,
    new: &mut Value,
    old: &Value,
    _dry_run: bool,
) -> Result<Allocation, Status> {
    if !is_service(served) {
        return Ok(Allocation::default());
    }
    let services = &shared.services;
    let mut work = Work::new(services, served, new);
    if !wants_ip(new) && wants_ip(old) {
        for member in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            new.remove(&["spec", member]);
        }
    }
    let had_ips: Vec<u64> = cluster_ips(old).filter_map(|ip| services.cidr.offset(ip)).collect();
    let had_ports: Vec<u64> = node_ports(old).collect();
    work.ips(new, &had_ips)?;
    work.ports(new, &had_ports)?;
    let keeps: Vec<u64> = cluster_ips(new).filter_map(|ip| services.cidr.offset(ip)).collect();
    work.allocation.frees_ips = had_ips.into_iter().filter(|ip| !keeps.contains(ip)).collect();
    let keeps: Vec<u64> = node_ports(new).collect();
    work.allocation.frees_ports = had_ports.into_iter().filter(|port| !keeps.contains(port)).collect();
    Ok(work.allocation)
}

/// Frees what a deleted service had.
pub fn on_delete(shared: &Shared, served: &Served, object: &Object) {
    if !is_service(served) {
        return;
    }
    let service = object.stored_document();
    let services = &shared.services;
    cluster_ips(&service).filter_map(|ip| services.cidr.offset(ip)).for_each(|ip| services.ips.give_back(ip));
    node_ports(&service).for_each(|port| services.ports.give_back(port));
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

fn cluster_ips(service: &Value) -> impl Iterator<Item = IpAddr> {
    let list = service.array_at(&["spec", "clusterIPs"]);
    let single = if list.is_empty() { service.str_at(&["spec", "clusterIP"]) } else { None };
    list.iter().filter_map(Value::as_str).chain(single).filter_map(|ip| ip.parse().ok())
}

fn node_ports(service: &Value) -> impl Iterator<Item = u64> {
    let mut all: Vec<u64> = service
        .array_at(&["spec", "ports"])
        .iter()
        .filter_map(|p| p.int_at(&["nodePort"]))
        .chain(service.int_at(&["spec", "healthCheckNodePort"]))
        .filter_map(|p| u64::try_from(p).ok().filter(|p| *p > 0))
        .collect();
    all.sort_unstable();
    // Two protocols of one service may share a port.
    all.dedup();
    all.into_iter()
}

struct Work<'a> {
    services: &'a Arc<Services>,
    served: &'a Served,
    name: String,
    allocation: Allocation,
}

impl<'a> Work<'a> {
    fn new(services: &'a Arc<Services>, served: &'a Served, document: &Value) -> Work<'a> {
        let mut allocation = Allocation::default();
        allocation.services = Some(services.clone());
        Work { services, served, name: crate::metadata::name(document).to_string(), allocation }
    }

    fn invalid(&self, error: Error) -> Status {
        Status::invalid(&self.served.gk, &self.name, &[error])
    }

    /// `has` are those that the service holds already.
    fn ips(&mut self, service: &mut Value, has: &[u64]) -> Result<(), Status> {
        if !wants_ip(service) {
            return Ok(());
        }
        let asked = match service.str_at(&["spec", "clusterIP"]).unwrap_or_default() {
            "" => service.array_at(&["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default(),
            ip => ip,
        }
        .to_string();
        let family = if self.services.cidr.address.is_ipv4() { "IPv4" } else { "IPv6" };
        if asked == "None" {
            service.set(&["spec", "clusterIP"], "None");
            service.set_default(&["spec", "clusterIPs"], vec!["None"]);
            if service["spec"]["selector"].is_empty() {
                // Compat: whoever fills in the endpoints may use both families (upstream's headless services).
                let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
                service.set_default(&["spec", "ipFamilies"], vec![family, other]);
                service.set_default(&["spec", "ipFamilyPolicy"], "RequireDualStack");
            } else {
                self.families(service, family)?;
            }
            return Ok(());
        }
        self.families(service, family)?;
        let ip = match asked.as_str() {
            "" => {
                let offset = self
                    .services
                    .ips
                    .take_any()
                    .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
                self.allocation.took_ips.push(offset);
                self.services.cidr.nth(offset).to_string()
            }
            asked => {
                self.take_ip(asked, has)?;
                asked.to_string()
            }
        };
        service.set(&["spec", "clusterIP"], ip.as_str());
        service.set(&["spec", "clusterIPs"], vec![ip]);
        Ok(())
    }

    fn take_ip(&mut self, asked: &str, has: &[u64]) -> Result<(), Status> {
        let path = Path::new("spec").child("clusterIPs");
        let Ok(ip) = asked.parse::<IpAddr>() else {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return Err(self.invalid(Error::invalid(&path.index(0), asked, detail)));
        };
        let failed = |why: String| {
            let detail = format!("failed to allocate IP {asked}: {why}");
            self.invalid(Error::invalid(&path, vec![asked], detail))
        };
        let offset = self.services.cidr.offset(ip);
        if offset.is_some_and(|o| has.contains(&o)) {
            return Ok(());
        }
        let taken = offset.map_or(Taken::Outside, |o| self.services.ips.take(o));
        match (taken, offset) {
            (Taken::New, Some(offset)) => {
                self.allocation.took_ips.push(offset);
                Ok(())
            }
            (Taken::Already, _) => Err(failed("provided IP is already allocated".into())),
            _ => Err(failed(format!(
                "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}",
                self.services.cidr
            ))),
        }
    }

    /// One family is served; asking for more is refused, preferring more is not.
    fn families(&self, service: &mut Value, family: &str) -> Result<(), Status> {
        let path = Path::new("spec");
        let asked = service.array_at(&["spec", "ipFamilies"]);
        if let Some((i, other)) = asked.iter().enumerate().find(|(_, f)| f.as_str().is_some_and(|f| f != family)) {
            let at = path.child("ipFamilies").index(i);
            return Err(self.invalid(Error::invalid(&at, other, "not configured on this cluster")));
        }
        if service.str_at(&["spec", "ipFamilyPolicy"]) == Some("RequireDualStack") {
            let at = path.child("ipFamilyPolicy");
            let detail = "this cluster is not configured for dual-stack services";
            return Err(self.invalid(Error::invalid(&at, "RequireDualStack", detail)));
        }
        if service["spec"]["ipFamilies"].is_empty() {
            service.set(&["spec", "ipFamilies"], vec![family]);
        }
        service.set_default(&["spec", "ipFamilyPolicy"], "SingleStack");
        Ok(())
    }

    fn ports(&mut self, service: &mut Value, has: &[u64]) -> Result<(), Status> {
        let wants = wants_ports(service);
        let mut mine: Vec<u64> = Vec::new();
        let base = Path::new("spec").child("ports");
        let count = service.array_at(&["spec", "ports"]).len();
        for i in 0..count {
            let port = &service["spec"]["ports"][i];
            let asked = port.int_at(&["nodePort"]).unwrap_or(0);
            if asked != 0 && service_type(service) != "ClusterIP" && service_type(service) != "ExternalName" {
                let number = u64::try_from(asked).unwrap_or(0);
                if !mine.contains(&number) {
                    self.take_port(number, asked, &base.index(i).child("nodePort"), has)?;
                    mine.push(number);
                }
            } else if asked == 0 && wants {
                let number = self.shared_port(service, i, &mine).map_or_else(|| self.any_port(), Ok)?;
                mine.push(number);
                let port = service.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut).and_then(|p| p.get_mut(i));
                if let Some(port) = port {
                    port.set(&["nodePort"], number);
                }
            }
        }
        if wants_health_port(service) {
            match service.int_at(&["spec", "healthCheckNodePort"]).unwrap_or(0) {
                0 => {
                    let number = self.any_port()?;
                    service.set(&["spec", "healthCheckNodePort"], number);
                }
                asked => {
                    let path = Path::new("spec").child("healthCheckNodePort");
                    self.take_port(u64::try_from(asked).unwrap_or(0), asked, &path, has)?;
                }
            }
        }
        Ok(())
    }

    /// The same port of another protocol has a node port already, which this one shares.
    fn shared_port(&self, service: &Value, i: usize, mine: &[u64]) -> Option<u64> {
        let ports = service.array_at(&["spec", "ports"]);
        let this = &ports[i];
        let twin = ports[..i].iter().find(|p| p["port"] == this["port"] && p["protocol"] != this["protocol"])?;
        let number = u64::try_from(twin.int_at(&["nodePort"])?).ok()?;
        mine.contains(&number).then_some(number)
    }

    fn any_port(&mut self) -> Result<u64, Status> {
        let number = self
            .services
            .ports
            .take_any()
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        self.allocation.took_ports.push(number);
        Ok(number)
    }

    fn take_port(&mut self, number: u64, asked: i64, path: &Path, has: &[u64]) -> Result<(), Status> {
        if has.contains(&number) {
            return Ok(());
        }
        match self.services.ports.take(number) {
            Taken::New => {
                self.allocation.took_ports.push(number);
                Ok(())
            }
            Taken::Already => Err(self.invalid(Error::invalid(path, asked, "provided port is already allocated"))),
            Taken::Outside => {
                let range = &self.services.ports_range;
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                );
                Err(self.invalid(Error::invalid(path, asked, detail)))
            }
        }
    }
}
