//! The scheduling framework: the extension points as one trait, and a profile that runs its plugins in order.
//! Reads the cache, writes nothing. Invariant: plugins are pure up to Reserve; only PreBind, Bind and PostBind do I/O.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The best score a plugin may give after normalising.
pub const MAX_SCORE: i64 = 100;

/// Why a node or a pod is refused, in upstream's words.
pub type Reason = Cow<'static, str>;

/// A plugin's answer about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fit,
    /// Does not fit now; evicting pods might help.
    No(Vec<Reason>),
    /// Does not fit, whoever leaves.
    Never(Vec<Reason>),
}

impl Verdict {
    pub fn never(reason: impl Into<Reason>) -> Self {
        Self::Never(vec![reason.into()])
    }

    pub fn no(reason: impl Into<Reason>) -> Self {
        Self::No(vec![reason.into()])
    }

    pub fn is_fit(&self) -> bool {
        *self == Self::Fit
    }
}

/// What a plugin worked out for one cycle and wants back in the next call.
pub trait Data: Any + Send {
    fn boxed_clone(&self) -> Box<dyn Data>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Send + Clone> Data for T {
    fn boxed_clone(&self) -> Box<dyn Data> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A plugin's place for its data of this cycle.
#[derive(Default)]
pub struct Slot(Option<Box<dyn Data>>);

impl Slot {
    pub fn new(data: impl Data) -> Self {
        Self(Some(Box::new(data)))
    }

    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.as_deref()?.as_any().downcast_ref()
    }

    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()?.as_any_mut().downcast_mut()
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self(self.0.as_deref().map(Data::boxed_clone))
    }
}

pub enum PreFilter {
    /// This plugin has nothing to say about the pod; its Filter is not called.
    Skip,
    /// Go on, with data for Filter, and only with the named nodes if given.
    Go(Slot, Option<Vec<NodeId>>),
    /// No node will do.
    Reject(Reason),
}

pub enum PreScore {
    Skip,
    Go(Slot),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Permit {
    Allow,
    Reject(Reason),
    /// Hold the binding until allowed by name, at most this long.
    Wait(Duration),
}

/// What PostFilter found.
#[derive(Debug, Default)]
pub struct PostFilter {
    /// Node that will have room once the victims (or pods already leaving) are gone.
    pub node: Option<NodeId>,
    pub victims: Vec<Arc<PodInfo>>,
    /// Why nothing more could be done, for the message.
    pub message: String,
}

/// What PostFilter may look at.
pub struct PostFilterContext<'a> {
    pub profile: &'a Profile,
    pub cache: &'a Cache,
    pub pod: &'a Arc<PodInfo>,
    pub state: &'a CycleState,
    /// Nodes that were looked at and refused.
    pub refused: &'a [Refusal],
}

/// A node that was refused, by whom and why.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub node: NodeId,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

/// One scheduling plugin. Only the methods of the points it lists are called.
#[allow(unused_variables)]
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;
    fn points(&self) -> &'static [Point];

    /// Err keeps the pod out of the queue altogether.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Reason> {
        Ok(())
    }

    /// Higher goes first; equal keys go by the time they were queued.
    fn sort_key(&self, pod: &PodInfo) -> i64 {
        0
    }

    fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> PreFilter {
        PreFilter::Go(Slot::default(), None)
    }

    fn filter(&self, data: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        Verdict::Fit
    }

    /// Adjusts the data of PreFilter as if `other` were also on `node`.
    fn add_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {}

    /// Adjusts the data of PreFilter as if `other` were no longer on `node`.
    fn remove_pod(&self, data: &mut Slot, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {}

    fn post_filter(&self, context: &PostFilterContext<'_>) -> PostFilter {
        PostFilter::default()
    }

    fn pre_score(&self, pod: &PodInfo, cache: &Cache, nodes: &[NodeId]) -> PreScore {
        PreScore::Go(Slot::default())
    }

    fn score(&self, data: &Slot, pod: &PodInfo, id: NodeId, node: &NodeInfo, cache: &Cache) -> i64 {
        0
    }

    /// Brings the scores of all nodes into 0..=100.
    fn normalize(&self, data: &Slot, scores: &mut [i64]) {}

    fn reserve(&self, pod: &PodInfo, node: &str) -> Result<(), Reason> {
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, node: &str) {}

    fn permit(&self, pod: &PodInfo, node: &str) -> Permit {
        Permit::Allow
    }

    fn pre_bind<'a>(
        &'a self,
        client: &'a kube::Client,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// None: not mine, ask the next plugin.
    fn bind<'a>(
        &'a self,
        client: &'a kube::Client,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> BoxFuture<'a, Option<Result<(), String>>> {
        Box::pin(async { None })
    }

    fn post_bind(&self, pod: &PodInfo, node: &str) {}

    /// Whether the event may let a pod through that this plugin refused.
    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        true
    }
}

/// A plugin's name and the points it is called at, within its `impl Plugin`.
macro_rules! plugin {
    ($name:literal: $($point:ident),*) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn points(&self) -> &'static [$crate::framework::Point] {
            &[$($crate::framework::Point::$point),*]
        }
    };
}
pub(crate) use plugin;

/// Which of a profile's plugins refused; bit = position in the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u64);

impl PluginSet {
    pub fn insert(&mut self, at: usize) {
        self.0 |= 1 << at;
    }

    pub fn contains(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The data of PreFilter, by plugin position.
#[derive(Clone, Default)]
pub struct CycleState {
    slots: Vec<Slot>,
    skip: PluginSet,
}

struct Entry {
    plugin: Box<dyn Plugin>,
    weight: i64,
}

/// Plugins in order under a scheduler name. At most 64 plugins.
pub struct Profile {
    pub scheduler_name: Box<str>,
    entries: Vec<Entry>,
    by_point: [Vec<usize>; 12],
}

/// How the PreFilter stage ended.
pub struct PreFiltered {
    pub state: CycleState,
    /// The nodes that are left, and which plugins narrowed them; None when all are.
    pub nodes: Option<(Vec<NodeId>, Vec<&'static str>)>,
    pub narrowed: PluginSet,
    pub rejected: Option<(usize, Reason)>,
}

impl Profile {
    pub fn new(scheduler_name: &str, plugins: Vec<(Box<dyn Plugin>, i64)>) -> Self {
        assert!(plugins.len() <= 64, "a profile holds at most 64 plugins");
        let entries: Vec<_> = plugins.into_iter().map(|(plugin, weight)| Entry { plugin, weight }).collect();
        let mut by_point: [Vec<usize>; 12] = Default::default();
        for (at, entry) in entries.iter().enumerate() {
            for point in entry.plugin.points() {
                by_point[*point as usize].push(at);
            }
        }
        Self { scheduler_name: scheduler_name.into(), entries, by_point }
    }

    /// Plugins at a point with their positions.
    pub fn at(&self, point: Point) -> impl Iterator<Item = (usize, &dyn Plugin)> {
        self.by_point[point as usize].iter().map(|at| (*at, &*self.entries[*at].plugin))
    }

    pub fn plugin(&self, at: usize) -> &dyn Plugin {
        &*self.entries[at].plugin
    }

    pub fn sort_key(&self, pod: &PodInfo) -> i64 {
        self.at(Point::QueueSort).next().map_or(0, |(_, p)| p.sort_key(pod))
    }

    pub fn gate(&self, pod: &PodInfo) -> Result<(), (usize, Reason)> {
        self.at(Point::PreEnqueue).try_for_each(|(at, p)| p.pre_enqueue(pod).map_err(|reason| (at, reason)))
    }

    /// Whether any plugin that refused the pod thinks that the event may help.
    pub fn may_help(&self, refused_by: PluginSet, event: &Event<'_>, pod: &PodInfo) -> bool {
        refused_by.is_empty()
            || (0..self.entries.len())
                .filter(|at| refused_by.contains(*at))
                .any(|at| self.entries[at].plugin.hint(event, pod))
    }

    pub fn pre_filter(&self, pod: &PodInfo, cache: &Cache) -> PreFiltered {
        let mut out =
            PreFiltered { state: CycleState::default(), nodes: None, narrowed: PluginSet::default(), rejected: None };
        out.state.slots.resize_with(self.entries.len(), Slot::default);
        for (at, plugin) in self.at(Point::PreFilter) {
            match plugin.pre_filter(pod, cache) {
                PreFilter::Skip => out.state.skip.insert(at),
                PreFilter::Go(slot, nodes) => {
                    out.state.slots[at] = slot;
                    let Some(nodes) = nodes else { continue };
                    let (kept, by) = out.nodes.get_or_insert_with(|| (nodes.clone(), Vec::new()));
                    kept.retain(|id| nodes.contains(id));
                    by.push(plugin.name());
                    out.narrowed.insert(at);
                }
                PreFilter::Reject(reason) => {
                    out.rejected = Some((at, reason));
                    return out;
                }
            }
        }
        out
    }

    /// The Filter plugins that this pod needs, looked up once per cycle.
    pub fn filters<'a>(&'a self, state: &'a CycleState) -> Vec<(usize, &'a dyn Plugin, &'a Slot)> {
        self.at(Point::Filter)
            .filter(|(at, _)| !state.skip.contains(*at))
            .map(|(at, p)| (at, p, &state.slots[at]))
            .collect()
    }

    /// Runs Filter on one node as it is.
    pub fn filter(
        filters: &[(usize, &dyn Plugin, &Slot)],
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), (usize, Verdict)> {
        for (at, plugin, slot) in filters {
            let verdict = plugin.filter(slot, pod, node);
            if !verdict.is_fit() {
                return Err((*at, verdict));
            }
        }
        Ok(())
    }

    /// Runs Filter on one node, also as it will be once higher nominated pods have arrived there.
    pub fn filter_with_nominated(
        &self,
        filters: &[(usize, &dyn Plugin, &Slot)],
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        cache: &Cache,
    ) -> Result<(), (usize, Verdict)> {
        let nominated = cache.nominated(&node.name);
        if nominated.iter().any(|n| n.uid != pod.uid && n.priority >= pod.priority) {
            let mut trial_node = node.clone();
            let mut trial = state.clone();
            for other in nominated.iter().filter(|n| n.uid != pod.uid && n.priority >= pod.priority) {
                trial_node.add_pod(other.clone());
                self.add_pod(&mut trial, pod, other, &trial_node, cache);
            }
            Self::filter(&self.filters(&trial), pod, &trial_node)?;
        }
        Self::filter(filters, pod, node)
    }

    pub fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {
        for (at, plugin) in self.at(Point::PreFilter).filter(|(at, _)| !state.skip.contains(*at)).collect::<Vec<_>>() {
            plugin.add_pod(&mut state.slots[at], pod, other, node, cache);
        }
    }

    pub fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, cache: &Cache) {
        for (at, plugin) in self.at(Point::PreFilter).filter(|(at, _)| !state.skip.contains(*at)).collect::<Vec<_>>() {
            plugin.remove_pod(&mut state.slots[at], pod, other, node, cache);
        }
    }

    /// Weighted sums of all Score plugins, one per node.
    pub fn score(&self, pod: &PodInfo, cache: &Cache, nodes: &[NodeId]) -> Vec<i64> {
        let mut slots: Vec<Option<Slot>> = Vec::with_capacity(self.entries.len());
        slots.resize_with(self.entries.len(), || Some(Slot::default()));
        for (at, plugin) in self.at(Point::PreScore) {
            slots[at] = match plugin.pre_score(pod, cache, nodes) {
                PreScore::Skip => None,
                PreScore::Go(slot) => Some(slot),
            };
        }
        let mut totals = vec![0; nodes.len()];
        let mut scores = vec![0; nodes.len()];
        for (at, plugin) in self.at(Point::Score) {
            let (Some(slot), weight) = (&slots[at], self.entries[at].weight) else { continue };
            for (score, id) in scores.iter_mut().zip(nodes) {
                *score = plugin.score(slot, pod, *id, cache.node(*id), cache);
            }
            plugin.normalize(slot, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weight;
            }
        }
        totals
    }

    /// Runs Reserve; undoes what was reserved if one refuses.
    pub fn reserve(&self, pod: &PodInfo, node: &str) -> Result<(), Reason> {
        for (_, plugin) in self.at(Point::Reserve) {
            if let Err(reason) = plugin.reserve(pod, node) {
                self.unreserve(pod, node);
                return Err(reason);
            }
        }
        Ok(())
    }

    pub fn unreserve(&self, pod: &PodInfo, node: &str) {
        let plugins: Vec<_> = self.at(Point::Reserve).collect();
        plugins.iter().rev().for_each(|(_, p)| p.unreserve(pod, node));
    }

    /// The strictest answer of the Permit plugins; waits add up to the longest.
    pub fn permit(&self, pod: &PodInfo, node: &str) -> Permit {
        let mut wait: Option<Duration> = None;
        for (_, plugin) in self.at(Point::Permit) {
            match plugin.permit(pod, node) {
                Permit::Allow => {}
                Permit::Reject(reason) => return Permit::Reject(reason),
                Permit::Wait(time) => wait = Some(wait.map_or(time, |w| w.max(time))),
            }
        }
        wait.map_or(Permit::Allow, Permit::Wait)
    }
}

/// Scales scores so that the best is 100; `reverse` turns the order round. As upstream's default normalising.
pub fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores.iter_mut() {
        *score = match (max, reverse) {
            (0, true) => MAX_SCORE,
            (0, false) => *score,
            _ => {
                let scaled = MAX_SCORE * *score / max;
                if reverse { MAX_SCORE - scaled } else { scaled }
            }
        };
    }
}
