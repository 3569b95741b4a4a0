//! Requests and their answers, written down in the files of `requests/`, so that whatever drifts is seen. Each file is
//! played in order to a server of its own. `UPDATE_EXPECT=1` writes the answers anew, to be read with care.
//! `cargo xtask upstream` plays them to upstream's kube-apiserver, whose answers are the right ones.
//!
//! A block is a title, `METHOD PATH`, and a body if there is one; between them may stand, a line each:
//! `> Header: value`, `> anonymous`, or `> json`, `> merge`, `> strategic`, `> apply` for a patch's type;
//! `? {.path} {.path}`, what is shown of an answer that is no error; `! name {.path}`, what is kept of it: `$name` stands
//! for it from then on, in requests and answers; `> anew`, a server of its own from here on, with a `--runtime-config` if
//! one follows, and `--feature-gates` behind another space; `> until {.path} value`,
//! an event of what was written to wait for; `> ours: why`, an answer that upstream's need not equal; `> any order`, one
//! of which upstream's maps make the order; `> time name -5`, `$name` stands from here on for the time five seconds ago
//! (later ones nearer to now, or two may be the same). `{{x*3}}` in a body stands for `xxx`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use meta::Value;
use pki::tokens::{Signer, Verifier};
use structural::JsonPath;
use tower::Service;

use super::upstream::Upstream;
use super::{Answer, Cluster, Lines, collect, version};
use crate::body::Body;
use crate::config::DEFAULT_ISSUER;
use crate::{Local, Server, Tokens};

/// Kinds of patches and their media types.
pub const PATCHES: [(&str, &str); 4] = [
    ("json", "application/json-patch+json"),
    ("merge", "application/merge-patch+json"),
    ("strategic", "application/strategic-merge-patch+json"),
    ("apply", "application/apply-patch+yaml"),
];

/// Upstream's servers under way at once.
const JUDGES: usize = 3;
/// How long upstream may think about one request.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What upstream acts upon by caches of its own, and how long it may take them to follow.
const CACHED: [&str; 4] =
    ["/admissionregistration.k8s.io/", "/customresourcedefinitions", "/storageclasses", "/limitranges"];
const CACHE_DELAY: Duration = Duration::from_secs(3);

type Kept = Vec<(String, String)>;

/// `{{x*3}}` becomes `xxx`.
fn grown(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some((before, (text, (count, after)))) = rest
        .split_once("{{")
        .and_then(|(b, r)| Some((b, r.split_once('*').and_then(|(t, r)| Some((t, r.split_once("}}")?)))?)))
    {
        out.push_str(before);
        out.push_str(&text.repeat(count.parse().expect("a count")));
        rest = after;
    }
    out + rest
}

/// What differs from run to run, out of an answer.
fn steady(text: &str, kept: &Kept) -> String {
    let mut out = text.to_string();
    for (name, value) in kept.iter().rev().filter(|(_, value)| value.len() > 4) {
        out = out.replace(value, &format!("${name}"));
    }
    for mark in ["in record (", ", current: ", "too old resource version: 1 ("] {
        if let Some((before, after)) = out.clone().split_once(mark)
            && after.starts_with(|c: char| c.is_ascii_digit())
        {
            out = format!("{before}{mark}N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    // The patched document, in the message and once more in the cause.
    let documents = if out.contains("is invalid: patch: ") { 2 } else { 0 };
    for (open, close) in
        [("patch: Invalid value: \"{", "}\": "), ("\"Invalid value: \\\"{", "}\\\": ")].into_iter().take(documents)
    {
        if let Some((before, rest)) = out.clone().split_once(open)
            && let Some((_, after)) = rest.split_once(close)
        {
            out = format!("{before}{open}DOCUMENT{close}{after}");
        }
    }
    out
}

fn found(path: &str, document: &Value) -> Vec<String> {
    JsonPath::parse(path).expect("a path").find(document).into_iter().map(Value::to_string).collect()
}

/// Who is asked.
pub enum Asked {
    /// As the user `test`, and the server itself.
    Ours(Local, Server),
    Upstream(Upstream),
}

impl Asked {
    pub async fn ours(flags: &str) -> Asked {
        let Cluster { server, local, .. } = signing_cluster(flags).await;
        Asked::Ours(local, server)
    }

    pub async fn send(&self, request: http::Request<Full<Bytes>>, anonymous: bool) -> http::Response<Body> {
        match self {
            Asked::Ours(local, server) => {
                let mut local = if anonymous { server.local_anonymous() } else { local.clone() };
                local.call(request).await.unwrap_or_else(|e| match e {})
            }
            Asked::Upstream(upstream) => {
                // It ends the connection of a request that it cannot digest.
                let broken = |why: String| http::Response::new(Body::from(why.into_bytes()));
                upstream.ask(request, anonymous).await.unwrap_or_else(broken)
            }
        }
    }
}

fn keep(kept: &mut Kept, name: &str, value: String) {
    kept.retain(|(known, _)| known != name);
    kept.push((name.into(), value));
}

/// The times that a block asks for, as they are now.
fn keep_times(asked: &str, kept: &mut Kept) {
    for line in asked.lines().filter_map(|line| line.strip_prefix("> time ")) {
        let (name, seconds) = line.split_once(' ').expect("a name and seconds");
        let at = meta::time::now().as_second() + seconds.parse::<i64>().expect("seconds");
        let at = meta::time::Timestamp::from_second(at).expect("a time");
        keep(kept, name, meta::time::seconds(at));
    }
}

async fn answer(server: &Asked, asked: &str, kept: &mut Kept) -> String {
    keep_times(asked, kept);
    let asked =
        kept.iter().rev().fold(asked.to_string(), |text, (name, value)| text.replace(&format!("${name}"), value));
    let mut lines = asked.lines().skip(1);
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("a method and a path");
    let (mut headers, mut shown, mut wanted, mut body) = (http::HeaderMap::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut anonymous, mut until) = (false, None);
    for line in lines {
        match line.split_once(' ') {
            Some((">", "any order")) => {}
            Some((">", own)) if own.starts_with("anew") || own.starts_with("time ") => {}
            Some((">", why)) if why.starts_with("ours: ") => {}
            Some((">", "anonymous")) => anonymous = true,
            Some((">", event)) if event.starts_with("until ") => until = event["until ".len()..].split_once(' '),
            Some((">", header)) => {
                let patch = PATCHES.iter().find(|(name, _)| *name == header).map(|(_, media)| ("content-type", *media));
                let (name, value) = patch.or_else(|| header.split_once(": ")).expect("a header");
                let name: http::HeaderName = name.parse().expect("a header's name");
                headers.insert(name, value.parse().expect("a header's value"));
            }
            Some(("?", paths)) => shown.extend(paths.split(' ')),
            Some(("!", rest)) => wanted.push(rest.split_once(' ').expect("a name and a path")),
            _ => body.push(line),
        }
    }
    let body = grown(&body.join("\n"));
    let Ok(uri) = path.parse() else { return "=> no URI".into() };
    let mut request = http::Request::new(Full::new(body.clone().into()));
    (*request.method_mut(), *request.uri_mut()) = (method.parse().expect("a method"), uri);
    if !body.is_empty() && !headers.contains_key("content-type") {
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    }
    *request.headers_mut() = headers;
    let answer = collect(server.send(request, anonymous).await).await;
    for (name, path) in wanted {
        let value = found(path, &answer.body).first().map(|value| value.trim_matches('"').to_string());
        keep(kept, name, value.unwrap_or_else(|| format!("no {path}")));
    }
    if let Some((at, want)) = until.filter(|_| answer.code < 300) {
        let collection = path.strip_suffix(&format!("/{}", name(&answer.body))).unwrap_or(path);
        let since = version(&answer.body);
        let uri =
            format!("{collection}?watch=1&resourceVersion={since}&fieldSelector=metadata.name={}", name(&answer.body));
        let mut watch = http::Request::new(Full::default());
        *watch.uri_mut() = uri.parse().expect("a path");
        let mut lines = Lines::new(server.send(watch, false).await);
        loop {
            match lines.next().await {
                Some(event) if found(at, &event).join(" ") == want => break,
                Some(_) => {}
                None => return format!("=> never {at} {want}"),
            }
        }
    }
    steady(&told(&answer, &shown), kept)
}

fn name(object: &Value) -> &str {
    object.str_at(&["metadata", "name"]).expect("a name")
}

/// Field managers are sorted by when they wrote, in seconds; here as if all had in one, however slow the machine is.
/// What a table says of the time since then is `now`.
fn of_one_second(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(Value::Array(entries)) = document.at_mut(&["metadata", "managedFields"]) {
        entries.sort_by_key(|entry| {
            ["operation", "manager", "apiVersion", "subresource"]
                .map(|field| entry.str_at(&[field]).unwrap_or_default().to_string())
        });
    }
    if let Some(Value::Array(rows)) = document.get_mut("rows") {
        for cell in rows.iter_mut().filter_map(|row| row.at_mut(&["cells"])?.as_array_mut()).flatten() {
            let text = cell.as_str().unwrap_or_default();
            let age = text.strip_suffix('s').is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n < 60));
            if age
                || meta::time::parse(text).is_some_and(|at| meta::time::now().duration_since(at).as_secs().abs() < 60)
            {
                *cell = "now".into();
            }
        }
    }
    document
}

/// An answer as it is written down: an error whole, of anything else its kind and what is asked for.
fn told(answer: &Answer, shown: &[&str]) -> String {
    let (code, status) = (answer.code, &answer.body);
    let mut out = format!("=> {code}");
    let text = |field: &str| status.str_at(&[field]).unwrap_or_default();
    if text("kind") == "Status" && code >= 300 {
        assert_eq!(status.int_at(&["code"]), Some(i64::from(code)), "{status}");
        assert_eq!((text("status"), text("apiVersion")), ("Failure", "v1"), "{status}");
        let reason = status.str_at(&["reason"]).unwrap_or("-");
        write!(out, " {reason}\n{}", text("message")).expect("written");
        if let Some(details) = status.get("details") {
            write!(out, "\n{details}").expect("written");
        }
    } else if !text("kind").is_empty() || !shown.is_empty() {
        write!(out, " {}", text("kind")).expect("written");
        let document = of_one_second(status);
        for path in shown {
            write!(out, "\n{path} {}", found(path, &document).join(" ")).expect("written");
        }
    } else {
        for line in answer.text.lines() {
            // An event of a watch, or something that is no object.
            match meta::parse(line.as_bytes()).ok().filter(|event| event.get("object").is_some()) {
                Some(event) => {
                    let object = event["object"].clone();
                    let name = object.str_at(&["metadata", "name"]).or(object.str_at(&["message"])).unwrap_or_default();
                    write!(out, "\n{} {} {name}", event["type"], object["kind"]).expect("written");
                }
                None => write!(out, "\n{line}").expect("written"),
            }
        }
    }
    for warning in answer.headers.get_all("warning") {
        write!(out, "\nwarning: {}", warning.to_str().expect("text")).expect("written");
    }
    out
}

/// A server that signs tokens.
async fn signing_cluster(flags: &str) -> Cluster {
    let dir = tempfile::tempdir().expect("temporary directory");
    let key = pki::Pki::open(dir.path()).expect("keys").service_account_key_pem.clone();
    let tokens = Tokens {
        signer: Arc::new(Signer::from_pem(&key, DEFAULT_ISSUER).expect("signer")),
        verifier: Arc::new(Verifier::from_pems(&[&key], DEFAULT_ISSUER).expect("verifier")),
        audiences: vec![DEFAULT_ISSUER.into()],
    };
    let (runtime_config, gates) = flags.split_once(' ').unwrap_or((flags, ""));
    let (runtime_config, gates) = (runtime_config.parse().expect("a runtime config"), gates.parse().expect("gates"));
    Cluster::start_with(|c| (c.tokens, c.runtime_config, c.feature_gates) = (Some(tokens), runtime_config, gates)).await
}

/// A file's introduction, and its blocks: what is asked, and the answer as it is written down.
pub fn read(text: &str) -> (&str, Vec<(&str, &str)>) {
    let mut blocks = text.split("\n## ");
    let introduction = blocks.next().expect("an introduction");
    (introduction, blocks.map(|block| block.split_once("\n=> ").unwrap_or((block, ""))).collect())
}

/// The collection that a block posts to, and the object; nothing where it asks something else.
pub fn posted(asked: &str) -> Option<(&str, Value)> {
    let path = asked.lines().find_map(|line| line.strip_prefix("POST "))?;
    Some((path, meta::parse(asked.lines().last()?.as_bytes()).ok()?))
}

/// Whether a server of its own is asked for, and with which flags.
fn anew(asked: &str) -> Option<&str> {
    asked.split_once("\n> anew")?.1.lines().next().map(str::trim)
}

fn files() -> BTreeSet<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/requests");
    std::fs::read_dir(dir).expect("the files").map(|entry| entry.expect("a file").path()).collect()
}

async fn play(file: &Path) {
    let text = std::fs::read_to_string(file).expect("the requests");
    let (introduction, blocks) = read(&text);
    let (mut server, mut kept) = (None, Kept::new());
    let mut told = introduction.to_string();
    for (asked, _) in blocks {
        let asked = asked.trim_end();
        if server.is_none() || anew(asked).is_some() {
            (server, kept) = (Some(Asked::ours(anew(asked).unwrap_or_default()).await), Kept::new());
        }
        let server = server.as_ref().expect("it was started");
        write!(told, "\n## {asked}\n{}\n", answer(server, asked, &mut kept).await).expect("written");
    }
    expect_test::expect_file![file].assert_eq(&told);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered_as_it_was() {
    for file in files() {
        play(&file).await;
    }
}

/// An answer without our own warnings, and where no order is promised without the order.
fn bare(answer: &str, asked: &str) -> Vec<u8> {
    let ours = |line: &&str| !line.starts_with("warning: 299 - \"knarr ");
    let mut bytes = answer.lines().filter(ours).collect::<Vec<_>>().join("\n").trim_end().as_bytes().to_vec();
    if asked.contains("\n> any order") {
        bytes.sort();
    }
    bytes
}

/// How many answers of upstream's are those of the file, and how many are not; those are told. `UPDATE_EXPECT=1` writes
/// upstream's answers into the file.
async fn judge(file: &Path) -> [usize; 2] {
    let text = std::fs::read_to_string(file).expect("the requests");
    let (introduction, blocks) = read(&text);
    let (mut server, mut kept) = (None, Kept::new());
    let (mut told, mut differences, mut counts) = (introduction.to_string(), String::new(), [0; 2]);
    for (asked, ours) in blocks {
        let (asked, ours) = (asked.trim_end(), format!("=> {}", ours.trim_end_matches('\n')));
        if server.is_none() || anew(asked).is_some() {
            drop(server.take()); // before the next one starts
            let upstream = Upstream::start(anew(asked).unwrap_or_default()).await;
            (server, kept) = (Some(Asked::Upstream(upstream)), Kept::new());
        }
        let work = answer(server.as_ref().expect("it was started"), asked, &mut kept);
        let theirs = tokio::time::timeout(ANSWER_LIMIT, work).await.unwrap_or_else(|_| "=> no answer".into());
        let equal = asked.contains("\n> ours: ") || bare(&ours, asked) == bare(&theirs, asked);
        if !asked.contains("\nGET ") && CACHED.iter().any(|resource| asked.contains(resource)) {
            tokio::time::sleep(CACHE_DELAY).await;
        }
        counts[usize::from(!equal)] += 1;
        if !equal {
            write!(differences, "\n## {asked}\nwritten {ours}\nupstream {theirs}\n").expect("written");
        }
        write!(told, "\n## {asked}\n{}\n", if equal { &ours } else { &theirs }).expect("written");
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file, told).expect("written");
    }
    let name = file.file_name().unwrap_or_default().display();
    println!("=== {name}: {} answers equal upstream's, {} differ{differences}", counts[0], counts[1]);
    counts
}

#[test]
#[ignore = "needs upstream's kube-apiserver: cargo xtask upstream"]
fn upstream_answers_every_request_so() {
    let chosen = std::env::var("KNARR_REQUESTS").unwrap_or_default();
    let is_chosen = |file: &PathBuf| chosen.is_empty() || chosen.split(',').any(|name| file.ends_with(name));
    let queue = Mutex::new(files().into_iter().filter(is_chosen).collect::<Vec<_>>());
    let differ = AtomicUsize::new(0);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let next = || queue.lock().expect("no panic").pop();
        while let Some(file) = next() {
            differ.fetch_add(runtime.block_on(judge(&file))[1], Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..JUDGES).for_each(|_| drop(scope.spawn(work))));
    assert_eq!(differ.into_inner(), 0, "answers that differ from upstream's, above");
}

#[tokio::test]
async fn openapi_by_media_type() {
    let cluster = Cluster::start().await;
    for (path, accept, code) in [
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 200),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json", 200),
        ("/openapi/v3/api/v1", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", 406),
        ("/openapi/v3", "*/*", 200),
    ] {
        assert_eq!(cluster.accepting(path, accept).await.code, code, "{path} {accept}");
    }
}
