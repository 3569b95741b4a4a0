//! Whole pods against an API server of a few lines: files appear, follow changes, and go.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Container;
use kube::client::Body;
use serde_json::{Value, json};

use super::testing::{TempDir, needs_root};
use super::*;

/// Objects by `kind/name`; a watch of one ends when it changes, so that the watcher lists again.
#[derive(Default)]
struct Server {
    objects: Mutex<BTreeMap<String, Value>>,
    /// How often something changed; the version of every list is one more.
    changes: tokio::sync::watch::Sender<u64>,
    tokens: Mutex<u64>,
}

impl Server {
    fn put(&self, kind: &str, name: &str, data: Value) {
        let mut objects = lock(&self.objects);
        let version = format!("{}", 100 + objects.len() + name.len() + data.to_string().len());
        let value = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": version}, "data": data});
        objects.insert(format!("{kind}/{name}"), value);
        self.changes.send_modify(|changes| *changes += 1);
    }

    async fn answer(&self, path: &str, query: &str) -> (StatusCode, Value) {
        if path.ends_with("/token") {
            let mut count = lock(&self.tokens);
            *count += 1;
            let status = json!({"token": format!("token-{count}"), "expirationTimestamp": Timestamp::now() + Duration::from_secs(600)});
            return (
                StatusCode::CREATED,
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}, "status": status}),
            );
        }
        let kind = path.rsplit('/').next().unwrap_or_default();
        let name = query.split("metadata.name%3D").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
        if query.contains("watch=true") {
            // What changed after the list and before this watch counts too.
            let listed = query.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next());
            let listed: u64 = listed.and_then(|version| version.parse().ok()).unwrap_or_default();
            let _ = self.changes.subscribe().wait_for(|changes| *changes + 1 > listed).await;
            return (
                StatusCode::OK,
                json!({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old", "status": "Failure"}}),
            );
        }
        let version = (*self.changes.borrow() + 1).to_string();
        let items: Vec<Value> = lock(&self.objects).get(&format!("{kind}/{name}")).cloned().into_iter().collect();
        (StatusCode::OK, json!({"metadata": {"resourceVersion": version}, "items": items}))
    }
}

fn client(server: &Arc<Server>) -> kube::Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
            let (status, body) = server.answer(&path, &query).await;
            Ok::<_, Infallible>(
                Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap(),
            )
        }
    });
    kube::Client::new(service, "ns")
}

fn pod(volumes: Value) -> Arc<Pod> {
    let names: Vec<Value> =
        volumes.as_array().unwrap().iter().map(|volume| json!({"name": volume["name"], "mountPath": "/x"})).collect();
    let value = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"app": "x"}},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": names}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

struct Fixture {
    dir: TempDir,
    server: Arc<Server>,
    volumes: Volumes,
    shutdown: CancellationToken,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let dir = TempDir::new(name);
        let server = Arc::new(Server::default());
        let shutdown = CancellationToken::new();
        let settings = Settings { data_dir: dir.to_path_buf(), allocatable: Arc::default() };
        let volumes = Volumes::new(settings, client(&server), shutdown.clone());
        Self { dir, server, volumes, shutdown }
    }
}

async fn until(check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.expect("it happens");
}

#[tokio::test]
async fn config_maps_follow_their_object_and_go_with_the_pod() {
    let at = Fixture::new("volumes-live");
    at.server.put("configmaps", "cm", json!({"k": "one"}));
    let pod = pod(json!([{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}]));
    let mounted = at.volumes.mount(&pod).await.unwrap();
    let file = mounted.path("v").unwrap().join("k");
    assert_eq!(fs::read_to_string(&file).unwrap(), "one");
    assert_eq!(file, at.dir.canonicalize().unwrap().join("pods/u1/volumes/kubernetes.io~configmap/v/k"));
    at.server.put("configmaps", "cm", json!({"k": "second"}));
    until(|| fs::read_to_string(&file).is_ok_and(|text| text == "second")).await;
    at.volumes.mount(&pod).await.unwrap();
    at.volumes.unmount("u1").await.unwrap();
    assert!(fs::read_dir(at.dir.join("pods/u1")).unwrap().next().is_none());
    at.shutdown.cancel();
}

#[tokio::test]
async fn a_missing_object_is_named_and_wakes_the_pod_when_it_comes() {
    let at = Fixture::new("volumes-missing");
    let woken = Arc::new(Mutex::new(String::new()));
    let seen = woken.clone();
    at.volumes.on_change(Arc::new(move |uid| *lock(&seen) = uid.to_owned()));
    let pod = pod(
        json!([{"name": "v", "configMap": {"name": "late"}}, {"name": "o", "configMap": {"name": "never", "optional": true}}]),
    );
    let error = at.volumes.mount(&pod).await.unwrap_err();
    assert_eq!((error.volume(), error.to_string().as_str()), ("v", "configmap \"late\" not found"));
    at.server.put("configmaps", "late", json!({"k": "v"}));
    until(|| lock(&woken).as_str() == "u1").await;
    let mounted = at.volumes.mount(&pod).await.unwrap();
    assert!(mounted.path("v").unwrap().join("k").exists());
    assert!(mounted.path("o").unwrap().is_dir());
    at.shutdown.cancel();
}

#[tokio::test]
async fn projected_volumes_hold_tokens_maps_and_fields() {
    needs_root();
    let at = Fixture::new("volumes-projected");
    at.server.put("configmaps", "kube-root-ca.crt", json!({"ca.crt": "CA"}));
    at.server.put("secrets", "s", json!({"p": "cHc="}));
    let pod = pod(json!([
        {"name": "api", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}},
        {"name": "sec", "secret": {"secretName": "s", "defaultMode": 256}},
    ]));
    let mounted = at.volumes.mount(&pod).await.unwrap();
    let read = |volume: &str, name: &str| fs::read_to_string(mounted.path(volume).unwrap().join(name)).unwrap();
    let found = [read("api", "token"), read("api", "ca.crt"), read("api", "namespace"), read("sec", "p")];
    assert_eq!(found, ["token-1", "CA", "ns", "pw"]);
    assert_eq!(fs::metadata(mounted.path("sec").unwrap().join("p")).unwrap().permissions().mode() & 0o777, 0o400);
    at.volumes.mount(&pod).await.unwrap();
    assert_eq!(read("api", "token"), "token-1");
    let container: &Container = &pod.spec.as_ref().unwrap().containers[0];
    assert!(mounted.mounts_for(container, &[]).await.unwrap().iter().all(|mount| mount.readonly));
    assert_eq!(sys::mount::mounts_below(&at.dir.canonicalize().unwrap()).unwrap().len(), 2);
    // Another kubelet on the same directory, as after a restart: orphans go with their mounts, kept pods stay.
    let other = Volumes::new(at.volumes.0.settings.clone(), client(&at.server), at.shutdown.clone());
    other.clean_orphans(&HashSet::from(["u1".to_owned()])).await;
    assert_eq!(read("sec", "p"), "pw");
    other.clean_orphans(&HashSet::new()).await;
    assert!(sys::mount::mounts_below(&at.dir.canonicalize().unwrap()).unwrap().is_empty());
    assert!(!at.dir.join("pods/u1/volumes").exists());
    at.shutdown.cancel();
}

#[tokio::test]
async fn kinds_that_are_not_served_say_so() {
    let at = Fixture::new("volumes-unsupported");
    let rest = "volumes are not supported yet; use emptyDir, hostPath, configMap, secret, downwardAPI or projected";
    for (source, expected) in [
        (json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), format!("persistentVolumeClaim {rest}")),
        (json!({"name": "v", "nfs": {"server": "s", "path": "/"}}), format!("nfs {rest}")),
        (
            json!({"name": "v", "hostPath": {"path": "/dev/null", "type": "File"}}),
            "hostPath type check failed: /dev/null is not a file".to_owned(),
        ),
    ] {
        let error = at.volumes.mount(&pod(json!([source]))).await.unwrap_err();
        assert_eq!((error.volume(), error.to_string()), ("v", expected));
    }
    at.shutdown.cancel();
}
