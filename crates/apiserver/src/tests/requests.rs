//! Requests and their answers, written down in the files of `requests/`, so that whatever drifts is seen. Each file is
//! played in order to a server of its own. `UPDATE_EXPECT=1` writes the answers anew, to be read with care.
//!
//! A block is a title, `METHOD PATH`, and a body if there is one; between them may stand, a line each:
//! `> Header: value`, `> anonymous`, or `> json`, `> merge`, `> strategic`, `> apply` for a patch's type;
//! `? {.path} {.path}`, what is shown of an answer that is no error; `! name {.path}`, what is kept of it: `$name` stands
//! for it from then on, in requests and answers; `> anew`, a server of its own from here on; `> until {.path} value`,
//! an event of what was written to wait for. `{{x*3}}` in a body stands for `xxx`.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use meta::Value;
use pki::tokens::{Signer, Verifier};
use structural::JsonPath;
use tower::Service;

use super::{Answer, Cluster, Lines, collect, version};
use crate::Tokens;
use crate::config::DEFAULT_ISSUER;

const PATCHES: [(&str, &str); 4] = [
    ("json", "application/json-patch+json"),
    ("merge", "application/merge-patch+json"),
    ("strategic", "application/strategic-merge-patch+json"),
    ("apply", "application/apply-patch+yaml"),
];

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

async fn answer(cluster: &Cluster, asked: &str, kept: &mut Kept) -> String {
    let asked =
        kept.iter().rev().fold(asked.to_string(), |text, (name, value)| text.replace(&format!("${name}"), value));
    let mut lines = asked.lines().skip(1);
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("a method and a path");
    let (mut headers, mut shown, mut keep, mut body) = (http::HeaderMap::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut anonymous, mut until) = (false, None);
    for line in lines {
        match line.split_once(' ') {
            Some((">", "anew")) => {}
            Some((">", "anonymous")) => anonymous = true,
            Some((">", event)) if event.starts_with("until ") => until = event["until ".len()..].split_once(' '),
            Some((">", header)) => {
                let patch = PATCHES.iter().find(|(name, _)| *name == header).map(|(_, media)| ("content-type", *media));
                let (name, value) = patch.or_else(|| header.split_once(": ")).expect("a header");
                let name: http::HeaderName = name.parse().expect("a header's name");
                headers.insert(name, value.parse().expect("a header's value"));
            }
            Some(("?", paths)) => shown.extend(paths.split(' ')),
            Some(("!", rest)) => keep.push(rest.split_once(' ').expect("a name and a path")),
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
    let response = match anonymous {
        true => cluster.server.local_anonymous().call(request).await.unwrap_or_else(|e| match e {}),
        false => cluster.send(request).await,
    };
    let answer = collect(response).await;
    for (name, path) in keep {
        let value = found(path, &answer.body).first().map(|value| value.trim_matches('"').to_string());
        kept.retain(|(known, _)| known != name);
        kept.push((name.into(), value.unwrap_or_else(|| panic!("no {path} in {}", answer.text))));
    }
    if let Some((at, want)) = until {
        let collection = path.strip_suffix(&format!("/{}", name(&answer.body))).unwrap_or(path);
        let since = version(&answer.body);
        let uri =
            format!("{collection}?watch=1&resourceVersion={since}&fieldSelector=metadata.name={}", name(&answer.body));
        let mut lines = Lines::new(cluster.send(cluster.request(http::Method::GET, &uri, "", "")).await);
        while found(at, &lines.next().await.expect("the watch goes on")).join(" ") != want {}
    }
    steady(&told(&answer, &shown), kept)
}

fn name(object: &Value) -> &str {
    object.str_at(&["metadata", "name"]).expect("a name")
}

/// Field managers are sorted by when they wrote, in seconds; here as if all had in one, however slow the machine is.
fn of_one_second(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(Value::Array(entries)) = document.at_mut(&["metadata", "managedFields"]) {
        entries.sort_by_key(|entry| {
            ["operation", "manager", "apiVersion", "subresource"]
                .map(|field| entry.str_at(&[field]).unwrap_or_default().to_string())
        });
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
async fn signing_cluster() -> Cluster {
    let dir = tempfile::tempdir().expect("temporary directory");
    let key = pki::Pki::open(dir.path()).expect("keys").service_account_key_pem.clone();
    let tokens = Tokens {
        signer: Arc::new(Signer::from_pem(&key, DEFAULT_ISSUER).expect("signer")),
        verifier: Arc::new(Verifier::from_pems(&[&key], DEFAULT_ISSUER).expect("verifier")),
        audiences: vec![DEFAULT_ISSUER.into()],
    };
    Cluster::start_with(|c| c.tokens = Some(tokens)).await
}

async fn play(file: &Path) {
    let text = std::fs::read_to_string(file).expect("the requests");
    let mut cluster = signing_cluster().await;
    let (mut blocks, mut kept) = (text.split("\n## "), Kept::new());
    let mut told = blocks.next().expect("an introduction").to_string();
    for block in blocks {
        let asked = block.split("\n=> ").next().expect("a request").trim_end();
        if asked.contains("\n> anew") {
            (cluster, kept) = (signing_cluster().await, Kept::new());
        }
        write!(told, "\n## {asked}\n{}\n", answer(&cluster, asked, &mut kept).await).expect("written");
    }
    expect_test::expect_file![file].assert_eq(&told);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered_as_it_was() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/requests");
    let entries = std::fs::read_dir(dir).expect("the files").map(|entry| entry.expect("a file").path());
    for file in entries.collect::<std::collections::BTreeSet<_>>() {
        play(&file).await;
    }
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
