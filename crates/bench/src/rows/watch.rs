//! Deliveries per second to 100 watchers (`--watchers`): as many watches of one namespace's objects, and as many updates
//! as 100 writers get through, once of ConfigMaps of 1.5 KB, once of ones with a single number. Done when every watcher
//! has every event; a watch that ends before is a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use tokio::task::JoinSet;

use crate::Settings;
use crate::http::{Api, Watch};
use crate::load::{self, Call, NAMESPACE, Template, Until, ms};
use crate::process::{Cpu, Knarr};
use crate::report::Report;

const WRITERS: u64 = 100;
const LIMIT: Duration = Duration::from_secs(120);

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (server, api) = Knarr::server(settings).await?;
    load::namespace(&api).await?;
    let names = (0..WRITERS).map(|number| format!("bench-{number:08}"));
    let large = names.clone().map(|name| load::config_map(Some(&name))).collect();
    deliver(settings, report, (&server, &api), "1.5 KB", large).await?;
    let (server, api) = Knarr::server(settings).await?;
    load::namespace(&api).await?;
    let small = names.map(|name| load::small_config_map(&name)).collect();
    deliver(settings, report, (&server, &api), "small", small).await
}

async fn deliver(
    settings: &Settings,
    report: &mut Report,
    (server, api): (&Knarr, &Api),
    size: &str,
    templates: Vec<Template>,
) -> Result<()> {
    let watchers_wanted = settings.watchers;
    let updates: u64 = settings.pick(3_000_000, 50_000) / watchers_wanted.max(1);
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let templates = Arc::new(templates);
    let (path, bodies) = (collection.clone(), templates.clone());
    let create =
        move |number: u64| Call { method: Method::POST, path: path.clone(), body: bodies[number as usize].fill(0) };
    load::run(api, 1, 0, Until::Count(WRITERS), create).await?;
    let list = api.get(&collection).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("the list has no resourceVersion")?;

    let mut watchers: JoinSet<Result<(Instant, u64)>> = JoinSet::new();
    for _ in 0..watchers_wanted {
        let path = format!("{collection}?watch=true&resourceVersion={version}");
        let watch = api.watch(&path).await?;
        watchers.spawn(count(watch, updates));
    }
    let path = collection.clone();
    let update = move |number: u64| {
        let which = number % WRITERS;
        let path = format!("{path}/bench-{which:08}");
        // From 1 on: one that changes nothing makes no event.
        Call { method: Method::PUT, path, body: templates[which as usize].fill(number) }
    };
    let (cpu, began) = (Cpu::of(server)?, Instant::now());
    let written = load::run(api, WRITERS as usize, WRITERS, Until::Count(updates), update).await?;
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
    report.add_noting(format!("deliveries of {size} objects to {watchers_wanted} watchers"), rate, "/s", volume);
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
        seen += memchr::memchr_iter(b'\n', &data).count() as u64;
    }
    if seen > events {
        bail!("a watcher got {seen} events of {events} updates");
    }
    Ok((Instant::now(), bytes))
}
