//! Closed-loop load: N clients, each on its own connection, each sending its next request when the last is answered.
//! Bodies are bytes made once, with a number put in. Any answer but the expected one is an error, never a sample.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::http::{Api, JSON, message};

pub const NAMESPACE: &str = "bench";
const NUMBER: &str = "########";

/// Sorted, in milliseconds.
pub struct Latencies(Vec<f64>);

impl Latencies {
    pub fn new(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Latencies(ms)
    }

    /// The value at quantile `q`; 1.0 is the slowest.
    pub fn at(&self, q: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// An object whose places of [`NUMBER`] take a number, and `shard-@` its last digit.
pub struct Template {
    text: Vec<u8>,
    numbers: Vec<usize>,
    shards: Vec<usize>,
}

impl Template {
    pub fn new(object: &Value) -> Self {
        let text = object.to_string();
        let places = |mark: &str| text.match_indices(mark).map(|(at, _)| at).collect();
        Template { numbers: places(NUMBER), shards: places("@"), text: text.into_bytes() }
    }

    pub fn fill(&self, number: u64) -> Bytes {
        let mut text = self.text.clone();
        let digits = format!("{number:08}");
        for at in &self.numbers {
            text[*at..*at + 8].copy_from_slice(digits.as_bytes());
        }
        for at in &self.shards {
            text[*at] = digits.as_bytes()[7];
        }
        Bytes::from(text)
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }
}

/// A ConfigMap of about 1.5 KB; without a name of its own it is `bench-NUMBER`.
pub fn config_map(name: Option<&str>) -> Template {
    let line = "the quick brown fox jumps over the lazy dog; ";
    Template::new(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name.unwrap_or("bench-########"), "namespace": NAMESPACE, "labels": {"app": "bench"}},
        "data": {"turn": NUMBER, "app.properties": line.repeat(15), "nginx.conf": line.repeat(14)},
    }))
}

/// The smallest object that can change.
pub fn small_config_map(name: &str) -> Template {
    Template::new(&json!({"metadata": {"name": name}, "data": {"turn": NUMBER}}))
}

/// A Pod as a Deployment of a web application would make it, about 2.5 KB; no node takes it.
pub fn pod() -> Template {
    let probe = |path: &str| {
        json!({"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "initialDelaySeconds": 5,
            "periodSeconds": 10, "timeoutSeconds": 2, "successThreshold": 1, "failureThreshold": 3})
    };
    let environment: Vec<Value> = (0..8)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("postgres://db-{i}.bench.svc.cluster.local:5432/app")}))
        .collect();
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example.com/team/application:v1.23.4", "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": environment, "livenessProbe": probe("/healthz"), "readinessProbe": probe("/ready"),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "volumeMounts": [{"name": "settings", "mountPath": "/etc/application", "readOnly": true}],
        })
    };
    Template::new(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "bench-########", "namespace": NAMESPACE,
            "labels": {"app": "bench", "shard": "shard-@", "pod-template-hash": "6d4cf56db6"},
            "annotations": {"example.com/checksum": "sha256:3f1a9c2b7d5e8f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8"},
        },
        "spec": {
            "containers": [container("web")],
            "volumes": [{"name": "settings", "configMap": {"name": "settings", "defaultMode": 420}}],
            "nodeSelector": {"kubernetes.io/os": "linux"}, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30, "schedulerName": "nobody",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
    }))
}

/// The namespace of everything here, with the service account that pods need: no controller runs to make it.
pub async fn namespace(api: &Api) -> Result<()> {
    api.create(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
    )
    .await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.create(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account).await?;
    Ok(())
}

pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
}

/// POSTs the template's objects into the collection `resource`.
pub fn creates(resource: &str, template: Template) -> impl Fn(u64) -> Call + Send + Sync + 'static {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/{resource}");
    move |number| Call { method: Method::POST, path: path.clone(), body: template.fill(number) }
}

#[derive(Clone, Copy)]
pub enum Until {
    Time(Duration),
    Count(u64),
}

pub struct Outcome {
    pub latencies: Latencies,
    pub elapsed: Duration,
    /// The first number that was not used.
    pub next: u64,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends `call(first)`, `call(first + 1)`, ... from `clients` connections.
pub async fn run<F>(api: &Api, clients: usize, first: u64, until: Until, call: F) -> Result<Outcome>
where
    F: Fn(u64) -> Call + Send + Sync + 'static,
{
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(api.connect().await?);
    }
    let (next, call) = (Arc::new(AtomicU64::new(first)), Arc::new(call));
    let began = Instant::now();
    let mut tasks: JoinSet<Result<Vec<f64>>> = JoinSet::new();
    for mut connection in connections {
        let (next, call) = (next.clone(), call.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                if matches!(until, Until::Time(length) if began.elapsed() >= length) {
                    return Ok(latencies);
                }
                let number = next.fetch_add(1, Ordering::Relaxed);
                if matches!(until, Until::Count(count) if number >= first + count) {
                    return Ok(latencies);
                }
                let Call { method, path, body } = call(number);
                let expected = if method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
                let sent = Instant::now();
                let (status, answer) = connection.call(method, &path, JSON, body).await?;
                latencies.push(ms(sent.elapsed()));
                if status != expected {
                    bail!("request {number} to {path}: {status}: {}", message(&answer));
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(Outcome { latencies: Latencies::new(all), elapsed: began.elapsed(), next: next.load(Ordering::Relaxed) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_numbers_everywhere() {
        let body: Value = serde_json::from_slice(&pod().fill(1234567)).expect("JSON");
        assert_eq!(body["metadata"]["name"], "bench-01234567");
        assert_eq!(body["metadata"]["labels"]["shard"], "shard-7");
        let body: Value = serde_json::from_slice(&config_map(Some("one")).fill(8)).expect("JSON");
        assert_eq!((&body["metadata"]["name"], &body["data"]["turn"]), (&json!("one"), &json!("00000008")));
        assert!((1400..1600).contains(&config_map(None).len()), "{}", config_map(None).len());
        assert!((2000..3000).contains(&pod().len()), "{}", pod().len());
    }

    #[test]
    fn quantiles() {
        let latencies = Latencies::new((1..=101).rev().map(f64::from).collect());
        assert_eq!((latencies.median(), latencies.at(0.99), latencies.at(1.0)), (51.0, 100.0, 101.0));
        assert!(Latencies::new(Vec::new()).median().is_nan());
    }
}
