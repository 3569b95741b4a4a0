//! Taints: hard ones must be tolerated, and nodes with fewer untolerated soft ones come first.

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::framework::{Plugin, PreScore, Slot, Verdict, normalize_to_max, plugin};
use crate::node::{Effect, NodeInfo};
use crate::pod::PodInfo;

pub struct TaintToleration;

impl Plugin for TaintToleration {
    plugin!("TaintToleration": Filter, PreScore, Score);

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let mut hard = node.spec.taints.iter().filter(|t| t.effect != Effect::PreferNoSchedule);
        if hard.all(|t| t.tolerated_by(&pod.tolerations)) {
            return Verdict::Fit;
        }
        Verdict::never("node(s) had untolerated taint(s)")
    }

    /// Without a soft taint in the cluster every node would score the same.
    fn pre_score(&self, _: &PodInfo, cache: &Cache, _: &[NodeId]) -> PreScore {
        if cache.has_soft_taints() { PreScore::Go(Slot::default()) } else { PreScore::Skip }
    }

    fn score(&self, _: &Slot, pod: &PodInfo, _: NodeId, node: &NodeInfo, _: &Cache) -> i64 {
        let soft = node.spec.taints.iter().filter(|t| t.effect == Effect::PreferNoSchedule);
        soft.filter(|t| !t.tolerated_by(&pod.tolerations)).count() as i64
    }

    fn normalize(&self, _: &Slot, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        matches!(event, Event::Node(node) if self.filter(&Slot::default(), pod, node).is_fit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod_info};

    #[test]
    fn tolerations_against_taints() {
        let no = || Verdict::never("node(s) had untolerated taint(s)");
        let cases = [
            (r#"[]"#, r#"[{"key":"a","effect":"NoSchedule"}]"#, no()),
            (r#"[]"#, r#"[{"key":"a","effect":"PreferNoSchedule"}]"#, Verdict::Fit),
            (r#"[{"operator":"Exists"}]"#, r#"[{"key":"a","effect":"NoExecute"}]"#, Verdict::Fit),
            (r#"[{"key":"a","value":"1"}]"#, r#"[{"key":"a","value":"1","effect":"NoSchedule"}]"#, Verdict::Fit),
            (r#"[{"key":"a","value":"2"}]"#, r#"[{"key":"a","value":"1","effect":"NoSchedule"}]"#, no()),
            (
                r#"[{"key":"a","operator":"Exists","effect":"NoSchedule"}]"#,
                r#"[{"key":"a","effect":"NoExecute"}]"#,
                no(),
            ),
            (
                r#"[{"key":"a","operator":"Gt","value":"5"}]"#,
                r#"[{"key":"a","value":"7","effect":"NoSchedule"}]"#,
                Verdict::Fit,
            ),
        ];
        for (tolerations, taints, want) in cases {
            let pod = pod_info(&format!(r#"{{"spec":{{"containers":[],"tolerations":{tolerations}}}}}"#));
            let node = node("n", &format!(r#"{{"spec":{{"taints":{taints}}}}}"#));
            assert_eq!(TaintToleration.filter(&Slot::default(), &pod, &node), want, "{tolerations} on {taints}");
        }
    }

    #[test]
    fn fewer_soft_taints_score_higher() {
        let mut scores = [0, 1, 2];
        TaintToleration.normalize(&Slot::default(), &mut scores);
        assert_eq!(scores, [100, 50, 0]);
    }
}
