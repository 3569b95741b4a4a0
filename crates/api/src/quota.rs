//! What objects use of resource quotas: the arithmetic that admission and the quota controller share.
//!
//! Reads documents in their stored version. Invariant: pure; `usage` names only what `counts` is true for, and an object
//! that a quota's scopes do not select uses nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use meta::Value;
use meta::quantity::{Format, Quantity};
use meta::time::{self, Timestamp};

use crate::kinds::pod;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

const ONE: Quantity = Quantity::from_i64(1, Format::DecimalSI);
/// What containers ask for and a quota counts under the plain name, `requests.` and `limits.`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Kinds that a quota may name without `count/`.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "secrets", "resourcequotas", "replicationcontrollers"];
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Follows the name of a DeviceClass.
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// What a claim has that asks for all devices: it can have no more.
const ALL_DEVICES: i64 = 32;
const STORAGE: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

/// Reads a resource list; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    let pairs = list.as_object().into_iter().flat_map(|map| map.iter());
    pairs.filter_map(|(name, amount)| Some((name.to_string(), Quantity::parse(amount.as_str()?).ok()?))).collect()
}

pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |own| own.add(*amount));
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let highest = to.get(name).map_or(*amount, |own| (*own).max(*amount));
        to.insert(name.clone(), highest);
    }
}

/// What the pod needs as a whole: its containers and sidecars together, or the greatest moment of its start, whichever
/// is more; what the pod says of itself comes before both. `own` says what one container needs.
pub fn pod_sum(pod: &Value, list: &str, own: impl Fn(&Value) -> Amounts) -> Amounts {
    let (mut sum, mut sidecars, mut start) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in pod.array_at(&["spec", "containers"]) {
        add(&mut sum, &own(container));
    }
    for container in pod.array_at(&["spec", "initContainers"]) {
        let mut own = own(container);
        if container.str_at(&["restartPolicy"]) == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut start, &own);
    }
    raise(&mut sum, &start);
    sum.extend(amounts(&pod["spec"]["resources"][list]));
    sum
}

/// `count/deployments.apps`
fn count_name(group: &str, resource: &str) -> String {
    format!("count/{resource}{}{group}", if group.is_empty() { "" } else { "." })
}

/// Whether objects of the resource can use something of what a quota calls `name`.
pub fn counts(group: &str, resource: &str, name: &str) -> bool {
    if name == count_name(group, resource) {
        return true;
    }
    let bare = name.strip_prefix("requests.").unwrap_or(name);
    match (group, resource) {
        ("", "pods") => {
            name == "pods"
                || COMPUTE.contains(&name.strip_prefix("limits.").unwrap_or(bare))
                || bare.starts_with("hugepages-")
                || (bare != name && is_extended(bare))
        }
        ("", "services") => ["services", "services.nodeports", "services.loadbalancers"].contains(&name),
        ("", "persistentvolumeclaims") => STORAGE.contains(&name.rsplit(OF_CLASS).next().unwrap_or(name)),
        ("resource.k8s.io", "resourceclaims") => name.ends_with(DEVICES),
        ("", _) => resource == name && PLAIN_COUNTS.contains(&name),
        _ => false,
    }
}

/// A resource that no node has of its own: a device, by its vendor's domain.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What an object uses at a time. A pod that has ended uses its place in the store only.
pub fn usage(group: &str, resource: &str, object: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(count_name(group, resource), ONE)]);
    match (group, resource) {
        ("", "pods") if is_charged(object, now) => {
            used.insert("pods".into(), ONE);
            add(&mut used, &pod_amounts(object));
        }
        ("", "services") => add(&mut used, &service(&object["spec"])),
        ("", "persistentvolumeclaims") => add(&mut used, &claim(object)),
        ("resource.k8s.io", "resourceclaims") => add(&mut used, &devices(&object["spec"]["devices"])),
        ("", _) if PLAIN_COUNTS.contains(&resource) => drop(used.insert(resource.into(), ONE)),
        _ => {}
    }
    used
}

/// Compat: a pod that should be gone is charged for its grace once more, until its node is given up (quota evaluator for
/// pods).
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    let end = pod.str_at(&["metadata", "deletionTimestamp"]).and_then(time::parse);
    let grace = pod.int_at(&["metadata", "deletionGracePeriodSeconds"]);
    let overdue = end.zip(grace).is_some_and(|(end, grace)| now.as_second() > end.as_second() + grace);
    !overdue && !matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"))
}

fn pod_amounts(pod: &Value) -> Amounts {
    let statuses =
        || ["containerStatuses", "initContainerStatuses"].into_iter().flat_map(|list| pod.array_at(&["status", list]));
    // While a resize is under way the larger of what is wanted and what is in force counts.
    let own = |list: &str, container: &Value| {
        let mut own = amounts(&container["resources"][list]);
        if let Some(status) = statuses().find(|status| status["name"] == container["name"]) {
            raise(&mut own, &amounts(&status["resources"][list]));
            if list == "requests" {
                raise(&mut own, &amounts(&status["allocatedResources"]));
            }
        }
        own
    };
    let mut requests = pod_sum(pod, "requests", |container| own("requests", container));
    let mut limits = pod_sum(pod, "limits", |container| own("limits", container));
    let mut overhead = amounts(&pod["spec"]["overhead"]);
    add(&mut requests, &overhead);
    overhead.retain(|name, _| limits.get(name).is_some_and(|limit| !limit.is_zero()));
    add(&mut limits, &overhead);
    quota_names(&requests, &limits)
}

/// Requests and limits under the names that quotas have for them.
fn quota_names(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut named = Amounts::new();
    for (name, amount) in requests {
        let plain = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        if plain {
            named.insert(name.clone(), *amount);
        }
        if plain || is_extended(name) {
            named.insert(format!("requests.{name}"), *amount);
        }
    }
    let limits = limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str()));
    named.extend(limits.map(|(name, amount)| (format!("limits.{name}"), *amount)));
    named
}

fn service(spec: &Value) -> Amounts {
    let whole = |count: usize| Quantity::from_i64(count as i64, Format::DecimalSI);
    let mut used = Amounts::from([("services".into(), ONE)]);
    let ports = spec.array_at(&["ports"]);
    let balanced = spec.str_at(&["type"]) == Some("LoadBalancer");
    if balanced {
        used.insert("services.loadbalancers".into(), ONE);
    }
    if balanced || spec.str_at(&["type"]) == Some("NodePort") {
        // Ports may not be given out yet: what counts is what is meant.
        let only_named = balanced && spec.bool_at(&["allocateLoadBalancerNodePorts"]) == Some(false);
        let counted = ports.iter().filter(|port| !only_named || port.int_at(&["nodePort"]).unwrap_or(0) != 0);
        used.insert("services.nodeports".into(), whole(counted.count()));
    }
    used
}

fn claim(claim: &Value) -> Amounts {
    let mut storage = amounts(&claim["spec"]["resources"]["requests"]);
    raise(&mut storage, &amounts(&claim["status"]["allocatedResources"]));
    let annotated = claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let class = annotated.or(claim.str_at(&["spec", "storageClassName"])).unwrap_or_default();
    let mut used = Amounts::new();
    for (name, amount) in STORAGE.into_iter().zip([Some(ONE), storage.get("storage").copied()]) {
        let Some(amount) = amount else { continue };
        used.insert(name.into(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
    }
    used
}

/// The devices that a claim asks for, by class; of alternatives the most.
fn devices(asked: &Value) -> Amounts {
    let mut used = Amounts::new();
    for request in asked.array_at(&["requests"]) {
        let one = request.get("exactly").filter(|exactly| !exactly.is_null());
        let mut most = Amounts::new();
        for asked in one.into_iter().chain(request.array_at(&["firstAvailable"])) {
            let all = asked.str_at(&["allocationMode"]) == Some("All");
            let count = if all { ALL_DEVICES } else { asked.int_at(&["count"]).unwrap_or(1) };
            let name = format!("{}{DEVICES}", asked.str_at(&["deviceClassName"]).unwrap_or_default());
            raise(&mut most, &Amounts::from([(name, Quantity::from_i64(count, Format::DecimalSI))]));
        }
        add(&mut used, &most);
    }
    used
}

/// What the containers of a pod have to say for a quota on these names and do not, in upstream's words.
///
/// Compat: only for cpu and memory, and not where the pod says it as a whole (quota evaluator for pods).
pub fn missing<'a>(pod: &Value, names: impl Iterator<Item = &'a str>) -> Option<String> {
    if !pod["spec"]["resources"]["requests"].is_empty() || !pod["spec"]["resources"]["limits"].is_empty() {
        return None;
    }
    let containers = || ["containers", "initContainers"].into_iter().flat_map(|list| pod.array_at(&["spec", list]));
    let mut lines = Vec::new();
    for name in names.filter(|name| ["cpu", "memory"].contains(&name.rsplit('.').next().unwrap_or(name))) {
        let says = |c: &&Value| {
            let said = quota_names(&amounts(&c["resources"]["requests"]), &amounts(&c["resources"]["limits"]));
            said.contains_key(name)
        };
        let silent: BTreeSet<&str> = containers().filter(|c| !says(c)).filter_map(|c| c.str_at(&["name"])).collect();
        if !silent.is_empty() {
            lines.push(format!("{name} for: {}", Vec::from_iter(silent).join(",")));
        }
    }
    (!lines.is_empty()).then(|| format!("must specify {}", lines.join("; ")))
}

/// Whether the quota's scopes leave the object to it.
pub fn selects(quota: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let fits = |scope: &Value, operator: &str, values: &[Value]| {
        in_scope(group, resource, object, scope.as_str().unwrap_or_default(), operator, values)
    };
    quota.array_at(&["spec", "scopes"]).iter().all(|scope| fits(scope, "Exists", &[]))
        && quota.array_at(&["spec", "scopeSelector", "matchExpressions"]).iter().all(|expression| {
            let operator = expression.str_at(&["operator"]).unwrap_or_default();
            fits(&expression["scopeName"], operator, expression.array_at(&["values"]))
        })
}

fn in_scope(group: &str, resource: &str, object: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let text = |path: &[&str]| object.str_at(path).unwrap_or_default();
    let spec = &object["spec"];
    let has_deadline = || spec.int_at(&["activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0);
    let is_best_effort = || pod::qos_class(spec) == "BestEffort";
    match (group, resource, scope) {
        ("", "pods", "Terminating") => has_deadline(),
        ("", "pods", "NotTerminating") => !has_deadline(),
        ("", "pods", "BestEffort") => is_best_effort(),
        ("", "pods", "NotBestEffort") => !is_best_effort(),
        ("", "pods", "CrossNamespacePodAffinity") => reaches_other_namespaces(&spec["affinity"]),
        ("", "pods", "PriorityClass") => chosen(&[text(&["spec", "priorityClassName"])], operator, values),
        ("", "persistentvolumeclaims", "VolumeAttributesClass") => {
            let target = ["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"];
            let current = ["status", "currentVolumeAttributesClassName"];
            let names = [text(&["spec", "volumeAttributesClassName"]), text(&current), text(&target)];
            chosen(&names, operator, values)
        }
        _ => false,
    }
}

/// Whether one of the names that the object gives (none is empty) is as the operator wants it.
fn chosen(names: &[&str], operator: &str, values: &[Value]) -> bool {
    let given = || names.iter().filter(|name| !name.is_empty());
    let is_listed = |name: &&&str| values.iter().any(|value| value.as_str() == Some(**name));
    match operator {
        "Exists" => given().count() > 0,
        "DoesNotExist" => given().count() == 0,
        "In" => given().any(|name| is_listed(&name)),
        "NotIn" => given().count() == 0 || given().any(|name| !is_listed(&name)),
        _ => false,
    }
}

fn reaches_other_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|side| {
        let required = affinity[side].array_at(&["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
        let preferred = affinity[side].array_at(&["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let mut terms = required.chain(preferred.map(|weighted| &weighted["podAffinityTerm"]));
        terms.any(|term| !term["namespaces"].is_empty() || !term["namespaceSelector"].is_null())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn what_is_used() {
        let now = time::parse("2026-01-01T00:01:00Z").expect("time");
        golden::check!("quota/used.txt", |case| {
            let (resource, object) = case.split_once(' ').expect("a resource and an object");
            let used = usage("", resource, &meta::parse(object.as_bytes()).expect("JSON"), now);
            assert!(used.keys().all(|name| counts("", resource, name)), "{resource}");
            used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
        });
        for (group, resource, name, want) in [
            ("", "pods", "requests.storage", false),
            ("", "secrets", "configmaps", false),
            ("x.io", "pods", "pods", false),
            ("x.io", "pods", "count/pods.x.io", true),
        ] {
            assert_eq!(counts(group, resource, name), want, "{group} {resource} {name}");
        }
    }

    #[test]
    fn what_is_selected() {
        golden::check!("quota/selected.txt", |case| {
            let [spec, resource, object] = case.split(" | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let mut quota = json!({});
            quota.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
            selects(&quota, "", resource, &meta::parse(object.as_bytes()).expect("JSON")).to_string()
        });
    }

    #[test]
    fn what_containers_must_say() {
        let mut pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i"}]}});
        let names = ["limits.cpu", "pods", "requests.cpu", "requests.ephemeral-storage"];
        let want = "must specify limits.cpu for: a,b,i; requests.cpu for: b,i";
        assert_eq!(missing(&pod, names.into_iter()).as_deref(), Some(want));
        pod.set(&["spec", "resources", "requests", "cpu"], "1");
        assert_eq!(missing(&pod, names.into_iter()), None);
    }
}
