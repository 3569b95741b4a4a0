//! Chooses a node for every pod that has none.
//! Reads: Pod, Node, Namespace, Service, ReplicaSet, ReplicationController, StatefulSet, PodDisruptionBudget.
//! Writes: pods/binding, pods/status (PodScheduled, nominatedNodeName), Events; deletes pods it preempts.
//! Invariant: a pod is bound at most once, and never by an assumption that the API server refused.
//!
//! The way of a pod: `feed` (informer) -> `queue` -> `cycle` (PreFilter, Filter, Score) -> `act` (Reserve ... PostBind).

mod act;
pub mod cache;
pub mod class;
pub mod cycle;
pub mod diagnosis;
pub mod event;
mod feed;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resource;
pub mod selector;
#[cfg(test)]
mod testing;
pub mod topology;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cycle::Scheduler;
use crate::framework::Profile;
pub use crate::queue::Backoff;

/// Bindings (and reports of failures) under way at once.
const ACTIONS_MAX: usize = 256;
/// After so many cycles in a row other tasks get a turn.
const CYCLES_PER_TURN: u32 = 16;

#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Plugins left out, by name.
    pub disabled_plugins: Vec<String>,
    /// Other weights than the default ones, by plugin name.
    pub weights: Vec<(String, i64)>,
    /// How many of the feasible nodes to score; 0 adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: u8,
    pub backoff: Backoff,
    /// Named as the source's host in Events.
    pub host: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            disabled_plugins: Vec::new(),
            weights: Vec::new(),
            percentage_of_nodes_to_score: 0,
            backoff: Backoff::default(),
            host: String::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("scheduler profile {profile}: no plugin is called {plugin}; the known ones are {known}")]
    UnknownPlugin { profile: String, plugin: String, known: String },
    #[error("scheduler profile {profile}: percentageOfNodesToScore is {given}; give 0 to 100")]
    Percentage { profile: String, given: u8 },
}

impl Config {
    fn profile(&self) -> Result<Profile, Error> {
        let mut plugins = plugins::defaults();
        let known: Vec<_> = plugins.iter().map(|(p, _)| p.name()).collect();
        for name in self.disabled_plugins.iter().chain(self.weights.iter().map(|(n, _)| n)) {
            if !known.contains(&name.as_str()) {
                let profile = self.scheduler_name.clone();
                return Err(Error::UnknownPlugin { profile, plugin: name.clone(), known: known.join(", ") });
            }
        }
        if self.percentage_of_nodes_to_score > 100 {
            return Err(Error::Percentage {
                profile: self.scheduler_name.clone(),
                given: self.percentage_of_nodes_to_score,
            });
        }
        plugins.retain(|(p, _)| !self.disabled_plugins.iter().any(|d| d == p.name()));
        for (plugin, weight) in &mut plugins {
            if let Some((_, given)) = self.weights.iter().find(|(n, _)| n == plugin.name()) {
                *weight = *given;
            }
        }
        Ok(Profile::new(&self.scheduler_name, plugins))
    }
}

/// The scheduler's state and the bell that rings when there may be work.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<Scheduler>>,
    bell: Arc<Notify>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Schedules pods until shutdown.
pub fn run(
    config: Config,
    client: kube::Client,
    informers: client::Informers,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move {
        let scheduler = Scheduler::new(vec![config.profile()?], config.percentage_of_nodes_to_score, config.backoff);
        let shared = Shared { state: Arc::new(Mutex::new(scheduler)), bell: Arc::new(Notify::new()) };
        let synced = feed::connect(&shared, &informers);
        tokio::select! {
            () = synced => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let actor = act::Actor {
            shared: shared.clone(),
            recorder: client::Recorder::new(client.clone(), &config.scheduler_name, &config.host),
            client,
        };
        let tasks = TaskTracker::new();
        tokio::select! {
            () = schedule(&shared, &actor, &tasks) => {}
            () = shutdown.cancelled() => {}
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
    .boxed()
}

async fn schedule(shared: &Shared, actor: &act::Actor, tasks: &TaskTracker) {
    let slots = Arc::new(Semaphore::new(ACTIONS_MAX));
    let mut cycles = 0_u32;
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (decision, wake) = {
            let mut state = shared.lock();
            let now = Instant::now();
            for late in state.cache.expire(now) {
                tracing::warn!(pod = %late.key(), "the informer never confirmed this binding; forgetting it");
            }
            (state.next(now), state.queue.next_flush())
        };
        match decision {
            Some(decision) => {
                let actor = actor.clone();
                tasks.spawn(async move {
                    actor.act(decision).await;
                    drop(slot);
                });
                cycles += 1;
                if cycles.is_multiple_of(CYCLES_PER_TURN) {
                    tokio::task::yield_now().await;
                }
            }
            None => {
                drop(slot);
                let flush = async {
                    match wake {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = shared.bell.notified() => {}
                    () = flush => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_plugins() {
        let config = Config { disabled_plugins: vec!["Nope".to_owned()], ..Config::default() };
        let message = config.profile().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.starts_with(
            "scheduler profile default-scheduler: no plugin is called Nope; the known ones are SchedulingGates, "
        ));
        let config = Config { weights: vec![("ImageLocality".to_owned(), 9)], ..Config::default() };
        assert!(config.profile().is_ok());
    }
}
