//! Usage as Prometheus text: `/metrics/resource`, `/metrics/cadvisor` and the kubelet's own `/metrics`. Pure, but for the
//! process numbers.

use std::fmt::Write;

use super::{ContainerUsage, PodUsage, Usage};

/// Text under construction.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Announces a metric.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at_ms: Option<i64>) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if index == 0 { "{" } else { "," });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at_ms) = at_ms {
            let _ = write!(self.0, " {at_ms}");
        }
        self.0.push('\n');
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A metric of containers or pods: its name, type and help, and where its value is.
type Field = (&'static str, &'static str, &'static str, fn(&ContainerUsage) -> Option<f64>);

fn cpu(container: &ContainerUsage) -> Option<f64> {
    container.cpu_total_nanos.map(seconds)
}

fn memory(container: &ContainerUsage) -> Option<f64> {
    container.working_set_bytes.map(|bytes| bytes as f64)
}

const RESOURCE_CONTAINERS: [Field; 3] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        cpu,
    ),
    ("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes", memory),
    (
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        |c| c.started_at.map(|at| at.as_millisecond() as f64 / 1000.0),
    ),
];

const RESOURCE_PODS: [Field; 2] = [
    ("pod_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", cpu),
    ("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes", memory),
];

/// The container metrics of cAdvisor that are known here.
const CADVISOR: [Field; 5] = [
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", cpu),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", memory),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |c| c.usage_bytes.map(|bytes| bytes as f64),
    ),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |c| c.rss_bytes.map(|bytes| bytes as f64)),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", |c| {
        c.started_at.map(|at| at.as_second() as f64)
    }),
];

/// `/metrics/resource`, what metrics-server reads.
pub fn resource(usage: &Usage) -> String {
    let mut text = Text::default();
    let node_ms = Some(usage.node.at_nanos / 1_000_000);
    containers(&mut text, usage, &RESOURCE_CONTAINERS, false);
    let (name, help) = ("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds");
    text.family(name, "counter", &format!("[STABLE] {help}"));
    if let Some(total) = usage.node.cpu_total_nanos {
        text.sample(name, &[], seconds(total), node_ms);
    }
    text.family("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
    if let Some(bytes) = usage.node.working_set_bytes() {
        text.sample("node_memory_working_set_bytes", &[], bytes as f64, node_ms);
    }
    for (name, kind, help, field) in RESOURCE_PODS {
        text.family(name, kind, help);
        for pod in &usage.pods {
            let Some(value) = pod.containers.iter().filter_map(field).reduce(|a, b| a + b) else { continue };
            let at = pod.containers.iter().map(|container| container.at_nanos).max().unwrap_or_default();
            text.sample(name, &labels(pod), value, Some(at / 1_000_000));
        }
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    text.family("resource_scrape_error", "gauge", help);
    text.sample("resource_scrape_error", &[], 0.0, None);
    text.finish()
}

/// `/metrics/cadvisor`: the container metrics that are known here.
pub fn cadvisor(usage: &Usage) -> String {
    let mut text = Text::default();
    containers(&mut text, usage, &CADVISOR, true);
    text.finish()
}

/// `/metrics`: how the process itself fares.
pub fn own(node_name: &str, running_pods: usize, running_containers: usize) -> String {
    let mut text = Text::default();
    text.family("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    text.sample("kubelet_node_name", &[("node", node_name)], 1.0, None);
    text.family("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    text.sample("kubelet_running_pods", &[], running_pods as f64, None);
    text.family("kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
    text.sample("kubelet_running_containers", &[("container_state", "running")], running_containers as f64, None);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse::<f64>().ok());
    if let Some(kib) = kib {
        text.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        text.sample("process_resident_memory_bytes", &[], kib * 1024.0, None);
    }
    text.finish()
}

/// `ids`: with the container's id and image.
fn containers(text: &mut Text, usage: &Usage, fields: &[Field], ids: bool) {
    for (name, kind, help, field) in fields {
        text.family(name, kind, help);
        for (pod, container) in each(usage) {
            let Some(value) = field(container) else { continue };
            let own = [("container", &*container.name), ("id", &container.id), ("image", &container.image)];
            let labels = [&own[..if ids { 3 } else { 1 }], &labels(pod)].concat();
            text.sample(name, &labels, value, Some(container.at_nanos / 1_000_000));
        }
    }
}

fn labels(pod: &PodUsage) -> [(&'static str, &str); 2] {
    let meta = &pod.pod.metadata;
    [("namespace", meta.namespace.as_deref().unwrap_or_default()), ("pod", meta.name.as_deref().unwrap_or_default())]
}

fn each(usage: &Usage) -> impl Iterator<Item = (&PodUsage, &ContainerUsage)> {
    usage.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use serde_json::json;

    use super::super::node::NodeUsage;
    use super::super::summary;
    use super::*;

    fn usage() -> Usage {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n\"s", "uid": "u"}})).unwrap();
        let container = ContainerUsage {
            id: "id".into(),
            name: "c".into(),
            image: "i".into(),
            started_at: jiff::Timestamp::from_millisecond(1_700_000_000_500).ok(),
            at_nanos: 1_700_000_005_000_000_000,
            cpu_total_nanos: Some(1_500_000_000),
            cpu_nano_cores: None,
            working_set_bytes: Some(4096),
            usage_bytes: None,
            rss_bytes: Some(1024),
            page_faults: None,
            major_page_faults: None,
            writable_layer_bytes: Some(7),
            writable_layer_inodes: None,
        };
        let other = ContainerUsage { name: "d".into(), ..container.clone() };
        let node = NodeUsage { at_nanos: 1_700_000_005_000_000_000, cpu_total_nanos: Some(9), ..NodeUsage::default() };
        Usage {
            node_name: "node".into(),
            node,
            node_cpu_nano_cores: Some(3),
            pods: vec![PodUsage { pod: Arc::new(pod), containers: vec![container, other] }],
        }
    }

    #[test]
    fn resource_text() {
        expect_test::expect_file!["prometheus.txt"].assert_eq(&resource(&usage()));
    }

    #[test]
    fn summary_document() {
        expect![[r#"{"node":{"cpu":{"time":"2023-11-14T22:13:25Z","usageCoreNanoSeconds":9,"usageNanoCores":3},"nodeName":"node"},"pods":[{"containers":[{"cpu":{"time":"2023-11-14T22:13:25Z","usageCoreNanoSeconds":1500000000},"memory":{"rssBytes":1024,"time":"2023-11-14T22:13:25Z","workingSetBytes":4096},"name":"c","rootfs":{"time":"2023-11-14T22:13:25Z","usedBytes":7},"startTime":"2023-11-14T22:13:20.5Z"},{"cpu":{"time":"2023-11-14T22:13:25Z","usageCoreNanoSeconds":1500000000},"memory":{"rssBytes":1024,"time":"2023-11-14T22:13:25Z","workingSetBytes":4096},"name":"d","rootfs":{"time":"2023-11-14T22:13:25Z","usedBytes":7},"startTime":"2023-11-14T22:13:20.5Z"}],"cpu":{"time":"2023-11-14T22:13:25Z","usageCoreNanoSeconds":3000000000},"memory":{"rssBytes":2048,"time":"2023-11-14T22:13:25Z","workingSetBytes":8192},"podRef":{"name":"p","namespace":"n\"s","uid":"u"}}]}"#]]
            .assert_eq(&summary::document(&usage()).to_string());
    }
}
