//! Finds a node where evicting pods of lower priority makes room, and the fewest and least important victims there.
//! Pure: it names node and victims; the binding shell evicts. Invariant: a victim's priority is below the pod's.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::cache::{Cache, NodeId};
use crate::diagnosis;
use crate::event::Event;
use crate::framework::{CycleState, Plugin, PostFilter, PostFilterContext, Reason, Verdict, plugin};
use crate::pod::PodInfo;

/// Candidates looked at: a tenth of the nodes, but at least this many.
const CANDIDATES_MIN: usize = 100;

pub struct DefaultPreemption;

#[derive(Debug)]
struct Candidate {
    node: NodeId,
    victims: Vec<Arc<PodInfo>>,
    budget_violations: usize,
}

/// Most important first: higher priority, then running longer.
fn importance(pod: &PodInfo) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority), pod.start_seconds)
}

/// Splits pods into those whose eviction would break a disruption budget, and the rest.
fn split_by_budget(pods: Vec<Arc<PodInfo>>, cache: &Cache) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = cache.budgets.values().map(|b| b.disruptions_allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in cache.budgets.values().zip(&mut allowed) {
            let covers = *budget.namespace == *pod.namespace
                && !budget.selector.is_empty()
                && budget.selector.matches(&pod.labels)
                && !budget.disrupted.iter().any(|n| **n == *pod.name);
            if covers {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Tries a node with every lower pod gone, then lets back as many as still leave room.
fn dry_run(c: &PostFilterContext<'_>, id: NodeId) -> Result<Candidate, Vec<Reason>> {
    let mut node = c.cache.node(id).clone();
    let mut state: CycleState = c.state.clone();
    let mut lower: Vec<_> = node.pods.iter().filter(|p| p.priority < c.pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".into()]);
    }
    for pod in &lower {
        node.remove_pod(&pod.uid);
        c.profile.remove_pod(&mut state, c.pod, pod, &node, c.cache);
    }
    let fits = |node: &crate::node::NodeInfo, state: &CycleState| {
        c.profile.filter_with_nominated(&c.profile.filters(state), state, c.pod, node, c.cache)
    };
    if let Err((_, Verdict::No(reasons) | Verdict::Never(reasons))) = fits(&node, &state) {
        return Err(reasons);
    }
    lower.sort_by_key(|p| importance(p));
    let (violating, others) = split_by_budget(lower, c.cache);
    let mut out = Candidate { node: id, victims: Vec::new(), budget_violations: 0 };
    let split = violating.len();
    for (i, pod) in violating.into_iter().chain(others).enumerate() {
        node.add_pod(pod.clone());
        c.profile.add_pod(&mut state, c.pod, &pod, &node, c.cache);
        if fits(&node, &state).is_ok() {
            continue;
        }
        node.remove_pod(&pod.uid);
        c.profile.remove_pod(&mut state, c.pod, &pod, &node, c.cache);
        out.budget_violations += usize::from(i < split);
        out.victims.push(pod);
    }
    out.victims.sort_by_key(|p| importance(p));
    Ok(out)
}

/// The order in which candidates are preferred: fewest broken budgets, least important first victim, lowest sum of
/// priorities, fewest victims, and the first victim that started last.
fn preference(c: &Candidate) -> (usize, i32, i64, usize, Reverse<i64>) {
    let highest = c.victims.first().map_or(i32::MIN, |p| p.priority);
    let sum = c.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest =
        c.victims.iter().filter(|p| p.priority == highest).map(|p| p.start_seconds).min().unwrap_or(i64::MAX);
    (c.budget_violations, highest, sum, c.victims.len(), Reverse(earliest))
}

/// Why the pod may not preempt now, and the nomination it keeps.
fn ineligible(c: &PostFilterContext<'_>) -> Option<(&'static str, Option<NodeId>)> {
    if c.pod.never_preempts {
        return Some(("not eligible due to preemptionPolicy=Never.", None));
    }
    let nominated = c.cache.nomination(&c.pod.uid).or(Some(&*c.pod.nominated_node)).filter(|n| !n.is_empty())?;
    let id = c.cache.node_id(nominated)?;
    let hopeless = c.refused.iter().any(|r| r.node == id && matches!(r.verdict, Verdict::Never(_)));
    let leaving = c.cache.node(id).pods.iter().any(|p| p.terminating && p.priority < c.pod.priority);
    (!hopeless && leaving).then_some(("not eligible due to terminating pod on the nominated node.", Some(id)))
}

impl Plugin for DefaultPreemption {
    plugin!("DefaultPreemption": PostFilter);

    fn post_filter(&self, c: &PostFilterContext<'_>) -> PostFilter {
        if let Some((why, node)) = ineligible(c) {
            return PostFilter { node, message: format!("preemption: {why}"), ..PostFilter::default() };
        }
        let potential: Vec<_> =
            c.refused.iter().filter(|r| matches!(r.verdict, Verdict::No(_))).map(|r| r.node).collect();
        let total = c.cache.order().len();
        let mut reasons: Vec<(usize, Reason)> = Vec::new();
        if total > potential.len() {
            reasons.push((total - potential.len(), "Preemption is not helpful for scheduling".into()));
        }
        let wanted = (potential.len() / 10).max(CANDIDATES_MIN);
        let mut candidates = Vec::new();
        for id in potential {
            match dry_run(c, id) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => reasons.extend(why.into_iter().map(|r| (1, r))),
            }
            let clean = candidates.iter().any(|c: &Candidate| c.budget_violations == 0);
            if candidates.len() >= wanted && clean {
                break;
            }
        }
        match candidates.into_iter().min_by_key(preference) {
            Some(best) => PostFilter { node: Some(best.node), victims: best.victims, message: String::new() },
            None => PostFilter {
                message: format!("preemption: {}", diagnosis::fit_message(total, None, reasons, "")),
                ..PostFilter::default()
            },
        }
    }

    fn hint(&self, _: &Event<'_>, _: &PodInfo) -> bool {
        false // it never refuses a pod itself
    }
}
