//! A cluster in a few lines of JSON and a table of questions.

use std::sync::Arc;

use expect_test::expect;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Fake {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Zone for Fake {
    fn has_namespace(&self, name: &str) -> bool {
        ["default", "empty"].contains(&name)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let at = (Some(namespace), Some(name));
        self.services
            .iter()
            .find(|service| (service.metadata.namespace.as_deref(), service.metadata.name.as_deref()) == at)
            .cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let key = format!("{namespace}/{service}");
        self.slices.iter().filter(|slice| crate::zone::slice_service(slice).contains(&key)).cloned().collect()
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.iter().filter(|service| service_ips(service).contains(&ip)).cloned().collect()
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.iter().filter(|slice| endpoint_host(slice, ip).is_some()).cloned().collect()
    }

    fn has_pod(&self, namespace: &str, ip: IpAddr) -> bool {
        namespace == "default" && ["10.1.0.5", "fd00::5"].contains(&ip.to_string().as_str())
    }
}

fn cluster() -> Fake {
    let service = |name: &str, spec: Value| {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})).unwrap(),
        )
    };
    let slice = |service: &str, family: &str, ports: Value, endpoints: Value| {
        let labels = json!({"kubernetes.io/service-name": service});
        let value = json!({"metadata": {"namespace": "default", "name": service, "labels": labels}, "addressType": family, "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(value).unwrap())
    };
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    Fake {
        services: vec![
            service(
                "web",
                json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::96"], "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
            ),
            service("old", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]})),
            service(
                "db",
                json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "sql", "port": 5432}]}),
            ),
            service("idle", json!({"clusterIP": "None", "ports": [{"name": "x", "port": 1}]})),
            service("out", json!({"type": "ExternalName", "externalName": "example.com"})),
        ],
        slices: vec![
            slice("web", "IPv4", http, json!([{"addresses": ["10.1.0.9"]}])),
            slice(
                "db",
                "IPv4",
                json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]),
                json!([
                    {"addresses": ["10.1.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                    {"addresses": ["10.1.0.8"], "conditions": {"ready": true}},
                    {"addresses": ["10.1.0.66"], "hostname": "db-2", "conditions": {"ready": false}},
                ]),
            ),
            slice(
                "idle",
                "IPv4",
                json!([{"name": "x", "port": 1}]),
                json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false}}]),
            ),
        ],
    }
}

fn settings() -> Settings {
    Settings {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        ttl_s: 5,
        service_ips: vec!["10.96.0.10".parse().unwrap()],
    }
}

fn show(name: &str, kind: RecordType) -> String {
    let asked = Name::from_ascii(name).unwrap();
    let lines = |records: &[Record]| records.iter().map(|record| format!("    {record}\n")).collect::<String>();
    match answer(&cluster(), &settings(), &asked, kind) {
        Outcome::Found { answers, additionals } if additionals.is_empty() => {
            format!("{name} {kind}\n{}", lines(&answers))
        }
        Outcome::Found { answers, additionals } => {
            format!("{name} {kind}\n{}  with\n{}", lines(&answers), lines(&additionals))
        }
        Outcome::Alias { answer, target } => format!("{name} {kind}\n    {answer} -> {target}\n"),
        other => format!("{name} {kind} {other:?}\n"),
    }
}

#[test]
fn services() {
    use RecordType::{A, AAAA, SRV, TXT};
    let questions = [
        ("web.default.svc.cluster.local.", A),
        ("WEB.Default.svc.cluster.LOCAL.", AAAA),
        ("web.default.svc.cluster.local.", TXT),
        ("old.default.svc.cluster.local.", A),
        ("old.default.svc.cluster.local.", AAAA),
        ("web.empty.svc.cluster.local.", A),
        ("none.default.svc.cluster.local.", A),
        ("_http._tcp.web.default.svc.cluster.local.", SRV),
        ("_dns._udp.web.default.svc.cluster.local.", SRV),
        ("_dns._tcp.web.default.svc.cluster.local.", SRV),
        ("_http._tcp.web.default.svc.cluster.local.", A),
        ("_tcp.web.default.svc.cluster.local.", SRV),
        ("_sctp.web.default.svc.cluster.local.", SRV),
        ("out.default.svc.cluster.local.", A),
        ("default.svc.cluster.local.", A),
        ("nowhere.svc.cluster.local.", A),
        ("svc.cluster.local.", A),
        ("example.com.cluster.local.", A),
        ("example.com.default.svc.cluster.local.", A),
        ("a.b.c.d.e.svc.cluster.local.", A),
    ];
    expect![[r#"
        web.default.svc.cluster.local. A
            web.default.svc.cluster.local. 5 IN A 10.96.0.5
        WEB.Default.svc.cluster.LOCAL. AAAA
            WEB.Default.svc.cluster.LOCAL. 5 IN AAAA fd00::96
        web.default.svc.cluster.local. TXT Empty
        old.default.svc.cluster.local. A
            old.default.svc.cluster.local. 5 IN A 10.96.0.6
        old.default.svc.cluster.local. AAAA Empty
        web.empty.svc.cluster.local. A Missing
        none.default.svc.cluster.local. A Missing
        _http._tcp.web.default.svc.cluster.local. SRV
            _http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.
          with
            web.default.svc.cluster.local. 5 IN A 10.96.0.5
            web.default.svc.cluster.local. 5 IN AAAA fd00::96
        _dns._udp.web.default.svc.cluster.local. SRV
            _dns._udp.web.default.svc.cluster.local. 5 IN SRV 0 100 53 web.default.svc.cluster.local.
          with
            web.default.svc.cluster.local. 5 IN A 10.96.0.5
            web.default.svc.cluster.local. 5 IN AAAA fd00::96
        _dns._tcp.web.default.svc.cluster.local. SRV Missing
        _http._tcp.web.default.svc.cluster.local. A Empty
        _tcp.web.default.svc.cluster.local. SRV Empty
        _sctp.web.default.svc.cluster.local. SRV Missing
        out.default.svc.cluster.local. A
            out.default.svc.cluster.local. 5 IN CNAME example.com. -> example.com.
        default.svc.cluster.local. A Empty
        nowhere.svc.cluster.local. A Missing
        svc.cluster.local. A Empty
        example.com.cluster.local. A Missing
        example.com.default.svc.cluster.local. A Missing
        a.b.c.d.e.svc.cluster.local. A Missing
    "#]]
    .assert_eq(&questions.map(|(name, kind)| show(name, kind)).concat());
}

#[test]
fn headless_services_and_endpoints() {
    use RecordType::{A, AAAA, SRV};
    let questions = [
        ("db.default.svc.cluster.local.", A),
        ("db.default.svc.cluster.local.", AAAA),
        ("idle.default.svc.cluster.local.", A),
        ("db-0.db.default.svc.cluster.local.", A),
        ("10-1-0-8.db.default.svc.cluster.local.", A),
        ("10-1-0-7.db.default.svc.cluster.local.", A),
        ("db-2.db.default.svc.cluster.local.", A),
        ("_sql._tcp.db.default.svc.cluster.local.", SRV),
        ("_sql._udp.db.default.svc.cluster.local.", SRV),
    ];
    expect![[r#"
        db.default.svc.cluster.local. A
            db.default.svc.cluster.local. 5 IN A 10.1.0.7
            db.default.svc.cluster.local. 5 IN A 10.1.0.8
        db.default.svc.cluster.local. AAAA Empty
        idle.default.svc.cluster.local. A Missing
        db-0.db.default.svc.cluster.local. A
            db-0.db.default.svc.cluster.local. 5 IN A 10.1.0.7
        10-1-0-8.db.default.svc.cluster.local. A
            10-1-0-8.db.default.svc.cluster.local. 5 IN A 10.1.0.8
        10-1-0-7.db.default.svc.cluster.local. A Missing
        db-2.db.default.svc.cluster.local. A Missing
        _sql._tcp.db.default.svc.cluster.local. SRV
            _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 db-0.db.default.svc.cluster.local.
            _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 10-1-0-8.db.default.svc.cluster.local.
          with
            db-0.db.default.svc.cluster.local. 5 IN A 10.1.0.7
            10-1-0-8.db.default.svc.cluster.local. 5 IN A 10.1.0.8
        _sql._udp.db.default.svc.cluster.local. SRV Missing
    "#]]
    .assert_eq(&questions.map(|(name, kind)| show(name, kind)).concat());
}

#[test]
fn pods_reverse_and_the_zone_itself() {
    use RecordType::{A, AAAA, NS, PTR, SOA, TXT};
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    let service = "6.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    let questions = [
        ("10-1-0-5.default.pod.cluster.local.", A),
        ("10-1-0-5.default.pod.cluster.local.", AAAA),
        ("fd00--5.default.pod.cluster.local.", AAAA),
        ("10-1-0-6.default.pod.cluster.local.", A),
        ("10-1-0-5.empty.pod.cluster.local.", A),
        ("nonsense.default.pod.cluster.local.", A),
        ("5.0.96.10.in-addr.arpa.", PTR),
        ("5.0.96.10.in-addr.arpa.", A),
        (service, PTR),
        (v6, PTR),
        ("7.0.1.10.in-addr.arpa.", PTR),
        ("8.0.1.10.in-addr.arpa.", PTR),
        ("9.0.1.10.in-addr.arpa.", PTR),
        ("66.0.1.10.in-addr.arpa.", PTR),
        ("10.in-addr.arpa.", PTR),
        ("dns-version.cluster.local.", TXT),
        ("dns-version.cluster.local.", A),
        ("cluster.local.", NS),
        ("cluster.local.", SOA),
        ("cluster.local.", A),
        ("ns.dns.cluster.local.", A),
        ("example.com.", A),
        ("local.", A),
        (".", NS),
    ];
    expect![[r#"
        10-1-0-5.default.pod.cluster.local. A
            10-1-0-5.default.pod.cluster.local. 5 IN A 10.1.0.5
        10-1-0-5.default.pod.cluster.local. AAAA Empty
        fd00--5.default.pod.cluster.local. AAAA
            fd00--5.default.pod.cluster.local. 5 IN AAAA fd00::5
        10-1-0-6.default.pod.cluster.local. A Missing
        10-1-0-5.empty.pod.cluster.local. A Missing
        nonsense.default.pod.cluster.local. A Missing
        5.0.96.10.in-addr.arpa. PTR
            5.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local.
        5.0.96.10.in-addr.arpa. A Empty
        6.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR
            6.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR web.default.svc.cluster.local.
        5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR NotOurs
        7.0.1.10.in-addr.arpa. PTR
            7.0.1.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local.
        8.0.1.10.in-addr.arpa. PTR
            8.0.1.10.in-addr.arpa. 5 IN PTR 10-1-0-8.db.default.svc.cluster.local.
        9.0.1.10.in-addr.arpa. PTR NotOurs
        66.0.1.10.in-addr.arpa. PTR NotOurs
        10.in-addr.arpa. PTR NotOurs
        dns-version.cluster.local. TXT
            dns-version.cluster.local. 5 IN TXT 1.1.0
        dns-version.cluster.local. A Empty
        cluster.local. NS
            cluster.local. 5 IN NS ns.dns.cluster.local.
        cluster.local. SOA
            cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
        cluster.local. A Empty
        ns.dns.cluster.local. A
            ns.dns.cluster.local. 5 IN A 10.96.0.10
        example.com. A NotOurs
        local. A NotOurs
        . NS NotOurs
    "#]]
    .assert_eq(&questions.map(|(name, kind)| show(name, kind)).concat());
}
