//! Random sequences of writes to upstream's kube-apiserver and to ours: several managers apply, update and patch one object
//! each way, its status too. Every difference of the answers, of who owns what above all, is told with what led to it.
//!
//! `cargo xtask upstream --sequences N` plays N of them; `KNARR_SEED` repeats a run.

use std::time::Duration;

use http::Method;
use meta::{Map, Value, json};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::mutations::{ask, number};
use super::requests::Asked;
use super::upstream::Upstream;

/// Of each collection an object with all that a write may hold: members that end in `!` are always there, others now and
/// then, of lists some items in any order, of `{"?": [...]}` one.
const KINDS: &str = include_str!("sequences.json");
const STEPS: usize = 7;

/// One of all that a template stands for.
fn made(template: &Value, random: &mut StdRng) -> Value {
    match template {
        Value::Object(map) if map.contains_key("?") => {
            let choices = template.array_at(&["?"]);
            choices[random.random_range(0..choices.len())].clone()
        }
        Value::Object(map) => {
            let mut object = Map::default();
            for (name, member) in map.iter() {
                let always = name.strip_suffix('!');
                if always.is_some() || random.random_bool(0.5) {
                    object.insert(always.unwrap_or(name), made(member, random));
                }
            }
            Value::Object(object)
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| made(item, random)).collect();
            items.shuffle(random);
            items.truncate(random.random_range(1..=items.len().max(1)));
            Value::Array(items)
        }
        scalar => scalar.clone(),
    }
}

/// Pointers to all values of a document that writes may change.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => {
            for (name, member) in map.iter() {
                let is_open = match at {
                    "" => !["apiVersion", "kind"].contains(&name),
                    "/metadata" => ["labels", "annotations", "finalizers"].contains(&name),
                    _ => true,
                };
                if is_open {
                    if !(at.is_empty() && name == "metadata") {
                        found.push(below(name));
                    }
                    pointers(member, &below(name), found);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                found.push(below(&i.to_string()));
                pointers(item, &below(&i.to_string()), found);
            }
        }
        _ => {}
    }
}

fn json_patch(current: &Value, random: &mut StdRng) -> Value {
    let mut all = Vec::new();
    pointers(current, "", &mut all);
    let mut pick = || match all.len() {
        0 => "/metadata/labels".to_string(),
        count => all[random.random_range(0..count)].clone(),
    };
    let (path, from) = (pick(), pick());
    let value = [json!("z"), json!(1), json!({}), json!([]), Value::Null][random.random_range(0..5)].clone();
    match random.random_range(0..5) {
        0 => json!([{"op": "remove", "path": path}]),
        1 => json!([{"op": "add", "path": path, "value": value}]),
        2 => json!([{"op": "replace", "path": path, "value": value}]),
        3 => json!([{"op": "copy", "from": from, "path": path}]),
        _ => json!([{"op": "move", "from": from, "path": path}]),
    }
}

struct Step {
    method: Method,
    path: String,
    media_type: &'static str,
    body: Value,
}

impl Step {
    fn json(method: Method, path: &str, body: Value) -> Step {
        Step { method, path: path.into(), media_type: "application/json", body }
    }
}

/// A write to the object `name` of this kind.
fn step(kind: &Value, name: &str, current: &Value, random: &mut StdRng) -> Step {
    let collection = kind.str_at(&["path"]).unwrap_or_default();
    let manager = ["one", "two", "three"][random.random_range(0..3)];
    let to_status = !kind["status"].is_null() && !current.is_null() && random.random_bool(0.3);
    let mut body = made(if to_status { &kind["status"] } else { &kind["object"] }, random);
    let mut path = format!("{collection}/{name}{}?fieldManager={manager}", if to_status { "/status" } else { "" });
    let is_custom = kind["custom"] == Value::from(true);
    let mut whole = body.clone();
    for (member, value) in [("apiVersion", &kind["apiVersion"]), ("kind", &kind["kind"])] {
        whole.set(&[member], value);
    }
    whole.set(&["metadata", "name"], name);
    let (method, media_type) = match random.random_range(0..10) {
        0..5 => {
            path += if random.random_bool(0.5) { "&force=true" } else { "" };
            body = whole;
            (Method::PATCH, "application/apply-patch+yaml")
        }
        5 => (Method::PATCH, "application/merge-patch+json"),
        6 if is_custom => (Method::PATCH, "application/merge-patch+json"),
        6 => (Method::PATCH, "application/strategic-merge-patch+json"),
        7 => {
            body = json_patch(current, random);
            (Method::PATCH, "application/json-patch+json")
        }
        8 if !to_status => {
            path = format!("{collection}?fieldManager={manager}");
            body = whole;
            (Method::POST, "application/json")
        }
        _ => {
            body = whole;
            (Method::PUT, "application/json")
        }
    };
    Step { method, path, media_type, body }
}

/// An answer, the owners in an order that does not depend on the second.
async fn answer(server: &Asked, step: &Step) -> (u16, Value) {
    let (code, mut document) = ask(server, &step.method, &step.path, step.media_type, &step.body).await;
    for list in [&["metadata", "managedFields"], &["details", "causes"]] {
        if let Some(Value::Array(items)) = document.at_mut(list) {
            items.sort_by_key(Value::to_string);
        }
    }
    (code, document)
}

#[tokio::test]
#[ignore = "needs upstream's kube-apiserver: cargo xtask upstream --sequences N"]
async fn random_sequences_get_the_same_answers() {
    let (count, seed) = (number("KNARR_SEQUENCES").unwrap_or(20), number("KNARR_SEED").unwrap_or_else(rand::random));
    println!("=== KNARR_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = meta::parse(KINDS.as_bytes()).expect("templates");
    let servers = [Asked::Upstream(Upstream::start("").await), Asked::ours("").await];
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let define = Step::json(Method::POST, definitions, kinds["definition"].clone());
    let list = Step::json(Method::GET, "/apis/sequences.example.com/v1/namespaces/default/widgets", Value::Null);
    for server in &servers {
        assert_eq!(answer(server, &define).await.0, 201, "the definition is made");
        while answer(server, &list).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (mut asked, mut differ) = (0, 0);
    for sequence in 0..count {
        let all = kinds.array_at(&["kinds"]);
        let kind = &all[random.random_range(0..all.len())];
        let (name, mut current, mut told) = (format!("s{sequence}"), Value::Null, String::new());
        for _ in 0..STEPS {
            let step = step(kind, &name, &current, &mut random);
            told += &format!("{} {} {}\n{}\n", step.method, step.path, step.media_type, step.body);
            let (theirs, ours) = (answer(&servers[0], &step).await, answer(&servers[1], &step).await);
            asked += 1;
            // A patched document that fits nothing is shown with its members in an order of its own.
            let shown = theirs.1.str_at(&["message"]).is_some_and(|text| text.contains("patch: Invalid value"));
            if theirs != ours && !(shown && theirs.0 == ours.0) {
                differ += 1;
                println!("\n{told}upstream {} {}\nours     {} {}", theirs.0, theirs.1, ours.0, ours.1);
                break;
            }
            if theirs.0 < 300 {
                current = theirs.1;
            }
        }
    }
    assert_eq!(differ, 0, "sequences differ, of {count} with {asked} requests, above; KNARR_SEED={seed} repeats them");
}
