//! Pod create to Ready, and delete to gone, 1, 10 and 30 at once. Times are taken by this client: from before the POST
//! is sent until the watch tells. Between rounds everything is deleted and gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{is_ready, sleeping_pod};
use crate::Settings;
use crate::http::Api;
use crate::load::{Latencies, NAMESPACE, ms};
use crate::process::Knarr;
use crate::report::Report;

const LIMIT: Duration = Duration::from_secs(120);

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (cluster, api) = Knarr::cluster(settings).await?;
    let namespace = namespace(&api).await?;
    for (at_once, rounds) in [(1, settings.pick(20, 3)), (10, settings.pick(5, 1)), (30, settings.pick(4, 1))] {
        let (mut to_ready, mut to_gone) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let bodies: Vec<_> = (0..at_once).map(|i| sleeping_pod(&format!("p{at_once}-{round}-{i}"))).collect();
            to_ready.extend(up(&api, &namespace, &bodies).await?);
            to_gone.extend(gone(&api, &namespace, at_once).await?);
        }
        let (ready, gone) = (Latencies::new(to_ready), Latencies::new(to_gone));
        let name = |what: &str| format!("{at_once} at once, {what}");
        let max = format!("max {:.0}, {} pods", ready.at(1.0), ready.len());
        report.add_noting(name("create to Ready p50"), ready.median(), "ms", "");
        report.add_noting(name("create to Ready p99"), ready.at(0.99), "ms", max);
        report.add_noting(name("delete to gone p50"), gone.median(), "ms", "grace period 1 s");
    }
    cluster.stop()
}

/// A namespace that takes pods: its service account is there. Its collection of pods.
pub async fn namespace(api: &Api) -> Result<String> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.create("/api/v1/namespaces", &body).await?;
    let mut watch = api.watch(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts?watch=true")).await?;
    let account = async {
        while watch.next().await?.1["metadata"]["name"] != "default" {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(LIMIT, account).await.context("the namespace gets no service account")??;
    Ok(format!("/api/v1/namespaces/{NAMESPACE}/pods"))
}

/// Creates all of them at once and waits until all are Ready; the milliseconds each took.
pub async fn up(api: &Api, collection: &str, bodies: &[Value]) -> Result<Vec<f64>> {
    let mut watch = watch_from_now(api, collection).await?;
    let mut connections = Vec::new();
    for _ in bodies {
        connections.push(api.connect().await?);
    }
    let mut posts: JoinSet<Result<(String, Instant)>> = JoinSet::new();
    for (mut connection, body) in connections.into_iter().zip(bodies.iter().cloned()) {
        let path = collection.to_string();
        posts.spawn(async move {
            let sent = Instant::now();
            let pod = connection.json(Method::POST, &path, &body).await?;
            Ok((pod["metadata"]["name"].as_str().unwrap_or_default().to_string(), sent))
        });
    }
    let mut ready: HashMap<String, Instant> = HashMap::new();
    let mut last = Value::Null;
    let all = async {
        while ready.len() < bodies.len() {
            let (_, pod) = watch.next().await?;
            if is_ready(&pod) {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                ready.entry(name.into()).or_insert_with(Instant::now);
            } else {
                last = pod["status"].clone();
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    let in_time = tokio::time::timeout(LIMIT, all).await;
    let mut times = Vec::new();
    while let Some(post) = posts.join_next().await {
        let (name, sent) = post??;
        times.extend(ready.get(&name).map(|at| ms(*at - sent)));
    }
    match in_time {
        Ok(result) => result.map(|()| times),
        Err(_) => bail!("{} of {} pods got Ready; one that was not: {last}", ready.len(), bodies.len()),
    }
}

/// Deletes all pods and waits until they are gone; the milliseconds each took.
pub async fn gone(api: &Api, collection: &str, count: usize) -> Result<Vec<f64>> {
    let mut watch = watch_from_now(api, collection).await?;
    let sent = Instant::now();
    api.connect().await?.json(Method::DELETE, collection, &Value::Null).await?;
    let mut times = Vec::new();
    let all = async {
        while times.len() < count {
            if watch.next().await?.0 == "DELETED" {
                times.push(ms(sent.elapsed()));
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    match tokio::time::timeout(LIMIT, all).await {
        Ok(result) => result.map(|()| times),
        Err(_) => bail!("of {count} deleted pods, not all are gone after {} s", LIMIT.as_secs()),
    }
}

async fn watch_from_now(api: &Api, collection: &str) -> Result<crate::http::Watch> {
    let list = api.get(collection).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("the list has no resourceVersion")?;
    api.watch(&format!("{collection}?watch=true&resourceVersion={version}")).await
}
