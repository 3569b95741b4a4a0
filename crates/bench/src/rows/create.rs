//! Durable creates, applies and gets per second through the API, over TLS on loopback, by 1 and by 100 clients.
//! The server answers a create when it is on disk. The load shares the machine's cores with it: see the notes.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::Method;

use crate::Settings;
use crate::load::{self, Call, NAMESPACE, Outcome, Until};
use crate::process::{Cpu, Knarr};
use crate::report::Report;

const CLIENTS: [usize; 2] = [1, 100];
/// Objects that are applied, over and over.
const APPLIED: u64 = 100;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (server, api) = Knarr::server(settings).await?;
    load::namespace(&api).await?;
    let until = Until::Time(Duration::from_secs(settings.pick(5, 1)));
    let mut config_maps = 0;
    for (resource, aim) in [("configmaps", ""), ("pods", "; aim 10,000")] {
        let template = || if resource == "pods" { load::pod() } else { load::config_map(None) };
        let mut first = 0;
        for clients in CLIENTS {
            let cpu = Cpu::of(&server)?;
            let outcome = load::run(&api, clients, first, until, load::creates(resource, template())).await?;
            first = outcome.next;
            let what = format!("creates of {resource} ({} B)", template().len());
            let aim = if clients > 1 { aim } else { "" };
            add(report, &what, clients, &outcome, &format!("{}{aim}", cpu.note()));
        }
        if resource == "configmaps" {
            config_maps = first;
        }
    }
    for clients in CLIENTS {
        let cpu = Cpu::of(&server)?;
        let templates: Vec<_> = (0..APPLIED).map(|i| load::config_map(Some(&format!("bench-{i:08}")))).collect();
        let apply = move |number: u64| {
            let which = number % APPLIED;
            let path =
                format!("/api/v1/namespaces/{NAMESPACE}/configmaps/bench-{which:08}?fieldManager=bench&force=true");
            Call { method: Method::PATCH, path, body: templates[which as usize].fill(number) }
        };
        // From 1,000 on, so that every apply changes something.
        let outcome = load::run(&api, clients, 1000 * clients as u64, until, apply).await?;
        add(report, "applies to configmaps", clients, &outcome, &cpu.note());
    }
    for clients in CLIENTS {
        let cpu = Cpu::of(&server)?;
        let get = move |number: u64| {
            // Every client's last number may have gone unused.
            let name = number % (config_maps - CLIENTS[1] as u64 - 1).max(1);
            let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/bench-{name:08}");
            Call { method: Method::GET, path, body: Bytes::new() }
        };
        let outcome = load::run(&api, clients, 0, until, get).await?;
        add(report, "gets of configmaps", clients, &outcome, &cpu.note());
    }
    Ok(())
}

fn add(report: &mut Report, what: &str, clients: usize, outcome: &Outcome, note: &str) {
    let l = &outcome.latencies;
    let latency = format!("p50 {:.2}, p99 {:.2}, max {:.1} ms", l.median(), l.at(0.99), l.at(1.0));
    let by = if clients == 1 { "1 client".into() } else { format!("{clients} clients") };
    report.add_noting(format!("{what}, {by}"), outcome.per_second(), "/s", format!("{latency}; {note}"));
}
