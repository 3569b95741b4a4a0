//! PodResizeValidator and NodeDeclaredFeatureValidator: a pod that runs is changed only into what its node can do.
//!
//! Reads: nodes. Sources: KEP-1287, KEP-5328.

use api::quota::{self, amounts};
use meta::status::Cause;
use meta::{Status, Value};

use super::{Operation, Review};

/// The updated pod, what it was, and the name of its node.
fn updated<'a>(
    review: &Review<'_>,
    subresources: &[&str],
    [new, old]: [Option<&'a Value>; 2],
) -> Option<(&'a Value, &'a Value, &'a str)> {
    let asked = review.operation == Operation::Update && subresources.contains(&review.subresource);
    let (new, old) = (new.filter(|_| asked && review.is("", "pods"))?, old?);
    Some((new, old, new.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty())?))
}

fn node(review: &Review<'_>, name: &str) -> Result<Value, Status> {
    let found = review.shared.peek("", "nodes", "", name).map(|node| node.document_without_owners());
    found.ok_or_else(|| review.forbidden(format!("node {name:?} not found")))
}

pub fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some((pod, _, name)) = updated(review, &["resize"], [new, old]) else { return Ok(()) };
    let wrong = against(pod, &node(review, name)?, name);
    wrong.map_or(Ok(()), |(reason, message)| {
        let cause = Cause { reason: reason.into(), message: message.clone(), field: String::new() };
        Err(review.forbidden(message).with_causes(vec![cause]))
    })
}

fn requests(pod: &Value) -> quota::Amounts {
    quota::pod_sum(pod, "requests", |container| amounts(&container["resources"]["requests"]))
}

fn against(pod: &Value, node: &Value, name: &str) -> Option<(&'static str, String)> {
    let system = node["metadata"]["labels"]["kubernetes.io/os"].as_str().unwrap_or("linux");
    if system != "linux" {
        let message = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return Some(("UnsupportedPlatform", message));
    }
    let (mut asked, there) = (requests(pod), amounts(&node["status"]["allocatable"]));
    quota::add(&mut asked, &amounts(&pod["spec"]["overhead"]));
    let mut lacks = Vec::new();
    for (resource, milli) in [("cpu", true), ("memory", false)] {
        let shown =
            |of: &quota::Amounts| of.get(resource).map_or(0, |own| if milli { own.milli_value() } else { own.value() });
        let (asked, there) = (shown(&asked), shown(&there));
        if asked > there {
            lacks.push(format!("{resource}, requested: {asked}, allocatable: {there}"));
        }
    }
    let message = || format!("node didn't have enough allocatable resources: {}", lacks.join("; "));
    (!lacks.is_empty()).then(|| ("NodeCapacity", message()))
}

type Needs = fn(&Value, &Value) -> bool;

/// What an update may need of a node that is no matter of course there.
const FEATURES: [(&str, Needs); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", |new, old| new["spec"]["resources"] != old["spec"]["resources"]),
    ("InPlacePodVerticalScalingInitContainers", |new, old| starting(new) != starting(old)),
];

/// The resources of init containers that are no sidecars.
fn starting(pod: &Value) -> Vec<&Value> {
    let all = pod.array_at(&["spec", "initContainers"]).iter();
    all.filter(|c| c["restartPolicy"].as_str() != Some("Always")).map(|c| &c["resources"]).collect()
}

pub fn features(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some((pod, old, name)) = updated(review, &["", "resize"], [new, old]) else { return Ok(()) };
    let needed: Vec<&str> = FEATURES.iter().filter(|(_, needs)| needs(pod, old)).map(|(feature, _)| *feature).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let node = node(review, name)?;
    let declared = node.array_at(&["status", "declaredFeatures"]);
    let missing: Vec<&str> =
        needed.into_iter().filter(|feature| !declared.iter().any(|d| d.as_str() == Some(feature))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(review.forbidden(format!("pod update requires features {missing} which are not available on node {name:?}")))
}
