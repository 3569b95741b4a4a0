//! How much CPU, memory and disk the node and its containers use: the summary API and Prometheus text.
//!
//! Reads the runtime's container stats and /proc; keeps one earlier sample to tell rates. Invariant: a number that is not
//! known is left out, never invented.

mod node;
pub mod prometheus;
pub mod summary;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cri::v1::ContainerStats;
use k8s_openapi::api::core::v1::Pod;

use crate::pods::PodSource;

/// CPU counters are only compared when they are at least this far apart.
const MIN_WINDOW_NANOS: i64 = 1_000_000_000;

/// One look at a CPU counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at_nanos: i64,
    total_nanos: u64,
    rate_nano_cores: Option<u64>,
}

/// Collects usage. Cheap to clone.
#[derive(Clone)]
pub struct Collector(Arc<Inner>);

struct Inner {
    node_name: String,
    data_dir: PathBuf,
    runtime: cri::Client,
    pods: Arc<dyn PodSource>,
    samples: Mutex<HashMap<String, Sample>>,
}

/// Usage of one running container.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    pub id: String,
    pub name: String,
    pub image: String,
    pub started_at: Option<jiff::Timestamp>,
    pub at_nanos: i64,
    pub cpu_total_nanos: Option<u64>,
    pub cpu_nano_cores: Option<u64>,
    pub working_set_bytes: Option<u64>,
    pub usage_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    pub writable_layer_bytes: Option<u64>,
    pub writable_layer_inodes: Option<u64>,
}

/// A pod with its running containers.
#[derive(Debug, Clone)]
pub struct PodUsage {
    pub pod: Arc<Pod>,
    pub containers: Vec<ContainerUsage>,
}

/// Everything known at one moment.
#[derive(Debug, Clone)]
pub struct Usage {
    pub node_name: String,
    pub node: node::NodeUsage,
    pub node_cpu_nano_cores: Option<u64>,
    pub pods: Vec<PodUsage>,
}

impl Collector {
    pub fn new(node_name: String, data_dir: PathBuf, runtime: cri::Client, pods: Arc<dyn PodSource>) -> Self {
        Self(Arc::new(Inner { node_name, data_dir, runtime, pods, samples: Mutex::default() }))
    }

    /// Asks the runtime and the kernel.
    pub async fn collect(&self) -> Result<Usage, cri::Error> {
        let stats = self.0.runtime.container_stats_list(Default::default()).await?;
        let by_id: HashMap<&str, &ContainerStats> =
            stats.iter().filter_map(|stats| Some((stats.attributes.as_ref()?.id.as_str(), stats))).collect();
        let mut next = HashMap::new();
        let mut pods = Vec::new();
        for pod in self.0.pods.pods() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let running = self.0.pods.containers(&uid).into_iter().filter(|container| container.running);
            let containers: Vec<_> = running
                .filter_map(|container| {
                    Some(self.container(&pod, container.name, by_id.get(container.id.as_str())?, &mut next))
                })
                .collect();
            pods.push(PodUsage { pod, containers });
        }
        let node = node::read(&self.0.data_dir);
        let node_cpu_nano_cores = node.cpu_total_nanos.and_then(|total| self.rate("", node.at_nanos, total, &mut next));
        *self.0.samples.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(Usage { node_name: self.0.node_name.clone(), node, node_cpu_nano_cores, pods })
    }

    fn container(
        &self,
        pod: &Pod,
        name: String,
        stats: &ContainerStats,
        next: &mut HashMap<String, Sample>,
    ) -> ContainerUsage {
        let id = stats.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default();
        let status = pod.status.as_ref().and_then(|status| {
            let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
            all.into_iter().find(|status| status.name == name)
        });
        let running = status.and_then(|status| status.state.as_ref()?.running.as_ref());
        let cpu = stats.cpu.as_ref();
        let at_nanos = cpu.map_or(0, |cpu| cpu.timestamp);
        let total = cpu.and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()).map(|value| value.value);
        let own_rate = cpu.and_then(|cpu| cpu.usage_nano_cores.as_ref()).map(|value| value.value);
        let cpu_nano_cores = own_rate.or_else(|| total.and_then(|total| self.rate(&id, at_nanos, total, next)));
        let memory = stats.memory.as_ref();
        let layer = stats.writable_layer.as_ref();
        ContainerUsage {
            name,
            image: status.map(|status| status.image.clone()).unwrap_or_default(),
            started_at: running.and_then(|running| running.started_at.as_ref()).map(|time| time.0),
            at_nanos,
            cpu_total_nanos: total,
            cpu_nano_cores,
            working_set_bytes: memory.and_then(|memory| memory.working_set_bytes.as_ref()).map(|value| value.value),
            usage_bytes: memory
                .and_then(|memory| memory.usage_bytes.as_ref())
                .map(|value| value.value)
                .filter(|bytes| *bytes > 0),
            rss_bytes: memory.and_then(|memory| memory.rss_bytes.as_ref()).map(|value| value.value),
            page_faults: memory.and_then(|memory| memory.page_faults.as_ref()).map(|value| value.value),
            major_page_faults: memory.and_then(|memory| memory.major_page_faults.as_ref()).map(|value| value.value),
            writable_layer_bytes: layer.and_then(|layer| layer.used_bytes.as_ref()).map(|value| value.value),
            writable_layer_inodes: layer.and_then(|layer| layer.inodes_used.as_ref()).map(|value| value.value),
            id,
        }
    }

    fn rate(&self, id: &str, at_nanos: i64, total_nanos: u64, next: &mut HashMap<String, Sample>) -> Option<u64> {
        let last = self.0.samples.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        let (rate, kept) = advance(last, at_nanos, total_nanos);
        next.insert(id.to_owned(), kept);
        rate
    }
}

// Pure: the rate since the last sample, and the sample to keep.
fn advance(last: Option<Sample>, at_nanos: i64, total_nanos: u64) -> (Option<u64>, Sample) {
    match last {
        Some(last) if at_nanos - last.at_nanos < MIN_WINDOW_NANOS => (last.rate_nano_cores, last),
        Some(last) if total_nanos >= last.total_nanos => {
            let used = u128::from(total_nanos - last.total_nanos) * 1_000_000_000;
            let rate = Some((used / (at_nanos - last.at_nanos) as u128) as u64);
            (rate, Sample { at_nanos, total_nanos, rate_nano_cores: rate })
        }
        _ => (None, Sample { at_nanos, total_nanos, rate_nano_cores: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_samples_apart() {
        let second = 1_000_000_000;
        let (rate, first) = advance(None, 10 * second, 100);
        assert_eq!(rate, None);
        assert_eq!(advance(Some(first), 10 * second + 1, 200), (None, first));
        let (rate, later) = advance(Some(first), 12 * second, 100 + second as u64);
        assert_eq!(rate, Some(500_000_000));
        assert_eq!(advance(Some(later), 12 * second + 5, 9 * second as u64).0, Some(500_000_000));
        assert_eq!(advance(Some(later), 20 * second, 3).0, None);
    }
}
