//! Deliveries per second to 100 watchers (`--watchers`): as many watches of one namespace's ConfigMaps, and as many updates as 32 writers
//! get through. Done when every watcher has every event; a watch that ends before is a failure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use tokio::task::JoinSet;

use crate::Settings;
use crate::http::Watch;
use crate::load::{self, Call, NAMESPACE, Template, Until, ms};
use crate::process::{Cpu, Knarr};
use crate::report::Report;

const WRITERS: u64 = 32;
const LIMIT: Duration = Duration::from_secs(120);

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let watchers_wanted = settings.watchers;
    let updates: u64 = settings.pick(1_000_000, 50_000) / watchers_wanted.max(1);
    let (server, api) = Knarr::server(settings).await?;
    load::namespace(&api).await?;
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    load::run(&api, 1, 0, Until::Count(WRITERS), load::creates("configmaps", load::config_map(None))).await?;
    let list = api.get(&collection).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("the list has no resourceVersion")?;

    let mut watchers: JoinSet<Result<(Instant, u64)>> = JoinSet::new();
    for _ in 0..watchers_wanted {
        let path = format!("{collection}?watch=true&resourceVersion={version}");
        let watch = api.watch(&path).await?;
        watchers.spawn(count(watch, updates));
    }
    let templates: Vec<Template> = (0..WRITERS).map(|i| load::config_map(Some(&format!("bench-{i:08}")))).collect();
    let update = move |number: u64| {
        let which = number % WRITERS;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/bench-{which:08}");
        // From 1 on: one that changes nothing makes no event.
        Call { method: Method::PUT, path, body: templates[which as usize].fill(number) }
    };
    let (cpu, began) = (Cpu::of(&server)?, Instant::now());
    let written = load::run(&api, WRITERS as usize, WRITERS, Until::Count(updates), update).await?;
    let all_written = Instant::now();
    let (mut last, mut bytes) = (all_written, 0);
    let all = async {
        while let Some(done) = watchers.join_next().await {
            let (at, length) = done??;
            last = last.max(at);
            bytes += length;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(LIMIT, all).await.context("watchers wait for events that do not come")??;
    let seconds = (last - began).as_secs_f64();
    let rate = (updates * watchers_wanted) as f64 / seconds;
    let volume = format!("{:.0} MB/s; {}", bytes as f64 / 1e6 / seconds, cpu.note());
    report.add_noting(format!("deliveries to {watchers_wanted} watchers"), rate, "/s", volume);
    report.add_noting(
        format!("updates by {WRITERS} writers meanwhile"),
        written.per_second(),
        "/s",
        format!("{updates} in all"),
    );
    report.add("last watcher behind the last answer", ms(last - all_written), "ms");
    Ok(())
}

/// Reads that many events, a line each; when the last came, and the bytes of all.
async fn count(mut watch: Watch, events: u64) -> Result<(Instant, u64)> {
    let (mut seen, mut bytes) = (0, 0);
    while seen < events {
        let Some(data) = watch.chunk().await? else {
            bail!("the server ended a watch after {seen} of {events} events");
        };
        bytes += data.len() as u64;
        seen += data.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    if seen > events {
        bail!("a watcher got {seen} events of {events} updates");
    }
    Ok((Instant::now(), bytes))
}
