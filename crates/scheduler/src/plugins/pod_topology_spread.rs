//! Spreads pods over domains: DoNotSchedule constraints filter, ScheduleAnyway constraints score.
//! A pod without constraints gets the default ones (host and zone) over the Services and controllers that select it.
//! Invariant: pods being deleted are not counted.

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::framework::{MAX_SCORE, Plugin, PreFilter, PreScore, Slot, Verdict, plugin};
use crate::node::{Effect, NodeInfo};
use crate::plugins::node_affinity;
use crate::pod::{PodInfo, SpreadConstraint};
use crate::selector::Selector;
use crate::topology::Tally;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub struct PodTopologySpread;

/// A hard constraint with the pods counted per domain.
#[derive(Clone)]
struct Hard {
    constraint: SpreadConstraint,
    tally: Tally,
    /// Whether any eligible node is in the domain.
    eligible: Vec<bool>,
    self_match: i64,
    min: i64,
}

impl Hard {
    /// The fewest pods in any eligible domain; 0 while there are fewer domains than wanted.
    fn refresh_min(&mut self) {
        let counts = self.tally.counts.iter().zip(&self.eligible).filter(|(_, e)| **e).map(|(c, _)| *c);
        let domains = self.eligible.iter().filter(|e| **e).count() as i64;
        self.min = if domains < self.constraint.min_domains { 0 } else { counts.min().unwrap_or(0) };
    }
}

/// A soft constraint with its weight and the pods counted per domain.
#[derive(Clone)]
struct Soft {
    constraint: SpreadConstraint,
    tally: Tally,
    weight: f64,
}

#[derive(Clone)]
struct SoftData {
    constraints: Vec<Soft>,
    /// By position in the list of nodes being scored: lacks a topology key of the pod's own constraints.
    ignored: Vec<bool>,
}

/// Whether a constraint counts pods on this node at all.
fn includes(c: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!c.honor_affinity || node_affinity::matches(pod, node))
        && (!c.honor_taints
            || node
                .spec
                .taints
                .iter()
                .filter(|t| t.effect != Effect::PreferNoSchedule)
                .all(|t| t.tolerated_by(&pod.tolerations)))
}

/// Adds up the live pods of the namespace that the selector picks, on the nodes that `keep` allows.
fn count(tally: &mut Tally, selector: &Selector, namespace: &str, cache: &Cache, keep: impl Fn(NodeId) -> bool) {
    for class in cache.classes.in_namespace(namespace).filter(|c| selector.matches(c.labels())) {
        for (node, count) in class.nodes.iter().filter(|(n, _)| keep(**n)) {
            tally.add(*node, i64::from(count.live));
        }
    }
}

/// The constraints a pod without any gets, when something selects it.
fn defaults(pod: &PodInfo, cache: &Cache) -> Vec<SpreadConstraint> {
    let mut selector = Selector::everything();
    for service in cache.services.get(&*pod.namespace).into_iter().flat_map(|s| s.values()) {
        if !service.is_empty() && service.matches(&pod.labels) {
            selector.and_all(service);
        }
    }
    if let Some((kind, name)) = &pod.controller
        && let Some(owner) =
            cache.controllers.get(&**kind).and_then(|k| k.get(&*pod.namespace)).and_then(|n| n.get(name))
    {
        selector.and_all(owner);
    }
    if selector.is_empty() {
        return Vec::new();
    }
    let make = |key: &str, max_skew| SpreadConstraint {
        max_skew,
        topology_key: key.into(),
        hard: false,
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![make(HOSTNAME, 3), make(ZONE, 5)]
}

impl Plugin for PodTopologySpread {
    plugin!("PodTopologySpread": PreFilter, Filter, PreScore, Score);

    fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> PreFilter {
        let constraints: Vec<_> = pod.spread.iter().filter(|c| c.hard).collect();
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        let topologies: Vec<_> = constraints.iter().map(|c| cache.topology(&c.topology_key)).collect();
        // Compat: only nodes that carry all the keys take part in any of the constraints (upstream's documented rule).
        let complete = |id: NodeId| topologies.iter().all(|t| t.of(id).is_some());
        let mut data = Vec::with_capacity(constraints.len());
        for (constraint, topology) in constraints.into_iter().zip(&topologies) {
            let mut tally = Tally::new(topology.clone());
            let mut eligible = vec![false; topology.domains];
            let counts = |id: NodeId| complete(id) && includes(constraint, pod, cache.node(id));
            for id in cache.order().iter().filter(|id| counts(**id)) {
                if let Some(domain) = topology.of(*id) {
                    eligible[domain] = true;
                }
            }
            count(&mut tally, &constraint.selector, &pod.namespace, cache, counts);
            let self_match = i64::from(constraint.selector.matches(&pod.labels));
            let mut hard = Hard { constraint: constraint.clone(), tally, eligible, self_match, min: 0 };
            hard.refresh_min();
            data.push(hard);
        }
        PreFilter::Go(Slot::new(data), None)
    }

    fn filter(&self, data: &Slot, _: &PodInfo, node: &NodeInfo) -> Verdict {
        for hard in data.get::<Vec<Hard>>().into_iter().flatten() {
            let Some(count) = hard.tally.at(node.id) else {
                return Verdict::never("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            if count + hard.self_match - hard.min > hard.constraint.max_skew {
                return Verdict::no("node(s) didn't match pod topology spread constraints");
            }
        }
        Verdict::Fit
    }

    fn add_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, _: &Cache) {
        adjust(data, pod, other, node, 1);
    }

    fn remove_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, _: &Cache) {
        adjust(data, pod, other, node, -1);
    }

    fn pre_score(&self, pod: &PodInfo, cache: &Cache, nodes: &[NodeId]) -> PreScore {
        let own = !pod.spread.is_empty();
        let constraints: Vec<_> =
            if own { pod.spread.iter().filter(|c| !c.hard).cloned().collect() } else { defaults(pod, cache) };
        if constraints.is_empty() {
            return PreScore::Skip;
        }
        let topologies: Vec<_> = constraints.iter().map(|c| cache.topology(&c.topology_key)).collect();
        let complete = |id: NodeId| !own || topologies.iter().all(|t| t.of(id).is_some());
        let ignored: Vec<_> = nodes.iter().map(|id| !complete(*id)).collect();
        let mut data = SoftData { constraints: Vec::new(), ignored };
        for (constraint, topology) in constraints.into_iter().zip(&topologies) {
            let mut seen = vec![false; topology.domains];
            for (id, _) in nodes.iter().zip(&data.ignored).filter(|(_, ignored)| !**ignored) {
                if let Some(domain) = topology.of(*id) {
                    seen[domain] = true;
                }
            }
            let size = if &*constraint.topology_key == HOSTNAME {
                data.ignored.iter().filter(|i| !**i).count()
            } else {
                seen.iter().filter(|s| **s).count()
            };
            let mut tally = Tally::new(topology.clone());
            let counts = |id: NodeId| complete(id) && includes(&constraint, pod, cache.node(id));
            count(&mut tally, &constraint.selector, &pod.namespace, cache, counts);
            data.constraints.push(Soft { constraint, tally, weight: (size as f64 + 2.0).ln() });
        }
        PreScore::Go(Slot::new(data))
    }

    fn score(&self, data: &Slot, _: &PodInfo, id: NodeId, _: &NodeInfo, _: &Cache) -> i64 {
        let Some(data) = data.get::<SoftData>() else { return 0 };
        let sum: f64 = data
            .constraints
            .iter()
            .filter_map(|soft| Some(soft.tally.at(id)? as f64 * soft.weight + (soft.constraint.max_skew - 1) as f64))
            .sum();
        sum.round() as i64
    }

    fn normalize(&self, data: &Slot, scores: &mut [i64]) {
        let Some(data) = data.get::<SoftData>() else { return };
        let counted = || scores.iter().zip(&data.ignored).filter(|(_, ignored)| !**ignored).map(|(s, _)| *s);
        let (min, max) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for (score, ignored) in scores.iter_mut().zip(&data.ignored) {
            *score = match (ignored, max) {
                (true, _) => 0,
                (false, 0) => MAX_SCORE,
                _ => MAX_SCORE * (max + min - *score) / max,
            };
        }
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        match event {
            Event::Node(node) => pod.spread.iter().filter(|c| c.hard).all(|c| node.label(&c.topology_key).is_some()),
            Event::PodAdded(other) | Event::PodRemoved(other) => {
                other.namespace == pod.namespace && pod.spread.iter().any(|c| c.selector.matches(&other.labels))
            }
            _ => false,
        }
    }
}

fn adjust(data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, sign: i64) {
    if other.namespace != pod.namespace || other.terminating {
        return;
    }
    for hard in data.get_mut::<Vec<Hard>>().into_iter().flatten() {
        if hard.constraint.selector.matches(&other.labels) && includes(&hard.constraint, pod, node) {
            hard.tally.add(node.id, sign);
            hard.refresh_min();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_app_pod, pod_info, zoned_cluster};

    fn spreading(when: &str, extra: &str) -> PodInfo {
        pod_info(&format!(
            r#"{{"metadata":{{"name":"p","namespace":"d","labels":{{"app":"a"}}}},"spec":{{"containers":[],"topologySpreadConstraints":[
            {{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"{when}","labelSelector":{{"matchLabels":{{"app":"a"}}}}{extra}}}]}}}}"#
        ))
    }

    fn verdicts(pod: &PodInfo, cache: &Cache) -> Vec<Verdict> {
        let PreFilter::Go(slot, None) = PodTopologySpread.pre_filter(pod, cache) else { panic!("skipped") };
        cache.order().iter().map(|id| PodTopologySpread.filter(&slot, pod, cache.node(*id))).collect()
    }

    #[test]
    fn hard_constraints() {
        // nodes a1 and a2 in zone a, b1 in zone b, x in none
        let mut cache = zoned_cluster(&[("a1", "a"), ("a2", "a"), ("b1", "b"), ("x", "")]);
        let missing = Verdict::never("node(s) didn't match pod topology spread constraints (missing required label)");
        let full = Verdict::no("node(s) didn't match pod topology spread constraints");
        let names: Vec<_> = cache.order().iter().map(|id| cache.node(*id).name.to_string()).collect();
        assert_eq!(names, ["x", "a1", "b1", "a2"]);
        let pod = spreading("DoNotSchedule", "");
        assert_eq!(verdicts(&pod, &cache), [missing.clone(), Verdict::Fit, Verdict::Fit, Verdict::Fit]);
        add_app_pod(&mut cache, "a2", "1", "d");
        add_app_pod(&mut cache, "b1", "2", "other");
        assert_eq!(verdicts(&pod, &cache), [missing.clone(), full.clone(), Verdict::Fit, full.clone()]);
        // three domains are wanted, so the minimum counts as zero
        add_app_pod(&mut cache, "b1", "3", "d");
        let pod = spreading("DoNotSchedule", r#","minDomains":3"#);
        assert_eq!(verdicts(&pod, &cache), [missing, full.clone(), full.clone(), full]);
    }

    #[test]
    fn soft_constraints_prefer_the_emptier_zone() {
        let mut cache = zoned_cluster(&[("a1", "a"), ("b1", "b"), ("x", "")]);
        add_app_pod(&mut cache, "a1", "1", "d");
        let pod = spreading("ScheduleAnyway", "");
        let nodes: Vec<_> = cache.order().to_vec();
        let PreScore::Go(slot) = PodTopologySpread.pre_score(&pod, &cache, &nodes) else { panic!("skipped") };
        let mut scores: Vec<_> =
            nodes.iter().map(|id| PodTopologySpread.score(&slot, &pod, *id, cache.node(*id), &cache)).collect();
        PodTopologySpread.normalize(&slot, &mut scores);
        assert_eq!(scores, [0, 0, 100]); // x is ignored, a1 has the pod, b1 has none
    }
}
