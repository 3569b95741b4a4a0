//! The controllers against the real API server, in one process: a memory store, no sockets, and a stand-in for scheduler and
//! kubelet that binds every pod and reports it running.
//! Reads and writes the in-process API. Invariant: waits for what it expects by watching, never by sleeping.

#![allow(clippy::unwrap_used)] // a test may

use std::sync::Arc;
use std::time::Duration;

use apiserver::User;
use client::{Informers, Key};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Waits until the caches show it.
macro_rules! until {
    ($world:expr, $what:expr, $test:expr) => {
        $world.until($what, $test).await
    };
}

macro_rules! notices {
    ($world:ident: $($kind:ty),+) => {
        $($world.notices::<$kind>();)+
    };
}

const PATIENCE: Duration = Duration::from_secs(180);

struct World {
    client: Client,
    informers: Informers,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    server: apiserver::Server,
}

impl World {
    async fn start(config: controllers::Config) -> World {
        let _ = tracing_subscriber::fmt()
            .with_env_filter("warn,controllers=debug,client=debug")
            .with_test_writer()
            .try_init();
        let server = apiserver::Server::start(apiserver::config::Config::new(store::memory())).await.unwrap();
        let client = client::local::client(server.local(User::loopback()), "default");
        let shutdown = CancellationToken::new();
        let informers = Informers::new(client.clone(), shutdown.clone());
        let changed = Arc::new(Notify::new());
        let mut world = World { client: client.clone(), informers, changed, shutdown, tasks: Vec::new(), server };
        notices!(world: Pod, Deployment, ReplicaSet, ReplicationController, EndpointSlice, Endpoints, Node);
        notices!(world: PersistentVolume, PersistentVolumeClaim);
        notices!(world: PodDisruptionBudget, Namespace, ConfigMap, ServiceAccount, Event, Job, CronJob, ResourceQuota);
        let (informers, shutdown) = (world.informers.clone(), world.shutdown.clone());
        world.tasks.push(tokio::spawn(async move {
            controllers::run(config, client, informers, shutdown).await.unwrap();
        }));
        world.tasks.push(tokio::spawn(run_pods(world.client.clone(), world.informers.clone(), world.shutdown.clone())));
        world
    }

    /// One node is there, and pods may be made in the default namespace.
    async fn with_node() -> World {
        let world = World::start(config()).await;
        node(&world).await;
        until!(world, "a default account", |caches| {
            caches.of::<ServiceAccount>().get("default", "default").is_some()
        });
        world
    }

    fn notices<K: client::Object>(&self) {
        let changed = self.changed.clone();
        self.informers.of::<K>().on_event(move |_| changed.notify_one());
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: client::Object + kube::Resource<Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: client::Object + serde::Serialize + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until the caches show it.
    async fn until(&self, what: &str, test: impl Fn(&Informers) -> bool) {
        let wait = async {
            while !test(&self.informers) {
                self.changed.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let pods: Vec<String> = self.informers.of::<Pod>().list().iter().map(|pod| pod.name_any()).collect();
            let sets: Vec<String> = self
                .informers
                .of::<ReplicaSet>()
                .list()
                .iter()
                .map(|set| format!("{} {:?} {:?}", set.name_any(), set.spec.replicas, set.status))
                .collect();
            panic!("waited in vain for: {what}; pods {pods:?}; sets {sets:#?}");
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.informers.ended().await;
        self.server.shutdown().await;
    }
}

/// Binds every pod to node `n1` and reports it ready, unless its image is broken; lets deleted ones go.
async fn run_pods(client: Client, informers: Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    let queue = client::WorkQueue::<Key>::new();
    let into = queue.clone();
    pods.on_event(move |event| into.add(Key::of(event.object().as_ref())));
    client::run_workers(queue, 4, shutdown, move |key| {
        let (pods, client) = (pods.clone(), client.clone());
        async move {
            match pods.get_key(&key) {
                Some(pod) => run_pod(&client, &key, &pod).await.map(|()| client::Action::Done),
                None => Ok(client::Action::Done),
            }
        }
    })
    .await;
}

async fn run_pod(client: &Client, key: &Key, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let spec = pod.spec.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return api.delete(&key.name, &DeleteParams::default().grace_period(0)).await.map(|_| ());
    }
    if spec.node_name.is_none() {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": key.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
        let bound: Result<Value, _> =
            api.create_subresource("binding", &key.name, &PostParams::default(), &binding).await;
        return bound.map(|_| ());
    }
    let running =
        pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase != "Pending");
    let image = spec.containers[0].image.as_deref().unwrap_or_default();
    if running || image == "broken" {
        return Ok(());
    }
    if let Some(code) = image.strip_prefix("exit-") {
        // `exit-1,0`: the pods of each index by itself
        let index = pod.annotations().get("batch.kubernetes.io/job-completion-index").and_then(|i| i.parse().ok());
        let code: i32 = code.split(',').nth(index.unwrap_or(0)).unwrap_or("0").parse().unwrap();
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({"status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}});
        return api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(status)).await.map(|_| ());
    }
    let ip = format!("10.0.0.{}", key.name.bytes().map(u32::from).sum::<u32>() % 250 + 1);
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(status)).await.map(|_| ())
}

fn config() -> controllers::Config {
    controllers::Config {
        root_ca_pem: "PEM".to_string(),
        // Nobody reports for the node of most tests, which may take their time.
        node_monitor_grace_period: Duration::from_secs(3600),
        cluster_cidrs: vec!["10.244.0.0/16".to_string()],
        ..controllers::Config::default()
    }
}

fn deployment(name: &str, image: &str, replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]}}}})
}

fn progress(informers: &Informers, namespace: &str, name: &str) -> Option<(String, i32, i32)> {
    let deployment = informers.of::<Deployment>().get(namespace, name)?;
    let status = deployment.status.clone()?;
    if status.observed_generation != deployment.metadata.generation {
        return None;
    }
    let condition =
        status.conditions?.into_iter().find(|condition| condition.type_.as_deref() == Some("Progressing"))?;
    Some((condition.reason?, status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0)))
}

async fn node(world: &World) {
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    let nodes: Api<Node> = Api::all(world.client.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
}

async fn namespace(world: &World, name: &str) {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::<Namespace>::all(world.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// What is used of a quota.
fn used(informers: &Informers, namespace: &str, name: &str) -> String {
    let quota = informers.of::<ResourceQuota>().get(namespace, name);
    let used = quota.and_then(|quota| quota.status.as_ref()?.used.clone()).unwrap_or_default();
    used.iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_application_from_birth_to_death() {
    let world = World::start(config()).await;
    node(&world).await;
    namespace(&world, "shop").await;
    until!(world, "the default account and the CA", |caches| {
        caches.of::<ServiceAccount>().get("shop", "default").is_some()
            && caches.of::<ConfigMap>().get("shop", "kube-root-ca.crt").is_some()
    });
    until!(world, "a pod range", |caches| {
        let node = caches.of::<Node>().get("", "n1");
        node.and_then(|node| node.spec.as_ref()?.pod_cidr.clone()) == Some("10.244.0.0/24".to_string())
    });

    world
        .create::<Service>(
            "shop",
            json!({"metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        )
        .await;
    world.create::<Deployment>("shop", deployment("web", "web:1", 3)).await;
    until!(world, "three available", |caches| {
        progress(caches, "shop", "web") == Some(("NewReplicaSetAvailable".into(), 3, 3))
    });
    until!(world, "three endpoints", |caches| {
        let slices = caches.of::<EndpointSlice>().list_in("shop");
        let ready: usize = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)))
            .count();
        let legacy = caches.of::<Endpoints>().get("shop", "web");
        let legacy: usize = legacy
            .iter()
            .flat_map(|endpoints| endpoints.subsets.iter().flatten())
            .map(|subset| subset.addresses.as_ref().map_or(0, Vec::len))
            .sum();
        ready == 3 && legacy == 3
    });

    until!(world, "events of what was done", |caches| {
        let events = caches.of::<Event>().list_in("shop");
        let told = |reason: &str, component: &str| {
            let by = |event: &Event| event.source.as_ref().and_then(|source| source.component.clone());
            events
                .iter()
                .any(|event| event.reason.as_deref() == Some(reason) && by(event).as_deref() == Some(component))
        };
        told("ScalingReplicaSet", "deployment-controller") && told("SuccessfulCreate", "replicaset-controller")
    });

    let deployments: Api<Deployment> = world.api("shop");
    let image = |image: &str| {
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}))
    };
    deployments.patch("web", &PatchParams::default(), &image("web:2")).await.unwrap();
    until!(world, "the second revision", |caches| {
        let current = caches.of::<Deployment>().get("shop", "web");
        let revision =
            current.and_then(|current| current.annotations().get("deployment.kubernetes.io/revision").cloned());
        revision.as_deref() == Some("2")
            && progress(caches, "shop", "web") == Some(("NewReplicaSetAvailable".into(), 3, 3))
            && caches.of::<Pod>().list_in("shop").len() == 3
    });

    deployments.patch("web", &PatchParams::default(), &image("broken")).await.unwrap();
    until!(world, "a rollout that is stuck", |caches| {
        let sets = caches.of::<ReplicaSet>().list_in("shop");
        sets.len() == 3 && progress(caches, "shop", "web") == Some(("ReplicaSetUpdated".into(), 1, 3))
    });
    deployments.patch("web", &PatchParams::default(), &image("web:2")).await.unwrap();
    until!(world, "the undo", |caches| {
        progress(caches, "shop", "web") == Some(("NewReplicaSetAvailable".into(), 3, 3))
            && caches.of::<Pod>().list_in("shop").len() == 3
    });

    // the watch cache and the controllers' own caches never make one pod too many
    let pods = world.informers.of::<Pod>();
    for pod in pods.list_in("shop") {
        world.api::<Pod>("shop").delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    }
    until!(world, "three others", |caches| {
        caches.of::<Pod>().list_in("shop").len() == 3
            && progress(caches, "shop", "web").is_some_and(|(_, _, available)| available == 3)
    });

    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    until!(world, "everything of the deployment gone", |caches| {
        caches.of::<ReplicaSet>().list_in("shop").is_empty() && caches.of::<Pod>().list_in("shop").is_empty()
    });
    Api::<Namespace>::all(world.client.clone()).delete("shop", &DeleteParams::default()).await.unwrap();
    until!(world, "the namespace gone", |caches| caches.of::<Namespace>().get("", "shop").is_none());
    assert!(world.api::<ConfigMap>("shop").list(&ListParams::default()).await.unwrap().items.is_empty());
    world.end().await;
}

#[tokio::test]
async fn foreground_and_orphaning_deletion() {
    let world = World::with_node().await;
    world.create::<Deployment>("default", deployment("front", "web:1", 2)).await;
    world.create::<Deployment>("default", deployment("loose", "web:1", 2)).await;
    for name in ["front", "loose"] {
        until!(world, "two available", |caches| {
            progress(caches, "default", name) == Some(("NewReplicaSetAvailable".into(), 2, 2))
        });
    }
    let policy = |policy| DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    let deployments: Api<Deployment> = world.api("default");
    deployments.delete("front", &policy(PropagationPolicy::Foreground)).await.unwrap();
    deployments.delete("loose", &policy(PropagationPolicy::Orphan)).await.unwrap();
    until!(world, "the deployments gone", |caches| caches.of::<Deployment>().is_empty());
    let count = |caches: &Informers, app: &str| {
        caches.of::<Pod>().list().iter().filter(|pod| pod.labels().get("app").map(String::as_str) == Some(app)).count()
    };
    // foreground: the dependents went first
    let there = async |app: &str| {
        let selector = ListParams::default().labels(&format!("app={app}"));
        let sets = world.api::<ReplicaSet>("default").list(&selector).await.unwrap().items.len();
        (sets, world.api::<Pod>("default").list(&selector).await.unwrap().items.len())
    };
    assert_eq!((there("front").await, there("loose").await), ((0, 0), (1, 2)));
    until!(world, "the set without its owner", |caches| {
        caches.of::<ReplicaSet>().list().iter().all(|set| set.owner_references().is_empty())
    });
    // a deployment with the same selector adopts it, and its pods with it
    world.create::<Deployment>("default", deployment("loose", "web:1", 2)).await;
    until!(world, "adopted", |caches| {
        let sets = caches.of::<ReplicaSet>().list();
        sets.len() == 1
            && sets[0].owner_references().len() == 1
            && progress(caches, "default", "loose").is_some_and(|(_, updated, _)| updated == 2)
    });
    assert_eq!(count(&world.informers, "loose"), 2);
    world.end().await;
}

#[tokio::test]
async fn what_ends_or_goes_is_used_no_more() {
    let world = World::with_node().await;
    let hard = json!({"pods": "2", "count/pods": "9", "services.nodeports": "1"});
    world.create::<ResourceQuota>("default", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let wait = async |want: &str| until!(world, want, |caches| used(caches, "default", "q") == want);
    wait("count/pods=0 pods=0 services.nodeports=0").await;
    for name in ["a", "b"] {
        let containers = json!([{"name": "c", "image": "web:1"}]);
        world.create::<Pod>("default", json!({"metadata": {"name": name}, "spec": {"containers": containers}})).await;
    }
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    world.create::<Service>("default", service).await;
    wait("count/pods=2 pods=2 services.nodeports=1").await;
    let (pods, services): (Api<Pod>, Api<Service>) = (world.api("default"), world.api("default"));
    let ended = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("a", &PatchParams::default(), &Patch::Merge(ended)).await.unwrap();
    wait("count/pods=2 pods=1 services.nodeports=1").await;
    pods.delete("b", &DeleteParams::default()).await.unwrap();
    let inside = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}});
    services.patch("s", &PatchParams::default(), &Patch::Merge(inside)).await.unwrap();
    wait("count/pods=1 pods=0 services.nodeports=0").await;
    world.end().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_pods() {
    let world = World::start(controllers::Config {
        node_monitor_grace_period: Duration::from_secs(2),
        node_monitor_period: Duration::from_millis(200),
        node_eviction_rate: 100.0,
        ..config()
    })
    .await;
    node(&world).await;
    let other: Node = serde_json::from_value(json!({"metadata": {"name": "n2"}})).unwrap();
    let nodes: Api<Node> = Api::all(world.client.clone());
    nodes.create(&PostParams::default(), &other).await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "web:1"}],
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]}});
    until!(world, "a default account", |caches| caches.of::<ServiceAccount>().get("default", "default").is_some());
    world.create::<Pod>("default", pod).await;
    // n2 goes on reporting, n1 does not
    let beat = {
        let nodes = nodes.clone();
        let stop = world.shutdown.clone();
        tokio::spawn(async move {
            for beat in 0_u64.. {
                let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                    "lastHeartbeatTime": format!("2026-01-01T00:{:02}:{:02}Z", beat / 60 % 60, beat % 60), "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
                let _ = nodes.patch_status("n2", &PatchParams::default(), &Patch::Strategic(status)).await;
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(300)) => {}
                    () = stop.cancelled() => return,
                }
            }
        })
    };
    until!(world, "n1 unknown and tainted", |caches| {
        let node = caches.of::<Node>().get("", "n1");
        node.is_some_and(|node| {
            node.spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten())
                .filter(|taint| taint.key == "node.kubernetes.io/unreachable")
                .count()
                == 2
        })
    });
    until!(world, "the pod evicted", |caches| caches.of::<Pod>().list_in("default").is_empty());
    // when the machine stalls, its report may come late once
    until!(world, "n2 as well as it was", |caches| {
        let n2 = caches.of::<Node>().get("", "n2").unwrap();
        n2.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default().is_empty()
    });
    let stop = world.shutdown.clone();
    world.end().await;
    assert!(stop.is_cancelled());
    beat.await.unwrap();
}

fn job(name: &str, image: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": image}]}}}});
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

/// What the status says: its numbers, its indexes, its conditions.
fn told(caches: &Informers, name: &str) -> String {
    let Some(status) = caches.of::<Job>().get("default", name).and_then(|job| job.status.clone()) else {
        return String::new();
    };
    let number = |n: Option<i32>| n.unwrap_or(0);
    let indexes = [status.completed_indexes, status.failed_indexes].map(Option::unwrap_or_default);
    let mut told = format!("{}/{} {}", number(status.succeeded), number(status.failed), indexes.join(";"));
    for condition in status.conditions.iter().flatten() {
        told +=
            &format!(" {}={} {}", condition.type_, condition.status, condition.reason.as_deref().unwrap_or_default());
    }
    told
}

#[tokio::test]
async fn jobs_to_their_end() {
    let world = World::with_node().await;
    let indexed = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2, "backoffLimitPerIndex": 0});
    let on_three = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]});
    for (name, image, spec, end) in [
        (
            "plain",
            "exit-0",
            json!({"completions": 5, "parallelism": 3}),
            "5/0 ; SuccessCriteriaMet=True CompletionsReached Complete=True CompletionsReached",
        ),
        (
            "fails",
            "exit-1",
            json!({"backoffLimit": 0}),
            "0/1 ; FailureTarget=True BackoffLimitExceeded Failed=True BackoffLimitExceeded",
        ),
        ("indexed", "exit-0,1,0", indexed, "2/1 0,2;1 FailureTarget=True FailedIndexes Failed=True FailedIndexes"),
        (
            "policy",
            "exit-3",
            json!({"podFailurePolicy": on_three}),
            "0/1 ; FailureTarget=True PodFailurePolicy Failed=True PodFailurePolicy",
        ),
        ("late", "web:1", json!({}), "0/1 ; FailureTarget=True DeadlineExceeded Failed=True DeadlineExceeded"),
        ("soon-gone", "exit-0", json!({"ttlSecondsAfterFinished": 1}), ""),
    ] {
        world.create::<Job>("default", job(name, image, spec)).await;
        if end.is_empty() {
            until!(world, "a pod of the job", |caches| !told(caches, name).is_empty());
        }
        if name == "late" {
            // not before its pod runs, however long that takes
            let active = |caches: &Informers| caches.of::<Job>().get("default", name)?.status.clone()?.active;
            until!(world, "its pod", |caches| active(caches) == Some(1));
            let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
            world.api::<Job>("default").patch(name, &PatchParams::default(), &deadline).await.unwrap();
        }
        until!(world, &format!("the end of {name}"), |caches| told(caches, name).trim() == end.trim());
    }
    until!(world, "pods that nothing holds", |caches| {
        caches.of::<Pod>().list_in("default").iter().all(|pod| pod.finalizers().is_empty())
    });

    // suspended, resumed, suspended; and gone with its pods
    let jobs: Api<Job> = world.api("default");
    world.create::<Job>("default", job("rests", "web:1", json!({"suspend": true, "parallelism": 2}))).await;
    let active = |caches: &Informers| {
        let status = caches.of::<Job>().get("default", "rests").and_then(|job| job.status.clone()).unwrap_or_default();
        (status.active.unwrap_or(0), status.ready.unwrap_or(-1), status.start_time.is_some())
    };
    for (suspend, want) in [(true, (0, 0, false)), (false, (2, 2, true)), (true, (0, 0, false)), (false, (2, 2, true))]
    {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        jobs.patch("rests", &PatchParams::default(), &patch).await.unwrap();
        until!(world, "it to rest or run", |caches| active(caches) == want);
    }
    assert_eq!(told(&world.informers, "rests"), "0/0 ; Suspended=False JobResumed");
    let of_rests = |caches: &Informers| -> Vec<Arc<Pod>> {
        let pods = caches.of::<Pod>().list_in("default");
        pods.into_iter().filter(|pod| pod.labels().get("job-name").map(String::as_str) == Some("rests")).collect()
    };
    // an orphan is taken back, a pod that does not fit is let go
    let pod: Api<Pod> = world.api("default");
    until!(world, "no pod of the time before it rested", |caches| of_rests(caches).len() == 2);
    let names: Vec<String> = of_rests(&world.informers).iter().map(|pod| pod.name_any()).collect();
    let change = |name: &str, change: Value| {
        let (pod, name) = (pod.clone(), name.to_string());
        async move { pod.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap() }
    };
    change(&names[0], json!({"metadata": {"ownerReferences": null}})).await;
    change(&names[1], json!({"metadata": {"labels": null}})).await;
    until!(world, "two pods that are owned and tracked, and one that is neither", |caches| {
        let tied = |pod: &Arc<Pod>| (pod.owner_references().len(), pod.finalizers().len());
        let loose = caches.of::<Pod>().get("default", &names[1]);
        let pods = of_rests(caches);
        loose.is_some_and(|pod| tied(&pod) == (0, 0))
            && pods.len() == 2
            && pods.iter().all(|pod| tied(pod) == (1, 1))
            && pods.iter().any(|pod| pod.name_any() == names[0])
    });
    jobs.delete("rests", &DeleteParams::background()).await.unwrap();
    until!(world, "its pods gone", |caches| of_rests(caches).is_empty());
    // by default the pods stay, and nothing holds them
    jobs.delete("plain", &DeleteParams::default()).await.unwrap();
    until!(world, "the job gone", |caches| caches.of::<Job>().get("default", "plain").is_none());
    let left = pod.list(&ListParams::default().labels("job-name=plain")).await.unwrap();
    assert!(left.iter().all(|pod| pod.finalizers().is_empty() && pod.owner_references().is_empty()));
    assert_eq!(left.items.len(), 5);
    world.end().await;
}

#[tokio::test]
async fn cron_jobs_by_the_clock() {
    let world = World::with_node().await;
    let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "@every 1s", "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "exit-0"}]}}}}}});
    world.create::<CronJob>("default", cron).await;
    until!(world, "a job that ran", |caches| {
        let status = caches.of::<CronJob>().get("default", "tick").and_then(|cron| cron.status.clone());
        let status = status.unwrap_or_default();
        status.last_successful_time.is_some() && status.last_schedule_time.is_some()
    });
    let made = world.informers.of::<Job>().list_in("default");
    assert!(made.iter().all(|job| job.owner_references().len() == 1), "{made:#?}");
    Api::<CronJob>::namespaced(world.client.clone(), "default")
        .delete("tick", &DeleteParams::background())
        .await
        .unwrap();
    until!(world, "its jobs gone", |caches| caches.of::<Job>().is_empty() && caches.of::<Pod>().is_empty());
    world.end().await;
}

#[tokio::test]
async fn of_two_candidates_one_leads_and_hands_over() {
    let world = World::start(controllers::Config { controllers: Vec::new(), ..config() }).await;
    let changed = Arc::new(Notify::new());
    let leader = Arc::new(std::sync::Mutex::new(Vec::new()));
    let candidate = |name: &str, stop: CancellationToken| {
        let config = client::leader::Config {
            retry_period: Duration::from_millis(50),
            ..client::leader::Config::new("kube-system", "test", name)
        };
        let (client, leader, changed, name) = (world.client.clone(), leader.clone(), changed.clone(), name.to_string());
        tokio::spawn(client::leader::run(config, client, stop, move |stop| async move {
            leader.lock().unwrap().push(name);
            changed.notify_one();
            stop.cancelled().await;
        }))
    };
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let a = candidate("a", stop_a.clone());
    tokio::time::timeout(PATIENCE, changed.notified()).await.unwrap();
    let b = candidate("b", stop_b.clone());
    stop_a.cancel();
    a.await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, changed.notified()).await.unwrap();
    assert_eq!(*leader.lock().unwrap(), ["a", "b"]);
    stop_b.cancel();
    b.await.unwrap().unwrap();
    world.end().await;
}

#[tokio::test]
async fn custom_resources_are_watched_collected_and_go_with_their_namespace() {
    use futures::{StreamExt, TryStreamExt};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{ApiResource, DynamicObject};
    use kube::runtime::{WatchStreamExt, wait, watcher};

    let world = World::start(config()).await;
    namespace(&world, "shop").await;
    let definition: CustomResourceDefinition = serde_json::from_value(json!({"metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}, "default": {}}}}}}]}}))
    .unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let established = wait::await_condition(definitions, "widgets.example.com", wait::conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.unwrap().unwrap();

    let kind = kube::api::GroupVersionKind::gvk("example.com", "v1", "Widget");
    let resource = ApiResource::from_gvk_with_plural(&kind, "widgets");
    let widgets: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "shop", &resource);
    let mut seen = watcher(widgets.clone(), watcher::Config::default().streaming_lists()).applied_objects().boxed();
    let owner = DynamicObject::new("owner", &resource);
    let owner = widgets.create(&PostParams::default(), &owner).await.unwrap();
    let shown = tokio::time::timeout(PATIENCE, seen.try_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((shown.name_any().as_str(), &shown.data["spec"]), ("owner", &json!({"size": 3})));
    world
        .create::<ConfigMap>(
            "shop",
            json!({"metadata": {"name": "owned", "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Widget",
                "name": "owner", "uid": owner.metadata.uid}]}}),
        )
        .await;
    until!(world, "the map is there", |i| i.of::<ConfigMap>().get("shop", "owned").is_some());
    world
        .create::<ResourceQuota>(
            "shop",
            json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/widgets.example.com": "1", "configmaps": "5",
                "count/gadgets.example.com": "1"}}}),
        )
        .await;
    let counted = |maps: &str, widgets: &str| format!("configmaps={maps} count/widgets.example.com={widgets}");
    until!(world, "the quota is counted", |i| used(i, "shop", "few") == counted("2", "1"));
    let refused = widgets.create(&PostParams::default(), &DynamicObject::new("more", &resource)).await.unwrap_err();
    let want = "widgets.example.com \"more\" is forbidden: exceeded quota: few, requested: count/widgets.example.com=1, \
                used: count/widgets.example.com=1, limited: count/widgets.example.com=1";
    assert_eq!(client::message(&refused), want);
    widgets.delete("owner", &DeleteParams::background()).await.unwrap();
    until!(world, "what went is free again", |i| used(i, "shop", "few") == counted("1", "0"));
    until!(world, "its map goes too", |i| i.of::<ConfigMap>().get("shop", "owned").is_none());

    widgets.create(&PostParams::default(), &DynamicObject::new("last", &resource)).await.unwrap();
    Api::<Namespace>::all(world.client.clone()).delete("shop", &DeleteParams::default()).await.unwrap();
    until!(world, "the namespace goes", |i| i.of::<Namespace>().get("", "shop").is_none());
    assert!(widgets.get_opt("last").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test]
async fn a_budget_holds_back_the_eviction_of_a_replication_controllers_pods() {
    let world = World::start(config()).await;
    until!(world, "a default account", |caches| caches.of::<ServiceAccount>().get("default", "default").is_some());
    let pod = |name: &str, app: &str| {
        json!({"metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "web:1"}]}})
    };
    world.create::<Pod>("default", pod("early", "web")).await;
    let controller = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"app": "web"},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}});
    world.create::<ReplicationController>("default", controller).await;
    let ready = |caches: &Informers| {
        let status = caches.of::<ReplicationController>().get("default", "web").and_then(|found| found.status.clone());
        status.and_then(|status| status.ready_replicas)
    };
    until!(world, "three ready", |caches| ready(caches) == Some(3));
    assert_eq!(world.informers.of::<Pod>().list().len(), 3);

    let budget = |name: &str, app: &str, max: i32| json!({"metadata": {"name": name}, "spec": {"maxUnavailable": max, "selector": {"matchLabels": {"app": app}}}});
    let shown = |caches: &Informers, name: &str| {
        let budget = caches.of::<PodDisruptionBudget>().get("default", name)?;
        let status = budget.status.clone()?;
        let condition = status.conditions?.pop()?;
        let fresh = status.observed_generation == budget.metadata.generation;
        let counts =
            [status.expected_pods?, status.desired_healthy?, status.current_healthy?, status.disruptions_allowed?];
        fresh.then_some((counts, condition.reason, condition.message))
    };
    let counted = |counts: [i32; 4], reason: &str| Some((counts, reason.to_string(), String::new()));
    world.create::<PodDisruptionBudget>("default", budget("web", "web", 0)).await;
    let none = counted([3, 3, 3, 0], "InsufficientPods");
    until!(world, "a budget that allows nothing", |caches| shown(caches, "web") == none);
    let pods: Api<Pod> = world.api("default");
    let refused = pods.evict("early", &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(refused) = refused else { panic!("{refused}") };
    let details = refused.details.clone().unwrap();
    assert_eq!(
        (refused.code, refused.message.as_str(), details.causes[0].reason.as_str(), details.causes[0].message.as_str()),
        (
            429,
            "Cannot evict pod as it would violate the pod's disruption budget.",
            "DisruptionBudget",
            "The disruption budget web needs 3 healthy pods and has 3 currently"
        )
    );
    let budgets: Api<PodDisruptionBudget> = world.api("default");
    let patch = Patch::Merge(json!({"spec": {"maxUnavailable": "30%"}}));
    budgets.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let one = counted([3, 2, 3, 1], "SufficientPods");
    until!(world, "a budget that allows one", |caches| shown(caches, "web") == one);
    pods.evict("early", &EvictParams::default()).await.unwrap();
    until!(world, "another instead", |caches| {
        caches.of::<Pod>().get("default", "early").is_none() && shown(caches, "web") == one
    });

    // pods of a controller that nobody can ask how many it wants
    let map: ConfigMap = world.create("default", json!({"metadata": {"name": "odd"}})).await;
    let mut odd = pod("odd", "odd");
    odd["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "odd", "uid": map.metadata.uid, "controller": true}]);
    world.create::<Pod>("default", odd).await;
    world.create::<PodDisruptionBudget>("default", budget("odd", "odd", 1)).await;
    until!(world, "a budget that cannot be counted", |caches| {
        let told = caches.of::<PodDisruptionBudget>().get("default", "odd").and_then(|budget| budget.status.clone());
        let condition = told.and_then(|status| status.conditions?.pop());
        let why = "configmaps does not implement the scale subresource";
        condition.is_some_and(|condition| condition.reason == "SyncFailed" && condition.message == why)
    });
    world.create::<PodDisruptionBudget>("default", budget("second", "web", 1)).await;
    until!(world, "a second budget", |caches| shown(caches, "second") == one);
    let name =
        world.informers.of::<Pod>().list_in("default").iter().map(|pod| pod.name_any()).find(|name| name != "odd");
    let refused = pods.evict(&name.unwrap(), &EvictParams::default()).await.unwrap_err();
    assert!(client::is_code(&refused, 500) && client::message(&refused).contains("more than one"), "{refused}");
    world.end().await;
}

#[tokio::test]
async fn endpoints_kept_by_hand_are_mirrored() {
    let world = World::start(config()).await;
    world.create::<Service>("default", json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 80}]}})).await;
    let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 80}]}]);
    let made = json!({"metadata": {"name": "db", "labels": {"team": "a"}}, "subsets": subsets("10.1.2.3")});
    world.create::<Endpoints>("default", made).await;
    let mirrored = |caches: &Informers| -> Vec<String> {
        let slices = caches.of::<EndpointSlice>().list_in("default");
        let ours = slices.iter().filter(|slice| slice.labels().get("team").map(String::as_str) == Some("a"));
        ours.flat_map(|slice| slice.endpoints.iter().flatten().flat_map(|e| e.addresses.clone())).collect()
    };
    until!(world, "a slice", |caches| mirrored(caches) == ["10.1.2.3"]);
    let endpoints: Api<Endpoints> = world.api("default");
    let patch = Patch::Merge(json!({"subsets": subsets("10.2.3.4")}));
    endpoints.patch("db", &PatchParams::default(), &patch).await.unwrap();
    until!(world, "the other address", |caches| mirrored(caches) == ["10.2.3.4"]);
    endpoints.delete("db", &DeleteParams::default()).await.unwrap();
    until!(world, "none", |caches| mirrored(caches).is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_stays_while_a_pod_uses_it_and_a_volume_while_it_is_bound() {
    let world = World::with_node().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""});
    let claim: PersistentVolumeClaim =
        world.create("default", json!({"metadata": {"name": "data"}, "spec": spec})).await;
    assert_eq!(claim.finalizers(), ["kubernetes.io/pvc-protection"]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/tmp"}}});
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let phase = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    volumes.patch_status("v", &PatchParams::default(), &phase("Bound")).await.unwrap();
    let pod = json!({"metadata": {"name": "user"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let _: Pod = world.create("default", pod).await;
    until!(world, "the pod to run", |caches| {
        let pod = caches.of::<Pod>().get("default", "user");
        pod.is_some_and(|p| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")))
    });
    let claims = world.api::<PersistentVolumeClaim>("default");
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    // What is unused goes: by then the controllers have looked at the others too.
    let other: PersistentVolumeClaim =
        world.create("default", json!({"metadata": {"name": "other"}, "spec": spec})).await;
    claims.delete(&other.name_any(), &DeleteParams::default()).await.unwrap();
    until!(world, "the other claim to go", |caches| caches
        .of::<PersistentVolumeClaim>()
        .get("default", "other")
        .is_none());
    assert!(claims.get("data").await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(volumes.get("v").await.unwrap().metadata.deletion_timestamp.is_some());
    world.api::<Pod>("default").delete("user", &DeleteParams::default()).await.unwrap();
    volumes.patch_status("v", &PatchParams::default(), &phase("Released")).await.unwrap();
    until!(world, "both to go", |caches| {
        caches.of::<PersistentVolumeClaim>().list().is_empty() && caches.of::<PersistentVolume>().list().is_empty()
    });
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policys_expressions_are_checked_against_the_kinds_it_is_for() {
    let world = World::start(config()).await;
    world.notices::<ValidatingAdmissionPolicy>();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    let policy = |name: &str, expressions: &[&str]| {
        let all: Vec<Value> = expressions.iter().map(|text| json!({"expression": text})).collect();
        json!({"metadata": {"name": name}, "spec": {"validations": all,
            "variables": [{"name": "spec", "expression": "object.spec"}],
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["deployments", "replicasets"]}]}}})
    };
    let wrong = [
        "object.replicas > 1",
        "object.metadata.name != 'x' && variables.spec.paused != true",
        "variables.spec.replicas > 1",
    ];
    let right = ["object != null && object.metadata.labels.all(k, k.size() > 1)"];
    for policy in [policy("wrong", &wrong), policy("right", &right)] {
        policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    }
    let status = |caches: &Informers, name: &str| {
        let policy = caches.of::<ValidatingAdmissionPolicy>().get("", name)?;
        policy.status.clone().filter(|status| status.observed_generation == policy.metadata.generation)
    };
    until!(world, "both to be checked", |caches| ["wrong", "right"].iter().all(|name| status(caches, name).is_some()));
    let checked = |name: &str| status(&world.informers, name).unwrap().type_checking.unwrap().expression_warnings;
    assert_eq!(checked("right"), None);
    let found: Vec<(String, String)> =
        checked("wrong").unwrap().into_iter().map(|warning| (warning.field_ref, warning.warning)).collect();
    // As on the page "Validating Admission Policy".
    let first = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
    let first = format!("{first}{}", first.replace("Deployment", "ReplicaSet"));
    let (field, at) = (&wrong[1], wrong[1].find(".paused").unwrap());
    let second = format!(
        "apps/v1, Kind=ReplicaSet: ERROR: <input>:1:{}: undefined field 'paused'\n | {field}\n | {}^\n",
        at + 1,
        ".".repeat(at)
    );
    let at = |i: usize| format!("spec.validations[{i}].expression");
    assert_eq!(found, [(at(0), first), (at(1), second)]);
    world.end().await;
}
