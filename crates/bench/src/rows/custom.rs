//! Creates of custom resources per second with 50 definitions, each with a schema, defaults and a rule in CEL; and how
//! long the definitions took to be served.

use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use serde_json::json;

use crate::Settings;
use crate::load::{self, Call, NAMESPACE, Until, ms};
use crate::process::{Cpu, Knarr};
use crate::report::Report;

const DEFINITIONS: u64 = 50;
const CLIENTS: usize = 100;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (server, api) = Knarr::server(settings).await?;
    load::namespace(&api).await?;
    let text = json!({"type": "string", "maxLength": 2000});
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["turn"],
        "properties": {"turn": text, "text": text, "size": {"type": "integer", "minimum": 1, "default": 3},
            "parts": {"type": "array", "maxItems": 100, "items": {"type": "object", "properties": {"name": text, "on": {"type": "boolean", "default": true}}}}},
        "x-kubernetes-validations": [{"rule": "self.size < 10 && self.parts.all(p, p.name != '')"}],
    }}});
    let began = Instant::now();
    let mut connection = api.connect().await?;
    for i in 0..DEFINITIONS {
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let definition = json!({
            "metadata": {"name": format!("bench{i}s.example.com")},
            "spec": {"group": "example.com", "scope": "Namespaced", "versions": [version],
                "names": {"plural": format!("bench{i}s"), "kind": format!("Bench{i}")}},
        });
        connection.json(Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await?;
    }
    let last = format!("/apis/example.com/v1/namespaces/{NAMESPACE}/bench{}s", DEFINITIONS - 1);
    while let Err(error) = api.get(&last).await {
        if began.elapsed() > LIMIT {
            return Err(error.context("the last definition is not served"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    report.add(format!("{DEFINITIONS} definitions, until the last is served"), ms(began.elapsed()), "ms");

    let parts: Vec<_> =
        (0..8).map(|i| json!({"name": format!("part-{i} of a custom resource of the usual size")})).collect();
    let object = |i: u64| {
        load::Template::new(&json!({
            "apiVersion": "example.com/v1", "kind": format!("Bench{i}"), "metadata": {"name": "bench-########", "labels": {"app": "bench"}},
            "spec": {"turn": "########", "text": "the quick brown fox jumps over the lazy dog; ".repeat(15), "parts": parts},
        }))
    };
    let objects: Vec<_> = (0..DEFINITIONS).map(object).collect();
    let (cpu, bytes) = (Cpu::of(&server)?, objects[0].len());
    let create = move |number: u64| {
        let which = number % DEFINITIONS;
        let path = format!("/apis/example.com/v1/namespaces/{NAMESPACE}/bench{which}s");
        Call { method: Method::POST, path, body: objects[which as usize].fill(number) }
    };
    let until = Until::Time(Duration::from_secs(settings.pick(5, 1)));
    let l = load::run(&api, CLIENTS, 0, until, create).await?;
    let note = format!("p50 {:.2}, p99 {:.2} ms; {}", l.latencies.median(), l.latencies.at(0.99), cpu.note());
    report.add_noting(
        format!("creates of custom resources ({bytes} B), {CLIENTS} clients"),
        l.per_second(),
        "/s",
        note,
    );
    Ok(())
}
