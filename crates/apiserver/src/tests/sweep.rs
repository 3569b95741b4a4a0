//! The same requests about an object of every kind, to upstream's kube-apiserver and to ours: updates, patches, reads and
//! deletions with wrong names, versions, uids, namespaces and options. Every difference of the answers is told.
//!
//! Reads: the objects of the recorded requests, and what is asked of each (`sweep.json`: the method or the kind of patch, what
//! follows the collection's path, and what the metadata is changed to, or the options of a deletion).

use http::Method;
use meta::{Value, json};

use super::mutations::ask;
use super::requests::{self, Asked};
use super::upstream::Upstream;

/// Files with objects, and the flags of a server that has their kinds.
const OBJECTS: [(&str, &str); 4] = [
    (include_str!("requests/objects.txt"), ""),
    (include_str!("requests/previews_objects.txt"), "api/all=true"),
    (include_str!("requests/groups.txt"), GROUPS),
    (include_str!("requests/evictions.txt"), "api/all=true EvictionRequestAPI=true"),
];
const GROUPS: &str = "api/all=true GenericWorkload=true,CompositePodGroup=true,DRAResourcePoolStatus=true,\
    TopologyAwareWorkloadScheduling=true";
/// What both servers act upon only once their caches follow.
const FOLLOWED: [&str; 2] = ["/admissionregistration.k8s.io/", "/customresourcedefinitions"];

/// The first object of each collection that the file makes.
fn objects(text: &str) -> Vec<(&str, Value)> {
    let mut found: Vec<(&str, Value)> = Vec::new();
    let made = requests::read(text).1.into_iter().filter(|(_, answer)| answer.starts_with("201"));
    for (path, object) in made.filter_map(|(asked, _)| requests::posted(asked)) {
        let is_known = found.iter().any(|(known, _)| *known == path);
        let named = object.str_at(&["metadata", "name"]).is_some_and(|name| !name.is_empty());
        if named && !is_known && !path.contains('?') && !FOLLOWED.iter().any(|followed| path.contains(followed)) {
            found.push((path, object));
        }
    }
    found
}

/// A text without what no two servers have alike: uids, times of deletion, and the versions that a conflict names; and
/// without what items of our lists say of their kind.
fn masked(mut document: Value) -> String {
    document.remove(&["metadata", "deletionTimestamp"]);
    for item in document.at_mut(&["items"]).and_then(Value::as_array_mut).into_iter().flatten() {
        item.remove(&["apiVersion"]);
        item.remove(&["kind"]);
    }
    let text = document.to_string();
    let names_versions = text.contains("esourceVersion in");
    let is_uid = |word: &str| word.len() == 36 && word.split('-').count() == 5;
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let masked = words.map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_version = names_versions && bare.len() > 1 && bare.bytes().all(|b| b.is_ascii_digit());
        if is_uid(bare) || is_version { word.replacen(bare, "OWN", 1) } else { word.to_string() }
    });
    masked.collect()
}

fn request(step: &Value, path: &str, object: &Value) -> (Method, String, &'static str, Value) {
    let [verb, after, changes] = step.as_array().map(Vec::as_slice).unwrap_or_default() else { panic!("{step}") };
    let name = object.str_at(&["metadata", "name"]).unwrap_or_default();
    let path = format!("{path}{}", after.as_str().unwrap_or_default().replace("NAME", name));
    let verb = verb.as_str().unwrap_or_default();
    let (method, media_type) = match requests::PATCHES.iter().find(|(patch, _)| *patch == verb) {
        Some((_, media_type)) => (Method::PATCH, *media_type),
        None => (verb.parse().expect("a method"), "application/json"),
    };
    let mut body = match verb {
        "POST" | "PUT" => object.clone(),
        "DELETE" | "GET" => return (method, path, media_type, changes.clone()),
        _ => json!({"metadata": {}}),
    };
    if verb == "apply" {
        let [api_version, kind] = ["apiVersion", "kind"].map(|member| object[member].clone());
        body = json!({"metadata": {"name": name}});
        body.set(&["apiVersion"], api_version);
        body.set(&["kind"], kind);
    }
    for (member, value) in changes.as_object().into_iter().flat_map(|changes| changes.iter()) {
        body.set(&["metadata", member], value);
    }
    (method, path, media_type, body)
}

#[tokio::test]
#[ignore = "needs upstream's kube-apiserver: cargo xtask upstream --sweep"]
async fn every_kind_is_swept() {
    let steps = meta::parse(include_bytes!("sweep.json")).expect("JSON");
    let (mut asked, mut differ) = (0, 0);
    for (text, flags) in OBJECTS {
        let (upstream, ours) = (Asked::Upstream(Upstream::start(flags).await), Asked::ours(flags).await);
        for (collection, mut object) in objects(text) {
            for step in steps.as_array().expect("a list") {
                let (method, path, media_type, body) = request(step, collection, &object);
                let [theirs, ours] = [&upstream, &ours].map(|server| ask(server, &method, &path, media_type, &body));
                let (theirs, ours) = (theirs.await, ours.await);
                if method == Method::POST && theirs.0 == 201 {
                    // What an apply has to say of itself.
                    for member in ["apiVersion", "kind"] {
                        object.set(&[member], &theirs.1[member]);
                    }
                }
                asked += 1;
                let [theirs, ours] = [theirs, ours].map(|(code, document)| format!("{code} {}", masked(document)));
                if theirs != ours {
                    differ += 1;
                    println!("\n{method} {path}\n{body}\nupstream {theirs}\nours     {ours}");
                }
            }
        }
    }
    println!("=== {differ} of {asked} answers differ");
    assert_eq!(differ, 0, "of {asked} answers differ, above");
}
