//! What a flood by one tenant costs another: the latency of one quiet client's creates and gets, alone and while another
//! account's 200 clients list pods as fast as they can. Priority and fairness should keep it within twice.
//!
//! The flood's own clients need these cores too, and a client waits for a core whoever has it. So that this part is
//! known, the same client is also measured beside loops that do nothing but keep every core busy.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::list;
use crate::Settings;
use crate::http::Api;
use crate::load::{self, Call, NAMESPACE, Until};
use crate::process::{Cpu, Knarr};
use crate::report::Report;

const FLOOD: usize = 200;
const PODS: u64 = 1_000;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (server, api) = Knarr::server(settings).await?;
    list::fill(&api, PODS).await?;
    let subject = |name: &str| json!({"kind": "ServiceAccount", "namespace": NAMESPACE, "name": name});
    let role = json!({"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "cluster-admin"});
    let binding =
        json!({"metadata": {"name": "tenants"}, "roleRef": role, "subjects": [subject("quiet"), subject("loud")]});
    api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
    let (quiet, loud) = (tenant(&api, "quiet").await?, tenant(&api, "loud").await?);
    let length = Duration::from_secs(settings.pick(5, 1));

    let alone = load::run(&quiet, 1, 0, Until::Time(length), mixed()).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let list = move |_| Call { method: Method::GET, path: path.clone(), body: Bytes::new() };
    let busy = {
        let _loops = Loops::start();
        load::run(&quiet, 1, alone.next, Until::Time(length), mixed()).await?
    };
    let cpu = Cpu::of(&server)?;
    // On a thread of its own: what the flood makes its own clients wait is not the server's doing.
    let first = busy.next;
    let beside = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load::run(&quiet, 1, first, Until::Time(length), mixed()))
    });
    let flood = load::run(&loud, FLOOD, 0, Until::Time(length), list).await.context("the flood")?;
    let beside =
        beside.join().map_err(|_| anyhow::anyhow!("the quiet tenant panicked"))?.context("the quiet tenant")?;
    for (what, q) in [("p50", 0.5), ("p99", 0.99)] {
        let [a, b, c] = [&alone, &busy, &beside].map(|outcome| outcome.latencies.at(q));
        report.add(format!("a quiet tenant alone, {what}"), a, "ms");
        report.add_noting(format!("beside busy loops, {what}"), b, "ms", format!("{:.1} times", b / a));
        report.add_noting(format!("beside a flood, {what}"), c, "ms", format!("{:.1} times; aim 2", c / a));
    }
    let note = format!("LIST of {PODS} pods, p99 {:.0} ms; {}", flood.latencies.at(0.99), cpu.note());
    report.add_noting(format!("the flood by {FLOOD} clients"), flood.per_second(), "/s", note);
    Ok(())
}

/// A busy loop for each core, until dropped.
struct Loops(Arc<AtomicBool>);

impl Loops {
    fn start() -> Loops {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            let stop = stop.clone();
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {});
        }
        Loops(stop)
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A service account, and the API as it.
async fn tenant(api: &Api, name: &str) -> Result<Api> {
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    api.create(&accounts, &json!({"metadata": {"name": name}})).await?;
    let token = api.create(&format!("{accounts}/{name}/token"), &json!({"spec": {}})).await?;
    api.with_token(token["status"]["token"].as_str().context("no token")?)
}

/// A create, and a get of it.
fn mixed() -> impl Fn(u64) -> Call + Send + Sync + 'static {
    let create = load::creates("configmaps", load::config_map(None));
    move |number| match number % 2 {
        0 => create(number),
        _ => Call {
            method: Method::GET,
            path: format!("/api/v1/namespaces/{NAMESPACE}/configmaps/bench-{:08}", number - 1),
            body: Bytes::new(),
        },
    }
}
