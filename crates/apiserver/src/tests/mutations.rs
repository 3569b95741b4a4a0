//! Random requests to upstream's kube-apiserver and to ours: a valid object of some kind with one or two of its members
//! changed. Every difference of the answers is told with what was asked.
//!
//! `cargo xtask upstream --random N` asks N of them; `KNARR_SEED` repeats a run.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use meta::{Map, Value, json};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::collect;
use super::requests::{self, Asked};
use super::upstream::Upstream;

/// What a member may become, beside what other members are.
fn values() -> Vec<Value> {
    let texts = ["", "a", "A_b", "a.b", "a/b", "1", "-1", "10.0.0.1", "2001:db8::1", "10%", "1Gi", "é", "true"];
    let others = json!([null, true, false, 0, 1, -1, 65536, 2147483648i64, 1.5, [], {}, [""], {"a": "b"}, [{}]]);
    let texts = texts.into_iter().map(Value::from);
    texts.chain(others.as_array().cloned().unwrap_or_default()).collect()
}

/// How many values stand in this one, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum::<usize>(),
        _ => 0,
    }
}

/// Visits the value that is the `number`th from here.
fn at(value: &mut Value, number: usize, visit: &mut dyn FnMut(&mut Value)) {
    if number == 0 {
        return visit(value);
    }
    let mut left = number - 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => vec![],
    };
    for child in children {
        let inside = size(child);
        if left < inside {
            return at(child, left, visit);
        }
        left -= inside;
    }
}

fn mutate(object: &mut Value, random: &mut StdRng) {
    let number = random.random_range(1..size(object).max(2));
    let values = values();
    let new = values[random.random_range(0..values.len())].clone();
    at(object, number, &mut |value| match (random.random_range(0..4), &mut *value) {
        (0, Value::Array(items)) if !items.is_empty() => items.push(items[0].clone()),
        (0 | 1, Value::Object(map)) if !map.is_empty() => {
            let name = map.keys().nth(random.random_range(0..map.len())).unwrap_or_default().to_string();
            map.remove(&name);
        }
        (1, Value::String(text)) => text.push('x'),
        (2, Value::Object(map)) => drop(map.insert("added", new.clone())),
        _ => *value = new.clone(),
    });
}

/// An answer without what no two servers have alike.
fn steady(value: &mut Value) {
    const OWN: [&str; 8] = [
        "uid", "resourceVersion", "creationTimestamp", "time", "clusterIP", "clusterIPs", "nodePort",
        "healthCheckNodePort",
    ];
    match value {
        Value::Array(items) => items.iter_mut().for_each(steady),
        Value::Object(map) => {
            let mut kept = Map::default();
            for (name, member) in std::mem::take(map).into_iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
                kept.insert(name.as_str(), member);
            }
            *map = kept;
            map.values_mut().for_each(steady);
        }
        Value::String(text) => {
            if let Some((before, after)) = text.split_once("kube-api-access-") {
                *value = format!("{before}kube-api-access-{}", after.get(5..).unwrap_or_default()).into();
            }
        }
        _ => {}
    }
}

/// A number that the environment gives.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The code and the steady document that a server answers with; a body of null is none.
pub async fn ask(server: &Asked, method: &Method, path: &str, media_type: &'static str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Vec::new() } else { body.to_vec() };
    let mut request = Request::new(Full::new(Bytes::from(body)));
    (*request.method_mut(), *request.uri_mut()) = (method.clone(), path.parse().expect("a path"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    let answer = collect(server.send(request, false).await).await;
    let mut document = answer.body;
    steady(&mut document);
    (answer.code, document)
}

async fn answer(server: &Asked, path: &str, body: &Value) -> String {
    let (code, document) = ask(server, &Method::POST, path, "application/json", body).await;
    format!("{code} {document}")
}

#[tokio::test]
#[ignore = "needs upstream's kube-apiserver: cargo xtask upstream --random N"]
async fn random_objects_get_the_same_answers() {
    let (count, seed) = (number("KNARR_RANDOM").unwrap_or(100), number("KNARR_SEED").unwrap_or_else(rand::random));
    println!("=== KNARR_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let text = include_str!("requests/objects.txt");
    let objects: Vec<(&str, Value)> =
        requests::read(text).1.into_iter().filter_map(|(asked, _)| requests::posted(asked)).collect();
    let upstream = Asked::Upstream(Upstream::start("").await);
    let ours = Asked::ours("").await;
    let mut differ = 0;
    for _ in 0..count {
        let (path, object) = &objects[random.random_range(0..objects.len())];
        let mut changed = object.clone();
        for _ in 0..random.random_range(1..3) {
            mutate(&mut changed, &mut random);
        }
        let path = format!("{path}?dryRun=All");
        let (theirs, ours) = (answer(&upstream, &path, &changed).await, answer(&ours, &path, &changed).await);
        if theirs != ours {
            differ += 1;
            println!("\nPOST {path}\n{changed}\nupstream {theirs}\nours     {ours}");
        }
    }
    assert_eq!(differ, 0, "of {count} answers differ, above; KNARR_SEED={seed} repeats them");
}
