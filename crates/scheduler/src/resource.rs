//! Amounts of resources as plain integers: what a node offers and what a pod asks for.
//! Reads typed resource lists (`Quantity` text) once, when an object arrives; nothing here is parsed again in a cycle.
//! Invariant: CPU is in thousandths, everything else in whole units, both rounded up, never negative in a parsed list.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// CPU a container without a CPU request counts for when nodes are compared.
pub const DEFAULT_CPU_MILLI: i64 = 100;
/// Memory a container without a memory request counts for when nodes are compared.
pub const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

type List = BTreeMap<String, Quantity>;

/// One amount of every resource. `scalars` holds extended resources and huge pages, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    pub pods: i64,
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// Reads a resource list; a quantity that cannot be read counts as zero (the API server refuses such objects).
    pub fn from_list(list: Option<&List>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            out.set(name, amount(name, quantity));
        }
        out
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu_milli,
            "memory" => self.memory_bytes,
            "ephemeral-storage" => self.ephemeral_bytes,
            "pods" => self.pods,
            _ => self.scalar(name),
        }
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.binary_search_by(|(n, _)| (**n).cmp(name)).map_or(0, |i| self.scalars[i].1)
    }

    pub fn set(&mut self, name: &str, value: i64) {
        match name {
            "cpu" => self.cpu_milli = value,
            "memory" => self.memory_bytes = value,
            "ephemeral-storage" => self.ephemeral_bytes = value,
            "pods" => self.pods = value,
            _ => match self.scalars.binary_search_by(|(n, _)| (**n).cmp(name)) {
                Ok(i) => self.scalars[i].1 = value,
                Err(i) => self.scalars.insert(i, (name.into(), value)),
            },
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.each(other, |own, other| own + other);
    }

    pub fn sub(&mut self, other: &Self) {
        self.each(other, |own, other| own - other);
    }

    /// Each resource becomes the larger of the two.
    pub fn max(&mut self, other: &Self) {
        self.each(other, i64::max);
    }

    fn each(&mut self, other: &Self, join: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = join(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = join(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = join(self.ephemeral_bytes, other.ephemeral_bytes);
        self.pods = join(self.pods, other.pods);
        for (name, value) in &other.scalars {
            self.set(name, join(self.scalar(name), *value));
        }
    }

    /// True when nothing but a place among the pods is asked for.
    pub fn is_empty(&self) -> bool {
        self.cpu_milli == 0
            && self.memory_bytes == 0
            && self.ephemeral_bytes == 0
            && self.scalars.iter().all(|(_, v)| *v == 0)
    }
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    let Ok(parsed) = meta::quantity::Quantity::parse(&quantity.0) else { return 0 };
    if name == "cpu" { parsed.milli_value() } else { parsed.value() }
}

/// What a pod asks for: the sum of its containers and sidecars, or the highest moment of its init containers, plus overhead.
pub fn pod_requests(pod: &core::Pod) -> Resources {
    sum_requests(pod, Resources::default())
}

/// CPU (milli) and memory (bytes) with a small default for containers that ask for none, used only to compare nodes.
pub fn pod_requests_non_zero(pod: &core::Pod) -> (i64, i64) {
    let default =
        Resources { cpu_milli: DEFAULT_CPU_MILLI, memory_bytes: DEFAULT_MEMORY_BYTES, ..Resources::default() };
    let sum = sum_requests(pod, default);
    (sum.cpu_milli, sum.memory_bytes)
}

fn sum_requests(pod: &core::Pod, default: Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let init_statuses = pod.status.as_ref().and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let infeasible = resize_infeasible(pod);
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(container, statuses, infeasible, &default));
    }
    let mut sidecars = Resources::default();
    let mut init_peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut request = container_requests(container, init_statuses, infeasible, &default);
        if container.restart_policy.as_deref() == Some("Always") {
            // A sidecar stays: it counts beside the app containers and beside every later init container.
            total.add(&request);
            sidecars.add(&request);
            request = sidecars.clone();
        } else {
            request.add(&sidecars);
        }
        init_peak.max(&request);
    }
    total.max(&init_peak);
    // Requests on the pod as a whole replace the sum for the resources they name.
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        for (name, quantity) in list {
            total.set(name, amount(name, quantity));
        }
    }
    total.add(&Resources::from_list(spec.overhead.as_ref()));
    total
}

/// A container's requests; while a resize is under way, the larger of what is wanted and what is in force.
fn container_requests(
    c: &core::Container,
    statuses: &[core::ContainerStatus],
    infeasible: bool,
    default: &Resources,
) -> Resources {
    let list = c.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut out = Resources::from_list(list);
    if let Some(status) = statuses.iter().find(|s| s.name == c.name) {
        let mut in_force = Resources::from_list(status.allocated_resources.as_ref());
        if let Some(actual) = status.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            in_force.max(&Resources::from_list(Some(actual)));
        }
        if infeasible && status.allocated_resources.is_some() {
            out = in_force;
        } else {
            out.max(&in_force);
        }
    }
    let names = |name: &str| list.is_some_and(|l| l.contains_key(name));
    if !names("cpu") && out.cpu_milli == 0 {
        out.cpu_milli = default.cpu_milli;
    }
    if !names("memory") && out.memory_bytes == 0 {
        out.memory_bytes = default.memory_bytes;
    }
    out
}

fn resize_infeasible(pod: &core::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn requests_of_containers_init_containers_and_overhead() {
        golden::check!("tests/requests.txt", |case| {
            let (_, spec) = case.split_once(": ").expect("a name");
            let got = pod_requests(&pod(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#)));
            format!("{} {} {}", got.cpu_milli, got.memory_bytes, got.scalar("example.com/gpu"))
        });
    }

    #[test]
    fn containers_without_requests_count_a_little() {
        let got = pod_requests_non_zero(&pod(
            r#"{"spec":{"containers":[{"name":"a"},{"name":"b","resources":{"requests":{"cpu":"0"}}}]}}"#,
        ));
        assert_eq!(got, (100, 2 * DEFAULT_MEMORY_BYTES));
    }
}
