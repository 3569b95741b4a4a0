//! Tables for the environment of a container: documents in, variables or the error out.

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn objects() -> Objects {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "cm"}, "data": {"KEY": "from-map", "bad=name": "x"}}))
            .unwrap();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "sec"}, "data": {"PASS": "aHVudGVyMg=="}})).unwrap();
    Objects {
        config_maps: BTreeMap::from([("cm".into(), Arc::new(map))]),
        secrets: BTreeMap::from([("sec".into(), Arc::new(secret))]),
    }
}

fn services() -> Vec<Arc<Service>> {
    let service = |namespace: &str, name: &str, ip: &str, ports: serde_json::Value| {
        let value =
            json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": ports}});
        Arc::new(serde_json::from_value(value).unwrap())
    };
    vec![
        service("default", "kubernetes", "10.96.0.1", json!([{"name": "https", "port": 443}])),
        service(
            "ns",
            "web-front",
            "10.96.0.9",
            json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        ),
        service("ns", "headless", "None", json!([{"port": 80}])),
        service("other", "hidden", "10.96.0.7", json!([{"port": 80}])),
    ]
}

fn check(links: bool, container: serde_json::Value, expected: Expect) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"b": "2", "a": "one\n\"1\""}, "annotations": {"k": "v"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "sa", "enableServiceLinks": links, "containers": [container]},
    }))
    .unwrap();
    let allocatable =
        BTreeMap::from([("cpu".to_owned(), Quantity("2".into())), ("memory".to_owned(), Quantity("1Gi".into()))]);
    let (services, objects) = (services(), objects());
    let inputs = Inputs {
        pod: &pod,
        pod_ips: &["10.1.0.5".to_owned(), "fd00::5".to_owned()],
        host_ips: &["192.168.0.2".to_owned()],
        allocatable: &allocatable,
        services: &services,
        objects: &objects,
    };
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let text = match plan(&inputs, container) {
        Ok(env) => env.iter().map(|(name, value)| format!("{name}={value:?}\n")).collect(),
        Err(error) => format!("{error}\n"),
    };
    expected.assert_eq(&text);
}

#[test]
fn services_are_announced() {
    check(
        true,
        json!({"name": "c"}),
        expect![[r#"
            KUBERNETES_PORT="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP_ADDR="10.96.0.1"
            KUBERNETES_PORT_443_TCP_PORT="443"
            KUBERNETES_PORT_443_TCP_PROTO="tcp"
            KUBERNETES_SERVICE_HOST="10.96.0.1"
            KUBERNETES_SERVICE_PORT="443"
            KUBERNETES_SERVICE_PORT_HTTPS="443"
            WEB_FRONT_PORT="tcp://10.96.0.9:80"
            WEB_FRONT_PORT_53_UDP="udp://10.96.0.9:53"
            WEB_FRONT_PORT_53_UDP_ADDR="10.96.0.9"
            WEB_FRONT_PORT_53_UDP_PORT="53"
            WEB_FRONT_PORT_53_UDP_PROTO="udp"
            WEB_FRONT_PORT_80_TCP="tcp://10.96.0.9:80"
            WEB_FRONT_PORT_80_TCP_ADDR="10.96.0.9"
            WEB_FRONT_PORT_80_TCP_PORT="80"
            WEB_FRONT_PORT_80_TCP_PROTO="tcp"
            WEB_FRONT_SERVICE_HOST="10.96.0.9"
            WEB_FRONT_SERVICE_PORT="80"
            WEB_FRONT_SERVICE_PORT_DNS="53"
            WEB_FRONT_SERVICE_PORT_HTTP="80"
        "#]],
    );
}

#[test]
fn own_variables_use_earlier_ones_and_services() {
    let container = json!({
        "name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}}, {"secretRef": {"name": "no", "optional": true}}],
        "env": [
            {"name": "A", "value": "a"},
            {"name": "B", "value": "$(A)/$(P_KEY)/$(KUBERNETES_SERVICE_HOST)/$(LATER)/$$(A)"},
            {"name": "LATER", "value": "l"},
            {"name": "EMPTY"},
            {"name": "PASS", "value": "overridden"},
            {"name": "MAP", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "KEY"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "PASS"}}},
            {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "x", "optional": true}}},
        ],
    });
    check(
        false,
        container,
        expect![[r#"
            A="a"
            B="a/from-map/10.96.0.1/$(LATER)/$(A)"
            EMPTY=""
            KUBERNETES_PORT="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP_ADDR="10.96.0.1"
            KUBERNETES_PORT_443_TCP_PORT="443"
            KUBERNETES_PORT_443_TCP_PROTO="tcp"
            KUBERNETES_SERVICE_HOST="10.96.0.1"
            KUBERNETES_SERVICE_PORT="443"
            KUBERNETES_SERVICE_PORT_HTTPS="443"
            LATER="l"
            MAP="from-map"
            PASS="overridden"
            P_KEY="from-map"
            SECRET="hunter2"
        "#]],
    );
}

#[test]
fn fields_and_resources() {
    let paths = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations['k']",
        "metadata.labels['none']",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let resources = [
        ("limits.cpu", "1"),
        ("limits.cpu", "1m"),
        ("limits.memory", "1Mi"),
        ("requests.cpu", "0"),
        ("requests.cpu", "1m"),
        ("requests.memory", "1M"),
        ("limits.ephemeral-storage", "1"),
    ];
    let fields = paths
        .iter()
        .enumerate()
        .map(|(at, path)| json!({"name": format!("F{at:02}"), "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    let amounts = resources.iter().enumerate().map(|(at, (resource, divisor))| {
        json!({"name": format!("R{at}"), "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}})
    });
    let container = json!({
        "name": "c",
        "env": fields.chain(amounts).collect::<Vec<_>>(),
        "resources": {"requests": {"cpu": "250m", "memory": "1500k"}},
    });
    check(
        false,
        container,
        expect![[r#"
            F00="p"
            F01="ns"
            F02="u1"
            F03="a=\"one\\n\\\"1\\\"\"\nb=\"2\""
            F04="v"
            F05=""
            F06="n1"
            F07="sa"
            F08="192.168.0.2"
            F09="192.168.0.2"
            F10="10.1.0.5"
            F11="10.1.0.5,fd00::5"
            KUBERNETES_PORT="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP="tcp://10.96.0.1:443"
            KUBERNETES_PORT_443_TCP_ADDR="10.96.0.1"
            KUBERNETES_PORT_443_TCP_PORT="443"
            KUBERNETES_PORT_443_TCP_PROTO="tcp"
            KUBERNETES_SERVICE_HOST="10.96.0.1"
            KUBERNETES_SERVICE_PORT="443"
            KUBERNETES_SERVICE_PORT_HTTPS="443"
            R0="2"
            R1="2000"
            R2="1024"
            R3="1"
            R4="250"
            R5="2"
            R6="0"
        "#]],
    );
}

#[test]
fn errors_read_as_upstream_writes_them() {
    let table = [
        (json!({"envFrom": [{"configMapRef": {"name": "no"}}]}), "configmap \"no\" not found"),
        (json!({"envFrom": [{"secretRef": {"name": "no"}}]}), "secret \"no\" not found"),
        (
            json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}),
            "couldn't find key k in ConfigMap ns/cm",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}}]}),
            "couldn't find key k in Secret ns/sec",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]}),
            "configmap \"no\" not found",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            "unsupported fieldPath: spec.x",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.x"}}}]}),
            "unsupported container resource : limits.x",
        ),
    ];
    for (mut container, expected) in table {
        container["name"] = json!("c");
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": {"containers": [container]}}))
                .unwrap();
        let objects = objects();
        let inputs = Inputs {
            pod: &pod,
            pod_ips: &[],
            host_ips: &[],
            allocatable: &BTreeMap::new(),
            services: &[],
            objects: &objects,
        };
        let result = plan(&inputs, &pod.spec.as_ref().unwrap().containers[0]);
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

#[test]
fn references_and_arguments() {
    let container: Container = serde_json::from_value(json!({
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}}],
    }))
    .unwrap();
    assert_eq!(
        references(&container),
        References { config_maps: ["a".into(), "b".into()].into(), secrets: ["s".into()].into() }
    );
    let env = [("A".to_owned(), "1".to_owned())];
    assert_eq!(super::expand(&["$(A)".into(), "$(B)".into(), "$$(A)".into()], &env), ["1", "$(B)", "$(A)"]);
}
