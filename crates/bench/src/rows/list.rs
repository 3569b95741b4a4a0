//! LIST of 10,000 pods (`--pods`): the first one after a start, and the median of further ones, as clients ask for it: all at
//! once, by label, in protobuf, as a table, in pages. Counted from the request until the last byte, uncompressed, over TLS.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::Settings;
use crate::http::{Api, Connection, JSON, PROTOBUF, TABLE, message};
use crate::load::{self, Latencies, NAMESPACE, Until, ms};
use crate::process::Knarr;
use crate::report::Report;

const PAGE: u64 = 500;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let pods: u64 = settings.pods();
    let (mut server, api) = Knarr::server(settings).await?;
    fill(&api, pods).await?;
    let (api, took) = server.restart_server().await?;
    report.add(format!("restart with {pods} pods until it answers"), ms(took), "ms");

    let all = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let labelled = format!("{all}?labelSelector=shard%3Dshard-3");
    let mut connection = api.connect().await?;
    let (cold, bytes) = timed(&mut connection, &all, JSON).await?;
    add(report, "JSON, cold", cold, bytes, "first after the restart");
    let rounds = settings.pick(11, 3);
    let aim = format!("aim {} ms", if pods > 10_000 { pods * 3 / 1000 } else { 100 });
    let requests = [
        ("JSON, warm", &all, JSON, pods, aim.as_str()),
        ("JSON, by label, 1 in 10", &labelled, JSON, pods / 10, ""),
        ("protobuf", &all, PROTOBUF, pods, ""),
        ("Table", &all, TABLE, pods, ""),
        ("Table, by label, 1 in 10", &labelled, TABLE, pods / 10, ""),
    ];
    for (name, path, accept, count, note) in requests {
        holds(&mut connection, path, accept, count).await?;
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..rounds {
            let (time, length) = timed(&mut connection, path, accept).await?;
            times.push(time);
            bytes = length;
        }
        add(report, name, Latencies::new(times).median(), bytes, note);
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let count = paged(&mut connection, &all).await?;
        times.push(ms(began.elapsed()));
        ensure!(count == pods, "pages hold {count} of {pods} pods");
    }
    let note = format!("{PAGE} a page, as kubectl asks");
    report.add_noting("Table, in pages", Latencies::new(times).median(), "ms", note);
    Ok(())
}

/// Makes that many pods.
pub async fn fill(api: &Api, pods: u64) -> Result<()> {
    load::namespace(api).await?;
    load::run(api, 50, 0, Until::Count(pods), load::creates("pods", load::pod()))
        .await
        .context("filling the server")?;
    Ok(())
}

fn add(report: &mut Report, name: &str, time: f64, bytes: u64, note: &str) {
    let mb = bytes as f64 / 1e6;
    let rate = format!("{:.0} MB/s, {mb:.1} MB", mb / time * 1000.0);
    let note = if note.is_empty() { rate } else { format!("{rate}; {note}") };
    report.add_noting(name, time, "ms", note);
}

/// Milliseconds and bytes of one request.
async fn timed(connection: &mut Connection, path: &str, accept: &str) -> Result<(f64, u64)> {
    let began = Instant::now();
    let bytes = connection.drain(path, accept).await?;
    Ok((ms(began.elapsed()), bytes))
}

async fn read(connection: &mut Connection, path: &str, accept: &str) -> Result<Value> {
    let (status, body) = connection.call(Method::GET, path, accept, Bytes::new()).await?;
    ensure!(status.is_success(), "GET {path}: {status}: {}", message(&body));
    Ok(serde_json::from_slice(&body)?)
}

fn count(list: &Value) -> u64 {
    let field = if list["kind"] == "Table" { "rows" } else { "items" };
    list[field].as_array().map_or(0, |entries| entries.len() as u64)
}

/// That the answer is whole, before it is timed.
async fn holds(connection: &mut Connection, path: &str, accept: &str, expected: u64) -> Result<()> {
    if accept == PROTOBUF {
        // Only that it is protobuf, and about as much.
        let (_, body) = connection.call(Method::GET, path, accept, Bytes::new()).await?;
        ensure!(body.starts_with(b"k8s\0") && body.len() as u64 > 1000 * expected, "{} bytes of protobuf", body.len());
        return Ok(());
    }
    let list = read(connection, path, accept).await?;
    let (kind, count) = (list["kind"].as_str().unwrap_or_default(), count(&list));
    ensure!((kind == "Table") == (accept == TABLE), "asked for {accept:?}, got a {kind}");
    ensure!(count == expected, "GET {path} holds {count} of {expected} pods");
    Ok(())
}

/// All pages, one after the other; how many pods they hold.
async fn paged(connection: &mut Connection, path: &str) -> Result<u64> {
    let (mut total, mut next) = (0, String::new());
    loop {
        let (status, body) =
            connection.call(Method::GET, &format!("{path}?limit={PAGE}{next}"), TABLE, Bytes::new()).await?;
        ensure!(status.is_success(), "a page of {path}: {status}: {}", message(&body));
        // Counted without parsing, which would take longer than the answer.
        total += memchr::memmem::find_iter(&body, b"{\"cells\":").count() as u64;
        let head = String::from_utf8_lossy(&body[..body.len().min(1000)]);
        let Some((_, token)) = head.split_once("\"continue\":\"") else { return Ok(total) };
        next = format!("&continue={}", escape(token.split('"').next().unwrap_or_default()));
    }
}

fn escape(token: &str) -> String {
    token.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace('&', "%26")
}
