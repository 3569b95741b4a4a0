//! What an object costs in memory: how the API server's RSS grows by 10,000 pods (`--pods`), made one by one and read again after
//! a restart.

use anyhow::{Context, Result};

use super::list;
use crate::Settings;
use crate::http::JSON;
use crate::load::NAMESPACE;
use crate::process::{Knarr, usage};
use crate::report::Report;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let pods: u64 = settings.pods();
    let (mut server, api) = Knarr::server(settings).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    // What answering takes the first time is not an object's.
    let mut connection = api.connect().await?;
    connection.drain(&path, JSON).await?;
    let empty = usage(&[server.pid()?]).rss_mib;
    report.add("API server alone, empty, RSS", empty, "MiB");

    list::fill(&api, pods).await?;
    let full = usage(&[server.pid()?]).rss_mib;
    let mut connection = api.connect().await.context("connecting again")?;
    let each = connection.drain(&path, JSON).await? as f64 / pods as f64;
    let per_object = |rss: f64| (rss - empty) * f64::from(1 << 20) / pods as f64;
    report.add(format!("with {pods} pods made, RSS"), full, "MiB");
    report.add_noting("per pod", per_object(full), "bytes", format!("a pod is {each:.0} bytes of JSON"));

    let (api, _) = server.restart_server().await?;
    // Whatever is read from disk on first use has been read then.
    api.connect().await?.drain(&format!("{path}?limit=1"), JSON).await?;
    let again = usage(&[server.pid()?]).rss_mib;
    report.add(format!("with {pods} pods after a restart, RSS"), again, "MiB");
    report.add("per pod after a restart", per_object(again), "bytes");
    Ok(())
}
