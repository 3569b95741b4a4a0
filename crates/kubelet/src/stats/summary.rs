//! `/stats/summary`: the node and its pods in the shape of the stats API (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`). Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{ContainerUsage, PodUsage, Usage};

/// The whole document.
pub fn document(usage: &Usage) -> Value {
    let node = &usage.node;
    let mut node_value = Map::new();
    node_value.insert("nodeName".into(), json!(usage.node_name));
    put(&mut node_value, "startTime", node.booted_at.map(|time| json!(time)));
    let cpu = object(&[("usageNanoCores", usage.node_cpu_nano_cores), ("usageCoreNanoSeconds", node.cpu_total_nanos)]);
    put(&mut node_value, "cpu", timed(node.at_nanos, cpu));
    let memory = object(&[
        ("availableBytes", node.memory_available_bytes),
        ("usageBytes", node.memory_used_bytes),
        ("workingSetBytes", node.working_set_bytes()),
    ]);
    put(&mut node_value, "memory", timed(node.at_nanos, memory));
    let disk = node.disk.map(|disk| {
        object(&[
            ("availableBytes", Some(disk.available_bytes)),
            ("capacityBytes", Some(disk.capacity_bytes)),
            ("usedBytes", Some(disk.used_bytes)),
            ("inodes", Some(disk.inodes)),
            ("inodesFree", Some(disk.inodes_free)),
            ("inodesUsed", Some(disk.inodes.saturating_sub(disk.inodes_free))),
        ])
    });
    put(&mut node_value, "fs", disk.and_then(|disk| timed(node.at_nanos, disk)));
    json!({"node": node_value, "pods": usage.pods.iter().map(pod).collect::<Vec<_>>()})
}

fn pod(usage: &PodUsage) -> Value {
    let meta = &usage.pod.metadata;
    let mut value = Map::new();
    value.insert("podRef".into(), json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}));
    put(
        &mut value,
        "startTime",
        usage.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| json!(time)),
    );
    value.insert("containers".into(), usage.containers.iter().map(container).collect());
    let sum =
        |field: fn(&ContainerUsage) -> Option<u64>| usage.containers.iter().filter_map(field).reduce(|a, b| a + b);
    let at_nanos = usage.containers.iter().map(|container| container.at_nanos).max().unwrap_or_default();
    let cpu =
        object(&[("usageNanoCores", sum(|c| c.cpu_nano_cores)), ("usageCoreNanoSeconds", sum(|c| c.cpu_total_nanos))]);
    put(&mut value, "cpu", timed(at_nanos, cpu));
    let memory = object(&[
        ("usageBytes", sum(|c| c.usage_bytes)),
        ("workingSetBytes", sum(|c| c.working_set_bytes)),
        ("rssBytes", sum(|c| c.rss_bytes)),
        ("pageFaults", sum(|c| c.page_faults)),
        ("majorPageFaults", sum(|c| c.major_page_faults)),
    ]);
    put(&mut value, "memory", timed(at_nanos, memory));
    Value::Object(value)
}

fn container(usage: &ContainerUsage) -> Value {
    let mut value = Map::new();
    value.insert("name".into(), json!(usage.name));
    put(&mut value, "startTime", usage.started_at.map(|time| json!(time)));
    let cpu = object(&[("usageNanoCores", usage.cpu_nano_cores), ("usageCoreNanoSeconds", usage.cpu_total_nanos)]);
    put(&mut value, "cpu", timed(usage.at_nanos, cpu));
    let memory = object(&[
        ("usageBytes", usage.usage_bytes),
        ("workingSetBytes", usage.working_set_bytes),
        ("rssBytes", usage.rss_bytes),
        ("pageFaults", usage.page_faults),
        ("majorPageFaults", usage.major_page_faults),
    ]);
    put(&mut value, "memory", timed(usage.at_nanos, memory));
    let rootfs = object(&[("usedBytes", usage.writable_layer_bytes), ("inodesUsed", usage.writable_layer_inodes)]);
    put(&mut value, "rootfs", timed(usage.at_nanos, rootfs));
    Value::Object(value)
}

fn object(fields: &[(&str, Option<u64>)]) -> Map<String, Value> {
    fields.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!((*value)?)))).collect()
}

// None when there is nothing to say.
fn timed(at_nanos: i64, mut fields: Map<String, Value>) -> Option<Value> {
    if fields.is_empty() {
        return None;
    }
    let time = Timestamp::from_nanosecond(i128::from(at_nanos)).ok()?;
    fields.insert("time".into(), json!(format!("{time:.0}")));
    Some(Value::Object(fields))
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value);
    }
}
