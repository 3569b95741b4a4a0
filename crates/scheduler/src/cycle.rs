//! One scheduling cycle: find nodes that fit, score them, choose one; or say why there is none.
//! Reads the cache, changes it only by assuming the chosen pod. Invariant: no I/O, so thousands of cycles a second.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::{Cache, NodeId};
use crate::diagnosis::FitError;
use crate::event::Event;
use crate::framework::{Point, PostFilterContext, Profile, Refusal, Verdict};
use crate::pod::PodInfo;
use crate::queue::{Backoff, Queue, Queued};

/// With fewer nodes than this every node is looked at.
const FEASIBLE_MIN: usize = 100;
/// The adaptive percentage never goes below this.
const PERCENT_MIN: usize = 5;

/// What a cycle decided.
pub enum Decision {
    /// The pod is assumed on the node; bind it.
    Place { queued: Queued, node: Arc<str>, profile: Arc<Profile> },
    /// No node; the pod is parked. `victims` are to be evicted for it from `nominated`.
    Park { queued: Queued, message: String, nominated: Option<Arc<str>>, victims: Vec<Arc<PodInfo>> },
    /// The pod is gone or belongs to nobody here.
    Skip,
}

/// Why no node was found, and what PostFilter proposes.
#[derive(Debug)]
pub struct NoNode {
    pub error: FitError,
    pub nominated: Option<NodeId>,
    pub victims: Vec<Arc<PodInfo>>,
}

/// Queue, cache and profiles: everything the cycle needs.
pub struct Scheduler {
    pub cache: Cache,
    pub queue: Queue,
    profiles: Vec<Arc<Profile>>,
    /// 0: adaptive.
    percentage: u8,
    next_start: usize,
    random: u64,
}

impl Scheduler {
    pub fn new(profiles: Vec<Profile>, percentage_of_nodes_to_score: u8, backoff: Backoff) -> Self {
        Self {
            cache: Cache::default(),
            queue: Queue::new(backoff),
            profiles: profiles.into_iter().map(Arc::new).collect(),
            percentage: percentage_of_nodes_to_score,
            next_start: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub fn profile_of(&self, pod: &PodInfo) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|p| p.scheduler_name == pod.scheduler_name)
    }

    /// Takes a pod without a node into the queue.
    pub fn enqueue(&mut self, pod: Arc<PodInfo>, changed: bool, now: Instant) {
        let Some(profile) = self.profile_of(&pod).cloned() else { return };
        let gated = profile.gate(&pod).is_err();
        let sort = profile.sort_key(&pod);
        self.queue.offer(pod, sort, gated, changed, now);
    }

    /// Wakes the pods that an event may help.
    pub fn react(&mut self, event: &Event<'_>, now: Instant) -> usize {
        react(&mut self.queue, &self.profiles, event, now)
    }

    /// A node appeared or changed.
    pub fn react_to_node(&mut self, id: NodeId, now: Instant) -> usize {
        react(&mut self.queue, &self.profiles, &Event::Node(self.cache.node(id)), now)
    }

    /// Runs the cycle for the next pod in the queue; None when there is none.
    pub fn next(&mut self, now: Instant) -> Option<Decision> {
        let queued = self.queue.pop(now)?;
        let Some(profile) = self.profile_of(&queued.pod).cloned() else {
            self.queue.remove(&queued.pod.uid);
            return Some(Decision::Skip);
        };
        if queued.pod.terminating || self.cache.has_pod(&queued.pod.uid) {
            // Compat: a pod being deleted is not scheduled; its next update or deletion takes it out.
            self.queue.remove(&queued.pod.uid);
            return Some(Decision::Skip);
        }
        let pod = queued.pod.clone();
        match self.choose(&profile, &pod) {
            Ok(id) => {
                let node = self.cache.node(id).name.clone();
                self.cache.assume(pod.clone(), &node);
                self.cache.remove_nomination(&pod.uid);
                Some(Decision::Place { queued, node, profile })
            }
            Err(error) => Some(self.park(queued, *error, now)),
        }
    }

    fn park(&mut self, queued: Queued, error: NoNode, now: Instant) -> Decision {
        let NoNode { error, nominated, victims } = error;
        let pod = &queued.pod;
        self.queue.park(&pod.uid, error.refused_by, now);
        let nominated = nominated.map(|id| self.cache.node(id).name.clone());
        match &nominated {
            Some(node) => self.cache.nominate(pod, node),
            None => self.cache.remove_nomination(&pod.uid),
        }
        let message =
            if error.nodes_total == 0 { "no nodes available to schedule pods".to_owned() } else { error.message() };
        Decision::Park { queued, message, nominated, victims }
    }

    /// The best node for a pod, or why there is none.
    pub fn choose(&mut self, profile: &Profile, pod: &Arc<PodInfo>) -> Result<NodeId, Box<NoNode>> {
        self.cache.refresh_order();
        let mut error = FitError { nodes_total: self.cache.order().len(), ..FitError::default() };
        if error.nodes_total == 0 {
            return Err(Box::new(NoNode { error, nominated: None, victims: Vec::new() }));
        }
        let started = profile.pre_filter(pod, &self.cache);
        error.refused_by = started.narrowed;
        let mut feasible = Vec::new();
        if let Some((at, reason)) = started.rejected {
            error.refused_by.insert(at);
            error.pre_filter = Some(reason);
        } else {
            let nodes = started.nodes.as_ref();
            if let Some((kept, by)) = nodes {
                let absent = error.nodes_total - kept.len();
                error.absent = (absent > 0)
                    .then(|| (absent, format!("node(s) didn't satisfy plugin(s) [{}]", by.join(" ")).into()));
            }
            feasible = self.find(profile, &started.state, pod, nodes.map(|(n, _)| n.as_slice()), &mut error);
        }
        if feasible.is_empty() {
            let context =
                PostFilterContext { profile, cache: &self.cache, pod, state: &started.state, refused: &error.refusals };
            let mut messages = Vec::new();
            for (_, plugin) in profile.at(Point::PostFilter) {
                let found = plugin.post_filter(&context);
                if found.node.is_some() {
                    error.post_filter = found.message;
                    return Err(Box::new(NoNode { error, nominated: found.node, victims: found.victims }));
                }
                messages.push(found.message);
            }
            messages.retain(|m| !m.is_empty());
            error.post_filter = messages.join(", ");
            return Err(Box::new(NoNode { error, nominated: None, victims: Vec::new() }));
        }
        if let [only] = feasible[..] {
            return Ok(only);
        }
        let scores = profile.score(pod, &self.cache, &feasible);
        Ok(self.pick(&feasible, &scores))
    }

    /// Nodes that fit, as many as are worth scoring, starting where the last cycle stopped.
    fn find(
        &mut self,
        profile: &Profile,
        state: &crate::framework::CycleState,
        pod: &PodInfo,
        only: Option<&[NodeId]>,
        error: &mut FitError,
    ) -> Vec<NodeId> {
        let cache = &self.cache;
        let filters = profile.filters(state);
        // A nominated node is tried first: the room there was made for this pod.
        if let Some(id) = cache.nomination(&pod.uid).or(Some(&*pod.nominated_node)).and_then(|n| cache.node_id(n))
            && only.is_none_or(|o| o.contains(&id))
            && profile.filter_with_nominated(&filters, state, pod, cache.node(id), cache).is_ok()
        {
            return vec![id];
        }
        let nodes = only.unwrap_or(cache.order());
        let wanted = feasible_wanted(nodes.len(), self.percentage);
        let start = if nodes.is_empty() { 0 } else { self.next_start % nodes.len() };
        let mut feasible = Vec::with_capacity(wanted.min(nodes.len()));
        let mut seen = 0;
        for id in nodes[start..].iter().chain(&nodes[..start]) {
            seen += 1;
            match profile.filter_with_nominated(&filters, state, pod, cache.node(*id), cache) {
                Ok(()) => {
                    feasible.push(*id);
                    if feasible.len() == wanted {
                        break;
                    }
                }
                Err((at, verdict)) => {
                    debug_assert!(verdict != Verdict::Fit);
                    error.refused_by.insert(at);
                    error.refusals.push(Refusal { node: *id, verdict });
                }
            }
        }
        if only.is_none() {
            self.next_start = start + seen;
        }
        feasible
    }

    /// The best score; among equals each is as likely.
    fn pick(&mut self, nodes: &[NodeId], scores: &[i64]) -> NodeId {
        let (mut best, mut best_score, mut equals) = (nodes[0], scores[0], 1_u64);
        for (id, score) in nodes.iter().zip(scores).skip(1) {
            if *score > best_score {
                (best, best_score, equals) = (*id, *score, 1);
            } else if *score == best_score {
                equals += 1;
                if self.next_random().is_multiple_of(equals) {
                    best = *id;
                }
            }
        }
        best
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn react(queue: &mut Queue, profiles: &[Arc<Profile>], event: &Event<'_>, now: Instant) -> usize {
    queue.wake(now, |queued| {
        let profile = profiles.iter().find(|p| p.scheduler_name == queued.pod.scheduler_name);
        profile.is_some_and(|p| p.may_help(queued.refused_by, event, &queued.pod))
    })
}

/// How many feasible nodes are enough. Adaptive: 50% of 100 nodes, 10% of 5,000, never below 5%.
fn feasible_wanted(nodes: usize, percentage: u8) -> usize {
    if nodes < FEASIBLE_MIN || percentage >= 100 {
        return nodes;
    }
    let percent = match percentage {
        0 => 50_usize.saturating_sub(nodes / 125).max(PERCENT_MIN),
        given => usize::from(given),
    };
    (nodes * percent / 100).max(FEASIBLE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_spec, pod_info, scheduler};

    const SMALL: &str = r#"{"status":{"allocatable":{"cpu":"1","memory":"1Gi","pods":"110"}}}"#;

    fn pod(uid: &str, cpu: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(pod_info(&format!(
            r#"{{"metadata":{{"name":"{uid}","namespace":"d","uid":"{uid}"}},"spec":{{"priority":{priority},"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}"#
        )))
    }

    fn run(s: &mut Scheduler, now: Instant) -> String {
        match s.next(now) {
            Some(Decision::Place { queued, node, .. }) => format!("{} on {node}", queued.pod.uid),
            Some(Decision::Park { queued, message, nominated, victims }) => {
                let victims: Vec<_> = victims.iter().map(|v| v.uid.to_string()).collect();
                format!("{}: {message} nominated={nominated:?} victims={victims:?}", queued.pod.uid)
            }
            Some(Decision::Skip) => "skip".to_owned(),
            None => "idle".to_owned(),
        }
    }

    #[test]
    fn wanted_nodes() {
        for (nodes, percentage, want) in [
            (50, 0, 50),
            (100, 0, 100),
            (1000, 0, 420),
            (5000, 0, 500),
            (15000, 0, 750),
            (5000, 30, 1500),
            (5000, 100, 5000),
        ] {
            assert_eq!(feasible_wanted(nodes, percentage), want, "{nodes} {percentage}");
        }
    }

    #[test]
    fn pods_fill_nodes_and_then_wait_for_room() {
        let now = Instant::now();
        let mut s = scheduler();
        assert_eq!(run(&mut s, now), "idle");
        s.enqueue(pod("a", "600m", 0), false, now);
        expect_test::expect!["a: no nodes available to schedule pods nominated=None victims=[]"]
            .assert_eq(&run(&mut s, now));
        let n1 = s.cache.set_node("n1", node_spec(SMALL));
        assert_eq!(s.react_to_node(n1, now), 1);
        assert_eq!(run(&mut s, now), "a on n1");
        s.cache.set_node("n2", node_spec(r#"{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]},"status":{"allocatable":{"cpu":"9","memory":"1Gi","pods":"9"}}}"#));
        s.enqueue(pod("b", "600m", 0), false, now);
        expect_test::expect!["b: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling. nominated=None victims=[]"].assert_eq(&run(&mut s, now));
        s.cache.forget("a");
        assert_eq!(s.react(&Event::PodRemoved(&pod("a", "600m", 0)), now), 1);
        assert_eq!(run(&mut s, now), "b on n1");
    }

    #[test]
    fn a_higher_pod_preempts_the_least_important() {
        let now = Instant::now();
        let mut s = scheduler();
        s.cache.set_node("n1", node_spec(SMALL));
        for (uid, priority) in [("low", 1), ("mid", 5)] {
            s.enqueue(pod(uid, "400m", priority), false, now);
            run(&mut s, now);
        }
        s.enqueue(pod("high", "500m", 10), false, now);
        expect_test::expect![[
            r#"high: 0/1 nodes are available: 1 Insufficient cpu. nominated=Some("n1") victims=["low"]"#
        ]]
        .assert_eq(&run(&mut s, now));
        // room is kept for the nominated pod
        s.cache.remove_pod("low");
        s.enqueue(pod("small", "300m", 0), false, now);
        assert!(run(&mut s, now).starts_with("small: 0/1 nodes are available: 1 Insufficient cpu."));
        s.react(&Event::PodRemoved(&pod("low", "400m", 1)), now);
        assert_eq!(run(&mut s, now + std::time::Duration::from_secs(5)), "high on n1");
    }

    #[test]
    fn gated_terminating_and_foreign_pods_are_not_tried() {
        let now = Instant::now();
        let mut s = scheduler();
        s.cache.set_node("n1", node_spec(SMALL));
        for spec in
            [r#""schedulingGates":[{"name":"g"}],"containers":[]"#, r#""schedulerName":"other","containers":[]"#]
        {
            s.enqueue(
                Arc::new(pod_info(&format!(r#"{{"metadata":{{"uid":"{}"}},"spec":{{{spec}}}}}"#, spec.len()))),
                false,
                now,
            );
        }
        assert_eq!(run(&mut s, now), "idle");
        s.enqueue(
            Arc::new(pod_info(
                r#"{"metadata":{"uid":"t","deletionTimestamp":"2024-01-01T00:00:00Z"},"spec":{"containers":[]}}"#,
            )),
            false,
            now,
        );
        assert_eq!(run(&mut s, now), "skip");
    }

    #[test]
    fn a_daemon_pod_looks_at_its_node_only() {
        let now = Instant::now();
        let mut s = scheduler();
        s.cache.set_node("n1", node_spec(SMALL));
        s.cache.set_node("n2", node_spec(r#"{"spec":{"unschedulable":true}}"#));
        let daemon = r#"{"metadata":{"uid":"p"},"spec":{"containers":[],"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n2"]}]}]}}}}}"#;
        s.enqueue(Arc::new(pod_info(daemon)), false, now);
        expect_test::expect!["p: 0/2 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity], 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. nominated=None victims=[]"].assert_eq(&run(&mut s, now));
    }
}
