//! Pods that want to be near, or away from, other pods.
//! Required terms filter, of the incoming pod and of the pods already there; preferred terms score.
//! Invariant: counts are per topology domain and come from classes of pods, never from a walk over all pods.

use std::collections::BTreeMap;

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::framework::{MAX_SCORE, Plugin, PreFilter, PreScore, Slot, Verdict, plugin};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, PodTerm};
use crate::selector::Labels;
use crate::topology::Tally;

/// What a required affinity term of a pod already there is worth to an incoming pod that matches it.
const HARD_POD_AFFINITY_WEIGHT: i64 = 1;

pub struct InterPodAffinity;

#[derive(Clone)]
struct Counts {
    /// Per topology key: pods there that refuse the incoming pod.
    existing_anti: BTreeMap<Box<str>, Tally>,
    /// Per required affinity term: pods that match all the terms.
    affinity: Vec<Tally>,
    /// How many pods match all the affinity terms anywhere.
    affinity_total: i64,
    /// Per required anti-affinity term: pods that match it.
    anti: Vec<Tally>,
    matches_itself: bool,
}

fn term_matches(term: &PodTerm, namespace: &str, labels: &Labels, cache: &Cache) -> bool {
    let in_namespace = term.namespaces.iter().any(|n| **n == *namespace)
        || match cache.namespace_labels(namespace) {
            Some(l) => term.namespace_selector.matches(l),
            None => term.namespace_selector.matches(&Labels::default()),
        };
    in_namespace && term.selector.matches(labels)
}

fn matches_all(terms: &[PodTerm], namespace: &str, labels: &Labels, cache: &Cache) -> bool {
    !terms.is_empty() && terms.iter().all(|t| term_matches(t, namespace, labels, cache))
}

fn existing_anti(pod: &PodInfo, cache: &Cache) -> BTreeMap<Box<str>, Tally> {
    let mut out: BTreeMap<Box<str>, Tally> = BTreeMap::new();
    for class in cache.classes.with_required_anti() {
        for term in class.affinity().into_iter().flat_map(|a| &a.anti_required) {
            if !term_matches(term, &pod.namespace, &pod.labels, cache) {
                continue;
            }
            let tally =
                out.entry(term.topology_key.clone()).or_insert_with(|| Tally::new(cache.topology(&term.topology_key)));
            class.nodes.iter().for_each(|(node, count)| tally.add(*node, i64::from(count.all)));
        }
    }
    out
}

impl Plugin for InterPodAffinity {
    plugin!("InterPodAffinity": PreFilter, Filter, PreScore, Score);

    fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> PreFilter {
        let existing_anti = existing_anti(pod, cache);
        let (affinity, anti) = (pod.required_affinity(), pod.required_anti_affinity());
        if existing_anti.is_empty() && affinity.is_empty() && anti.is_empty() {
            return PreFilter::Skip;
        }
        let tallies =
            |terms: &[PodTerm]| terms.iter().map(|t| Tally::new(cache.topology(&t.topology_key))).collect::<Vec<_>>();
        let mut counts = Counts {
            existing_anti,
            affinity: tallies(affinity),
            affinity_total: 0,
            anti: tallies(anti),
            matches_itself: matches_all(affinity, &pod.namespace, &pod.labels, cache),
        };
        if !affinity.is_empty() || !anti.is_empty() {
            for class in cache.classes.all() {
                if matches_all(affinity, class.namespace(), class.labels(), cache) {
                    for (node, count) in &class.nodes {
                        counts.affinity.iter_mut().for_each(|t| t.add(*node, i64::from(count.all)));
                        counts.affinity_total += i64::from(count.all);
                    }
                }
                for (term, tally) in anti.iter().zip(&mut counts.anti) {
                    if term_matches(term, class.namespace(), class.labels(), cache) {
                        class.nodes.iter().for_each(|(node, count)| tally.add(*node, i64::from(count.all)));
                    }
                }
            }
        }
        PreFilter::Go(Slot::new(counts), None)
    }

    fn filter(&self, data: &Slot, _: &PodInfo, node: &NodeInfo) -> Verdict {
        let Some(counts) = data.get::<Counts>() else { return Verdict::Fit };
        let at = |tally: &Tally| tally.at(node.id);
        if !counts.affinity.iter().all(|t| at(t).is_some_and(|n| n > 0)) {
            // The first pod of a group that wants to be together may start anywhere the labels exist.
            let first =
                counts.affinity_total == 0 && counts.matches_itself && counts.affinity.iter().all(|t| at(t).is_some());
            if !first {
                return Verdict::never("node(s) didn't match pod affinity rules");
            }
        }
        if counts.anti.iter().any(|t| at(t).is_some_and(|n| n > 0)) {
            return Verdict::no("node(s) didn't match pod anti-affinity rules");
        }
        if counts.existing_anti.values().any(|t| at(t).is_some_and(|n| n > 0)) {
            return Verdict::no("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Verdict::Fit
    }

    fn add_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {
        adjust(data, pod, other, node, cache, 1);
    }

    fn remove_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {
        adjust(data, pod, other, node, cache, -1);
    }

    fn pre_score(&self, pod: &PodInfo, cache: &Cache, _: &[NodeId]) -> PreScore {
        let own = pod.affinity.as_deref();
        let wants = own.is_some_and(|a| !a.preferred.is_empty() || !a.anti_preferred.is_empty());
        let mut sums: BTreeMap<Box<str>, Tally> = BTreeMap::new();
        let mut add = |term: &PodTerm, nodes: &BTreeMap<NodeId, crate::class::Count>, weight: i64| {
            let tally =
                sums.entry(term.topology_key.clone()).or_insert_with(|| Tally::new(cache.topology(&term.topology_key)));
            nodes.iter().for_each(|(node, count)| tally.add(*node, weight * i64::from(count.all)));
        };
        if let (true, Some(own)) = (wants, own) {
            for class in cache.classes.all() {
                let terms =
                    own.preferred.iter().map(|(w, t)| (*w, t)).chain(own.anti_preferred.iter().map(|(w, t)| (-w, t)));
                for (weight, term) in terms {
                    if term_matches(term, class.namespace(), class.labels(), cache) {
                        add(term, &class.nodes, weight);
                    }
                }
            }
        }
        for class in cache.classes.with_affinity() {
            let Some(theirs) = class.affinity() else { continue };
            let terms = theirs
                .required
                .iter()
                .map(|t| (HARD_POD_AFFINITY_WEIGHT, t))
                .chain(theirs.preferred.iter().map(|(w, t)| (*w, t)))
                .chain(theirs.anti_preferred.iter().map(|(w, t)| (-w, t)));
            for (weight, term) in terms {
                if term_matches(term, &pod.namespace, &pod.labels, cache) {
                    add(term, &class.nodes, weight);
                }
            }
        }
        if sums.is_empty() { PreScore::Skip } else { PreScore::Go(Slot::new(sums.into_values().collect::<Vec<_>>())) }
    }

    fn score(&self, data: &Slot, _: &PodInfo, id: NodeId, _: &NodeInfo, _: &Cache) -> i64 {
        data.get::<Vec<Tally>>().into_iter().flatten().filter_map(|t| t.at(id)).sum()
    }

    fn normalize(&self, _: &Slot, scores: &mut [i64]) {
        let (min, max) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = if max > min { (MAX_SCORE as f64 * (*score - min) as f64 / (max - min) as f64) as i64 } else { 0 };
        }
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        match event {
            // Whether a term matches needs the namespaces too; a label match alone is a good enough hint.
            Event::PodAdded(other) => pod.required_affinity().iter().any(|t| t.selector.matches(&other.labels)),
            Event::PodRemoved(other) => {
                pod.required_anti_affinity().iter().any(|t| t.selector.matches(&other.labels))
                    || other.required_anti_affinity().iter().any(|t| t.selector.matches(&pod.labels))
                    || pod.required_affinity().iter().any(|t| t.selector.matches(&other.labels))
            }
            Event::Node(_) | Event::Namespace => true,
            _ => false,
        }
    }
}

fn adjust(data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache, sign: i64) {
    let Some(counts) = data.get_mut::<Counts>() else { return };
    for term in other.required_anti_affinity() {
        if term_matches(term, &pod.namespace, &pod.labels, cache) {
            let key = term.topology_key.clone();
            let tally =
                counts.existing_anti.entry(key).or_insert_with(|| Tally::new(cache.topology(&term.topology_key)));
            tally.add(node.id, sign);
        }
    }
    if matches_all(pod.required_affinity(), &other.namespace, &other.labels, cache) {
        counts.affinity.iter_mut().for_each(|t| t.add(node.id, sign));
        counts.affinity_total += sign;
    }
    for (term, tally) in pod.required_anti_affinity().iter().zip(&mut counts.anti) {
        if term_matches(term, &other.namespace, &other.labels, cache) {
            tally.add(node.id, sign);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_app_pod, add_pod, pod_info, zoned_cluster};

    const ZONE_TERM: &str =
        r#"{"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"a"}}}"#;

    fn wanting(kind: &str, rule: &str, labels: &str) -> PodInfo {
        pod_info(&format!(
            r#"{{"metadata":{{"name":"p","namespace":"d","labels":{labels}}},"spec":{{"containers":[],"affinity":{{"{kind}":{rule}}}}}}}"#
        ))
    }

    fn verdicts(pod: &PodInfo, cache: &Cache) -> Vec<Verdict> {
        let PreFilter::Go(slot, None) = InterPodAffinity.pre_filter(pod, cache) else { panic!("skipped") };
        cache.order().iter().map(|id| InterPodAffinity.filter(&slot, pod, cache.node(*id))).collect()
    }

    #[test]
    fn required_terms() {
        let mut cache = zoned_cluster(&[("a1", "a"), ("b1", "b"), ("x", "")]); // order: x a1 b1
        let required = format!(r#"{{"requiredDuringSchedulingIgnoredDuringExecution":[{ZONE_TERM}]}}"#);
        let near = wanting("podAffinity", &required, r#"{"app":"b"}"#);
        let never = Verdict::never("node(s) didn't match pod affinity rules");
        let away = Verdict::no("node(s) didn't match pod anti-affinity rules");
        assert_eq!(verdicts(&near, &cache), [never.clone(), never.clone(), never.clone()]);
        // the first of its own group may start wherever the label exists
        let first = wanting("podAffinity", &required, r#"{"app":"a"}"#);
        assert_eq!(verdicts(&first, &cache), [never.clone(), Verdict::Fit, Verdict::Fit]);
        add_app_pod(&mut cache, "a1", "1", "d");
        assert_eq!(verdicts(&near, &cache), [never.clone(), Verdict::Fit, never]);
        let far = wanting("podAntiAffinity", &required, "{}");
        assert_eq!(verdicts(&far, &cache), [Verdict::Fit, away, Verdict::Fit]);
    }

    #[test]
    fn pods_already_there_keep_others_away() {
        let mut cache = zoned_cluster(&[("a1", "a"), ("b1", "b")]);
        add_pod(
            &mut cache,
            "b1",
            &format!(
                r#"{{"metadata":{{"uid":"1","namespace":"d"}},"spec":{{"containers":[],"affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{ZONE_TERM}]}}}}}}}}"#
            ),
        );
        let pod = pod_info(r#"{"metadata":{"namespace":"d","labels":{"app":"a"}},"spec":{"containers":[]}}"#);
        let refused = Verdict::no("node(s) didn't satisfy existing pods anti-affinity rules");
        assert_eq!(verdicts(&pod, &cache), [Verdict::Fit, refused]);
        let other = pod_info(r#"{"metadata":{"namespace":"e","labels":{"app":"a"}},"spec":{"containers":[]}}"#);
        assert!(matches!(InterPodAffinity.pre_filter(&other, &cache), PreFilter::Skip));
    }

    #[test]
    fn preferred_terms_score() {
        let mut cache = zoned_cluster(&[("a1", "a"), ("b1", "b")]);
        add_app_pod(&mut cache, "b1", "1", "d");
        let preferred = format!(
            r#"{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":7,"podAffinityTerm":{ZONE_TERM}}}]}}"#
        );
        for (kind, want) in [("podAffinity", [0, 100]), ("podAntiAffinity", [100, 0])] {
            let pod = wanting(kind, &preferred, "{}");
            let nodes = cache.order().to_vec();
            let PreScore::Go(slot) = InterPodAffinity.pre_score(&pod, &cache, &nodes) else { panic!("skipped") };
            let mut scores: Vec<_> =
                nodes.iter().map(|id| InterPodAffinity.score(&slot, &pod, *id, cache.node(*id), &cache)).collect();
            InterPodAffinity.normalize(&slot, &mut scores);
            assert_eq!(scores, want, "{kind}");
        }
    }
}
