//! Memory and CPU of a cluster that does nothing, over a minute: without pods, and with ten that sleep.
//! Knarr's process alone, and together with the container runtime it started (containerd and its shims).

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{pods, sleeping_pod};
use crate::Settings;
use crate::process::{Knarr, Usage, usage};
use crate::report::Report;

const PODS: usize = 10;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (cluster, api) = Knarr::cluster(settings).await?;
    minute(settings, report, &cluster, "").await?;
    let namespace = pods::namespace(&api).await?;
    let bodies: Vec<_> = (0..PODS).map(|i| sleeping_pod(&format!("idle-{i}"))).collect();
    pods::up(&api, &namespace, &bodies).await?;
    minute(settings, report, &cluster, ", 10 pods").await?;
    pods::gone(&api, &namespace, PODS).await?;
    cluster.stop()
}

async fn minute(settings: &Settings, report: &mut Report, cluster: &Knarr, with: &str) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(settings.pick(10, 2))).await;
    let knarr = [cluster.pid()?];
    let runtime = cluster.runtime();
    let measure = || (usage(&knarr), usage(&runtime));
    let (began, before) = (Instant::now(), measure());
    tokio::time::sleep(Duration::from_secs(settings.pick(60, 5))).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), measure());
    let percent = |now: f64, before: f64| (now - before) / seconds * 100.0;
    let all = |u: &Usage| u.cpu_s + u.children_cpu_s;

    let own = percent(after.0.cpu_s, before.0.cpu_s);
    let helpers = percent(after.0.children_cpu_s, before.0.children_cpu_s);
    report.add_noting(
        format!("knarr RSS{with}"),
        after.0.rss_mib,
        "MiB",
        format!("PSS {:.1}; aim 80", after.0.pss_mib),
    );
    report.add_noting(format!("knarr CPU{with}"), own, "% of core", format!("programs it ran {helpers:.2}"));
    let rss = after.0.rss_mib + after.1.rss_mib;
    let pss = after.0.pss_mib + after.1.pss_mib;
    report.add_noting(
        format!("knarr and container runtime RSS{with}"),
        rss,
        "MiB",
        format!("PSS {pss:.1}; {} processes", 1 + runtime.len()),
    );
    let total = percent(all(&after.0) + all(&after.1), all(&before.0) + all(&before.1));
    report.add(format!("knarr and container runtime CPU{with}"), total, "% of core");
    Ok(())
}
