//! nodeSelector and node affinity: required terms filter, preferred terms score.
//! A pod bound to names by `metadata.name In [...]` (every DaemonSet pod) looks at those nodes only.

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::framework::{Plugin, PreFilter, PreScore, Slot, Verdict, normalize_to_max, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeAffinity;

/// Whether a node satisfies the pod's nodeSelector and its required node affinity.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector.iter().all(|(key, value)| node.label(key) == Some(value))
        && pod.node_required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.spec.labels)))
}

impl Plugin for NodeAffinity {
    plugin!("NodeAffinity": PreFilter, Filter, PreScore, Score);

    fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> PreFilter {
        let Some(terms) = pod.node_required.as_ref().filter(|t| !t.is_empty()) else {
            let any = pod.node_required.is_some() || pod.node_selector.iter().next().is_some();
            return if any { PreFilter::Go(Slot::default(), None) } else { PreFilter::Skip };
        };
        let names: Option<Vec<_>> = terms.iter().map(|t| t.names()).collect();
        let nodes = names.map(|names| {
            let mut ids: Vec<_> = names.into_iter().flatten().filter_map(|n| cache.node_id(n)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        });
        PreFilter::Go(Slot::default(), nodes)
    }

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if matches(pod, node) {
            Verdict::Fit
        } else {
            Verdict::never("node(s) didn't match Pod's node affinity/selector")
        }
    }

    fn pre_score(&self, pod: &PodInfo, _: &Cache, _: &[NodeId]) -> PreScore {
        if pod.node_preferred.is_empty() { PreScore::Skip } else { PreScore::Go(Slot::default()) }
    }

    fn score(&self, _: &Slot, pod: &PodInfo, _: NodeId, node: &NodeInfo, _: &Cache) -> i64 {
        pod.node_preferred
            .iter()
            .filter(|(_, term)| term.matches(&node.name, &node.spec.labels))
            .map(|(weight, _)| weight)
            .sum()
    }

    fn normalize(&self, _: &Slot, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        matches!(event, Event::Node(node) if matches(pod, node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod_info};

    #[test]
    fn selectors_and_required_terms() {
        let n = node("n1", r#"{"metadata":{"labels":{"disk":"ssd","zone":"a"}}}"#);
        let required = |terms: &str| {
            format!(
                r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}"#
            )
        };
        let cases = [
            (r#""nodeSelector":{"disk":"ssd"}"#.to_owned(), true),
            (r#""nodeSelector":{"disk":"hdd"}"#.to_owned(), false),
            (
                required(
                    r#"[{"matchExpressions":[{"key":"zone","operator":"In","values":["b"]}]},{"matchExpressions":[{"key":"disk","operator":"Exists"}]}]"#,
                ),
                true,
            ),
            (
                required(
                    r#"[{"matchExpressions":[{"key":"zone","operator":"In","values":["b"]},{"key":"disk","operator":"Exists"}]}]"#,
                ),
                false,
            ),
            (required(r#"[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]"#), true),
            (required("[]"), false),
            (required("[{}]"), false),
        ];
        for (spec, want) in cases {
            let pod = pod_info(&format!(r#"{{"spec":{{"containers":[],{spec}}}}}"#));
            assert_eq!(matches(&pod, &n), want, "{spec}");
        }
    }

    #[test]
    fn preferred_terms_add_up() {
        let pod = pod_info(
            r#"{"spec":{"containers":[],"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[
            {"weight":3,"preference":{"matchExpressions":[{"key":"a","operator":"Exists"}]}},
            {"weight":5,"preference":{"matchExpressions":[{"key":"b","operator":"Exists"}]}}]}}}}"#,
        );
        let cache = Cache::default();
        let score = |labels: &str| {
            let n = node("n", &format!(r#"{{"metadata":{{"labels":{labels}}}}}"#));
            NodeAffinity.score(&Slot::default(), &pod, 0, &n, &cache)
        };
        let mut scores = [score("{}"), score(r#"{"a":""}"#), score(r#"{"a":"","b":""}"#)];
        assert_eq!(scores, [0, 3, 8]);
        NodeAffinity.normalize(&Slot::default(), &mut scores);
        assert_eq!(scores, [0, 37, 100]);
    }
}
