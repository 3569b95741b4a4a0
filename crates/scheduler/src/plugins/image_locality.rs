//! Prefers nodes that already have the pod's images, weighing an image by size and by how widely it is spread.

use crate::cache::{Cache, NodeId};
use crate::framework::{MAX_SCORE, Plugin, PreScore, Slot, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Below this sum of image bytes a node scores 0.
const LOW_BYTES: i64 = 23 * 1024 * 1024;
/// At this many bytes per container a node scores 100.
const HIGH_BYTES_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    plugin!("ImageLocality": PreScore, Score);

    /// When no node has any of the images, every node would score 0.
    fn pre_score(&self, pod: &PodInfo, cache: &Cache, _: &[NodeId]) -> PreScore {
        let known = pod.images.iter().any(|i| cache.image_node_count(i) > 0);
        if known { PreScore::Go(Slot::default()) } else { PreScore::Skip }
    }

    fn score(&self, _: &Slot, pod: &PodInfo, _: NodeId, node: &NodeInfo, cache: &Cache) -> i64 {
        let total = cache.order().len().max(1) as f64;
        let sum: i64 = pod
            .images
            .iter()
            .filter_map(|image| {
                let size = *node.spec.images.get(image)?;
                Some((size as f64 * (cache.image_node_count(image) as f64 / total)) as i64)
            })
            .sum();
        let high = HIGH_BYTES_PER_CONTAINER * pod.container_count.max(1) as i64;
        MAX_SCORE * (sum.clamp(LOW_BYTES, high) - LOW_BYTES) / (high - LOW_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_spec, pod_info};

    #[test]
    fn images_on_some_nodes() {
        let mut cache = Cache::default();
        let mib = 1024 * 1024;
        cache.set_node(
            "with",
            node_spec(&format!(r#"{{"status":{{"images":[{{"names":["big:1"],"sizeBytes":{}}}]}}}}"#, 1000 * mib)),
        );
        cache.set_node("without", node_spec("{}"));
        cache.refresh_order();
        let pod = pod_info(r#"{"spec":{"containers":[{"name":"c","image":"big:1"}]}}"#);
        let score = |id| ImageLocality.score(&Slot::default(), &pod, id, cache.node(id), &cache);
        // half of the nodes have it: 500 MiB count
        assert_eq!((score(0), score(1)), (48, 0));
    }
}
