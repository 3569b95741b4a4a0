//! Starting the kubelet and everything it runs, and ending it again without touching a pod.
//!
//! Reads the configuration, waits for nothing: the runtime may come later, the API server may come later. Invariant: no
//! sandbox is ended before the list of pods was read from the API.

use std::collections::HashSet;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use client::Event;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::cgroups::Cgroups;
use crate::collect::{self, ImageCollector};
use crate::events::Events;
use crate::images::Images;
use crate::node::{self, NodeKeeper};
use crate::node_facts;
use crate::pleg::{self, Heard};
use crate::probes::Probes;
use crate::registry::{Cell, Registry};
use crate::resources::NodeLimits;
use crate::server::{self, Server};
use crate::status_writer::StatusWriter;
use crate::turns::Turns;
use crate::volumes::{self, Volumes};
use crate::worker::Worker;
use crate::{Config, Error, env, log_rotation, orphans, spec};

/// How often dead containers, directories and cgroups are looked for.
const SWEEP: Duration = Duration::from_secs(60);
const IMAGE_GC: Duration = Duration::from_secs(300);
const LOG_CHECK: Duration = Duration::from_secs(10);

/// Runs the kubelet until `shutdown`. Pods go on without it.
pub fn run(
    config: Config,
    client: kube::Client,
    informers: client::Informers,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move {
        for dir in [&config.data_dir, &config.pod_logs_dir, &config.data_dir.join("pods")] {
            std::fs::create_dir_all(dir).map_err(|source| Error::Directory { path: dir.clone(), source })?;
        }
        let server = Server::bind(server::Settings {
            listen: config.listen,
            cert_pem: config.server_cert_pem.clone(),
            key_pem: config.server_key_pem.clone(),
            client_ca_pem: config.client_ca_pem.clone(),
            node_name: config.node_name.clone(),
            data_dir: config.data_dir.clone(),
        })
        .await?;
        let port = server.address().port();
        let facts = node_facts::read(&config.data_dir);
        let tasks = TaskTracker::new();
        let cgroups = Cgroups::new(&config.cgroup_root);
        if let Err(error) = cgroups.ensure_base(facts.cpus * 1000, facts.memory_bytes) {
            return Err(Error::Cgroups { root: config.cgroup_root, source: error });
        }
        let agent = build(config, &facts, cgroups, client.clone(), informers.clone(), &shutdown);
        tracing::info!(node = %agent.config.node_name, port, runtime = %agent.config.cri_endpoint, "starting");
        agent.events.node("Normal", "Starting", "Starting kubelet.");

        let heard = Heard::new();
        let keeper = NodeKeeper::new(agent.clone(), facts, port, heard.clone());
        tasks.spawn(keeper.run(shutdown.clone()));
        tasks.spawn(node::renew_lease(agent.clone(), shutdown.clone()));
        tasks.spawn(server.run(agent.cri.clone(), client, agent.registry.clone(), shutdown.clone()));

        let pods = informers.filtered::<Pod>(None, Some(&format!("spec.nodeName={}", agent.config.node_name)));
        {
            let (agent, tasks, shutdown) = (agent.clone(), tasks.clone(), shutdown.clone());
            pods.on_event(move |event| take(&agent, &tasks, &shutdown, event));
        }
        tokio::select! { () = pods.synced() => {}, () = shutdown.cancelled() => {} }

        tasks.spawn(watch_runtime(agent.clone(), heard, tasks.clone(), shutdown.clone()));
        tasks.spawn(pleg::listen(agent.clone(), shutdown.clone()));
        tasks.spawn(housekeeping(agent, shutdown.clone()));
        shutdown.cancelled().await;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
    .boxed()
}

fn build(
    mut config: Config,
    facts: &node_facts::Facts,
    cgroups: Cgroups,
    client: kube::Client,
    informers: client::Informers,
    shutdown: &CancellationToken,
) -> Arc<Agent> {
    if config.node_ips.is_empty() {
        config.node_ips = vec![default_address()];
    }
    let (_, allocatable) = node_facts::resources(facts, config.max_pods, &config.reserved);
    let allocatable = Arc::new(allocatable);
    let cri = cri::Client::new(&config.cri_endpoint);
    let recorder = client::Recorder::new(client.clone(), "kubelet", &config.node_name);
    let events = Events::new(recorder.clone(), &config.node_name);
    let registry = Arc::new(Registry::new(config.node_ips.iter().map(ToString::to_string).collect()));
    let wake: Arc<dyn Fn(&str) + Send + Sync> = {
        let registry = registry.clone();
        Arc::new(move |uid| registry.wake(uid))
    };
    let settings = volumes::Settings { data_dir: config.data_dir.clone(), allocatable: allocatable.clone() };
    let volumes = Volumes::new(settings, client.clone(), shutdown.clone());
    volumes.on_change(wake.clone());
    let sources = env::Sources::new(client.clone(), informers);
    let limits = NodeLimits {
        memory_bytes: facts.memory_bytes,
        min_oom_score_adj: node_facts::min_oom_score_adj(),
        cgroup_v2: cgroups.is_v2(),
        swap_limit: cgroups.can_limit_swap(),
    };
    Arc::new(Agent {
        images: Images::new(cri.clone(), sources.clone(), events.clone(), config.max_parallel_pulls),
        probes: Probes::new(cri.clone(), recorder, registry.clone(), wake, shutdown.clone()),
        statuses: StatusWriter::new(client.clone(), shutdown.clone()),
        config,
        client,
        cri,
        events,
        volumes,
        sources,
        cgroups,
        limits,
        allocatable,
        registry,
        runtime_name: Arc::new(OnceLock::new()),
        turns: Turns::new(facts.cpus),
    })
}

/// The address of the default route's interface: what the kernel would send from. Nothing is sent.
fn default_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// Hands one event of the pod informer to the registry; new pods get a worker.
fn take(agent: &Arc<Agent>, tasks: &TaskTracker, shutdown: &CancellationToken, event: &Event<Pod>) {
    let cell: Option<Arc<Cell>> = match event {
        Event::Added(pod) => agent.registry.update(pod.clone()),
        Event::Modified { old, new } => {
            if spec::uid(old) != spec::uid(new) {
                agent.registry.vanish(old.clone());
            }
            agent.registry.update(new.clone())
        }
        Event::Deleted(pod) => {
            agent.registry.vanish(pod.clone());
            None
        }
    };
    if let Some(cell) = cell {
        tasks.spawn(Worker::new(agent.clone(), cell).run(shutdown.clone()));
    }
}

async fn watch_runtime(agent: Arc<Agent>, heard: Heard, tasks: TaskTracker, shutdown: CancellationToken) {
    let ending: Arc<Mutex<HashSet<String>>> = Arc::default();
    let own = agent.clone();
    let stop = shutdown.clone();
    let orphan = move |uid: &str| {
        let mut under_way = ending.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way.insert(uid.to_string()) {
            return;
        }
        let (agent, ending, uid, stop) = (own.clone(), ending.clone(), uid.to_string(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = orphans::end(&agent, &uid) => {
                    if let Err(error) = ended {
                        tracing::warn!(uid, error, "a pod that the API does not have was not ended yet");
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                }
            }
            ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        });
    };
    pleg::run(agent, heard, shutdown, orphan).await;
}

async fn housekeeping(agent: Arc<Agent>, shutdown: CancellationToken) {
    let mut images = ImageCollector::default();
    let (mut sweep, mut gc, mut logs) =
        (tokio::time::interval(SWEEP), tokio::time::interval(IMAGE_GC), tokio::time::interval(LOG_CHECK));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = sweep.tick() => {
                collect::containers(&agent).await;
                orphans::sweep(&agent).await;
            }
            _ = logs.tick() => log_rotation::run(&agent).await,
            _ = gc.tick() => {
                if let Err(error) = images.run(&agent).await {
                    tracing::debug!(%error, "images not looked at");
                }
            }
        }
    }
}

/// Stops and removes everything of this kubelet in its runtime, then its cgroups: for a cluster that is taken down. The
/// kubelet must not run meanwhile. Objects in the API stay; a kubelet that starts again makes the pods anew.
pub fn stop_all_pods(config: &Config) -> BoxFuture<'_, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move { crate::stop::all(config).await }.boxed()
}
