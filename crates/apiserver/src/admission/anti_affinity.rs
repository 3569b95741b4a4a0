//! LimitPodHardAntiAffinityTopology: no pod keeps others away from more than one node.

use meta::{Status, Value};

use super::Review;

const HOSTNAME: &str = "kubernetes.io/hostname";

pub fn validate(review: &Review<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let Some(pod) = new.filter(|_| review.is("", "pods") && review.subresource.is_empty()) else { return Ok(()) };
    let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let mut keys = pod.array_at(&path).iter().map(|term| term.str_at(&["topologyKey"]).unwrap_or_default());
    let wide = keys.find(|key| *key != HOSTNAME);
    wide.map_or(Ok(()), |key| {
        let what = "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey";
        Err(review.forbidden(format!("{what} {key} but only key {HOSTNAME} is allowed")))
    })
}
