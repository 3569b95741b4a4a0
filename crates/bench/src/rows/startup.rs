//! From nothing to a cluster of use: `knarr up` in an empty directory, several times, the median of each milestone.
//! Everything is seen from outside, by the API and by DNS at the service's address. Times count from the process's start.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::Value;
use tokio::net::UdpSocket;

use super::{is_ready, sleeping_pod};
use crate::Settings;
use crate::http::Api;
use crate::load::{Latencies, ms};
use crate::process::Knarr;
use crate::report::Report;

const LIMIT: Duration = Duration::from_secs(150);
const PODS: &str = "/api/v1/namespaces/default/pods";

const MILESTONES: [(&str, &str); 5] = [
    ("API answers", ""),
    ("node Ready", "aim 5 s"),
    ("DNS answers at the service's address", ""),
    ("`knarr up --detach` returned", ""),
    ("first pod Ready", "created as soon as the API took it"),
];

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let runs = settings.pick(5, 1);
    let mut times: [Vec<f64>; MILESTONES.len()] = Default::default();
    for _ in 0..runs {
        for (all, one) in times.iter_mut().zip(once(settings).await?) {
            all.push(ms(one) / 1000.0);
        }
    }
    for ((name, note), times) in MILESTONES.iter().zip(times) {
        let times = Latencies::new(times);
        let spread = format!("{:.2}-{:.2} in {runs} runs", times.at(0.0), times.at(1.0));
        let note = if note.is_empty() { spread } else { format!("{spread}; {note}") };
        report.add_noting(*name, times.median(), "s", note);
    }
    Ok(())
}

async fn once(settings: &Settings) -> Result<[Duration; MILESTONES.len()]> {
    let mut cluster = Knarr::begin_cluster(settings)?;
    let began = cluster.began;
    let since = || began.elapsed();
    let milestones = async {
        let api = cluster.api().await?;
        let answered = since();
        let up = async {
            cluster.ready().await?;
            Ok(since())
        };
        let node = async {
            node_ready(&api).await?;
            Ok::<_, anyhow::Error>(since())
        };
        let dns = async {
            dns_answers(&api).await?;
            Ok(since())
        };
        let pod = async {
            first_pod(&api).await?;
            Ok(since())
        };
        let (up, node, dns, pod) = tokio::try_join!(up, node, dns, pod)?;
        Ok::<_, anyhow::Error>([answered, node, dns, up, pod])
    };
    let times = tokio::time::timeout(LIMIT, milestones).await.context("the cluster does not get ready")??;
    cluster.stop()?;
    Ok(times)
}

async fn node_ready(api: &Api) -> Result<()> {
    let mut watch = api.watch("/api/v1/nodes?watch=true").await?;
    while !is_ready(&watch.next().await?.1) {}
    Ok(())
}

async fn first_pod(api: &Api) -> Result<()> {
    let mut connection = api.connect().await?;
    // Refused until the namespace has its service account.
    while let Err(error) = connection.json(Method::POST, PODS, &sleeping_pod("first")).await {
        if !format!("{error}").contains("403") {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut watch = api.watch(&format!("{PODS}?watch=true&fieldSelector=metadata.name=first")).await?;
    while !is_ready(&watch.next().await?.1) {}
    Ok(())
}

async fn dns_answers(api: &Api) -> Result<()> {
    let mut connection = api.connect().await?;
    let path = "/api/v1/namespaces/kube-system/services/kube-dns";
    let service: Value = loop {
        match connection.json(Method::GET, path, &Value::Null).await {
            Ok(service) => break service,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let ip: IpAddr =
        service["spec"]["clusterIP"].as_str().unwrap_or_default().parse().context("kube-dns has no address")?;
    let query = query("kubernetes.default.svc.cluster.local");
    while !ask(SocketAddr::new(ip, 53), &query).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A question for one A record, with ID 7 and recursion desired.
fn query(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// Whether the server answers with a record. Every try has a port of its own: the kernel remembers of a flow that
/// began before there was a rule for it that it is not to be redirected.
async fn ask(server: SocketAddr, query: &[u8]) -> bool {
    let exchange = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(server).await?;
        socket.send(query).await?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).await?;
        let ok = length > 12 && answer[..2] == query[..2] && answer[3] & 0x0f == 0 && answer[7] > 0;
        Ok::<_, std::io::Error>(ok)
    };
    let answered = tokio::time::timeout(Duration::from_millis(50), exchange).await;
    matches!(answered, Ok(Ok(true)))
}
