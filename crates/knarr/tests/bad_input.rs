//! Bad input to the API server, by curl and by the real kubectl: each request gets upstream's answer, whole, and the
//! server goes on.
//!
//! The requests and their answers stand in `bad_input.txt`; `UPDATE_EXPECT=1` writes the answers there anew, to be
//! read with care. Needs no root.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;

use std::fmt::Write;
use std::path::Path;

use apiserver::ApiServer;
use cluster::both;

/// One request of the file: a title, a line `METHOD PATH`, lines `> Header: value` (or `> anonymous`), the body.
struct Request {
    title: String,
    method: String,
    path: String,
    headers: Vec<String>,
    body: String,
}

fn requests(text: &str) -> Vec<Request> {
    text.split("\n## ")
        .skip(1)
        .map(|block| {
            let asked = block.split("\n=> ").next().expect("a request");
            let mut lines = asked.lines();
            let title = lines.next().expect("a title").to_string();
            let (method, path) = lines.next().and_then(|l| l.split_once(' ')).expect("a method and a path");
            let rest: Vec<&str> = lines.collect();
            let headers = rest.iter().filter_map(|l| l.strip_prefix("> ")).map(str::to_string).collect();
            let body: Vec<&str> = rest.into_iter().filter(|l| !l.starts_with("> ")).collect();
            Request { title, method: method.into(), path: path.into(), headers, body: body.join("\n") }
        })
        .collect()
}

/// `{{x*3}}` in a body stands for `xxx`.
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

/// What differs from run to run, out of a message.
fn steady(text: &str, uid: &str) -> String {
    let mut out = if uid.is_empty() { text.to_string() } else { text.replace(uid, "UID") };
    for mark in ["in record (", ", current: ", "too old resource version: 1 ("] {
        if let Some((before, after)) = out.clone().split_once(mark)
            && after.starts_with(|c: char| c.is_ascii_digit())
        {
            out = format!("{before}{mark}N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    // The patched document, in the message and once more in the cause.
    for (open, close) in [("patch: Invalid value: \"{", "}\": json: "), ("\"Invalid value: \\\"{", "}\\\": json: ")] {
        if let Some((before, rest)) = out.clone().split_once(open)
            && let Some((_, after)) = rest.split_once(close)
        {
            out = format!("{before}{open}DOCUMENT{close}{after}");
        }
    }
    out
}

fn answer(server: &ApiServer, request: &Request, uid: &str) -> String {
    let mut headers: Vec<&str> = request.headers.iter().map(String::as_str).collect();
    let anonymous = headers.contains(&"anonymous");
    headers.retain(|h| *h != "anonymous");
    if !request.body.is_empty() && !headers.iter().any(|h| h.starts_with("Content-Type:")) {
        headers.push("Content-Type: application/json");
    }
    let (head, body) = server.curl(&request.method, &request.path, &headers, anonymous, &grown(&request.body));
    let code = head.split(' ').nth(1).expect("a code");
    let mut out = format!("=> {code}");
    let status = meta::parse(body.as_bytes()).unwrap_or_default();
    if status.str_at(&["kind"]) == Some("Status") && !code.starts_with('2') {
        assert_eq!(status.int_at(&["code"]).map(|c| c.to_string()).as_deref(), Some(code), "{body}");
        assert_eq!(status.str_at(&["status"]), Some("Failure"), "{body}");
        assert_eq!(
            (status.str_at(&["apiVersion"]), status["metadata"].to_string().as_str()),
            (Some("v1"), "{}"),
            "{body}"
        );
        write!(
            out,
            " {}\n{}",
            status.str_at(&["reason"]).unwrap_or("-"),
            status.str_at(&["message"]).unwrap_or_default()
        )
        .expect("written");
        if let Some(details) = status.get("details") {
            write!(out, "\n{details}").expect("written");
        }
    } else if let Some(kind) = status.str_at(&["kind"]) {
        write!(out, " {kind}").expect("written");
    } else {
        write!(out, "\n{}", body.trim_end()).expect("written");
    }
    for warning in head.lines().filter(|line| line.to_lowercase().starts_with("warning: ")) {
        write!(out, "\n{warning}").expect("written");
    }
    steady(&out, uid)
}

#[test]
fn every_bad_request_gets_upstreams_answer() {
    let mut server = ApiServer::start();
    // Pods need it; no controller makes it here.
    server.kubectl(&["create", "serviceaccount", "default"]);
    server.kubectl(&["create", "configmap", "here", "--from-literal=a=1"]);
    let uid = server.kubectl(&["get", "configmap", "here", "-o", "jsonpath={.metadata.uid}"]);

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_input.txt");
    let text = std::fs::read_to_string(&file).expect("the requests");
    let mut told = text.split("\n## ").next().expect("an introduction").to_string();
    for request in requests(&text) {
        let Request { title, method, path, headers, body } = &request;
        write!(told, "\n## {title}\n{method} {path}\n").expect("written");
        headers.iter().for_each(|header| writeln!(told, "> {header}").expect("written"));
        if !body.is_empty() {
            writeln!(told, "{body}").expect("written");
        }
        writeln!(told, "{}", answer(&server, &request, &uid)).expect("written");
    }
    expect_test::expect_file!["bad_input.txt"].assert_eq(&told);

    assert!(server.is_running());
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]), "ok");
    assert_eq!(server.kubectl(&["get", "configmap", "here", "-o", "jsonpath={.data}"]), r#"{"a":"1"}"#);
    server.kubectl(&["create", "configmap", "goes-on"]);
}

/// A client that is slow to read, or gone, or that speaks no HTTP, takes nothing from the others.
#[test]
fn broken_connections_leave_the_server_alone() {
    let mut server = ApiServer::start();
    let address = server.url.trim_start_matches("https://").to_string();
    let mut idle = Vec::new();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"\0\0\0\0", b""] {
        for _ in 0..20 {
            let mut stream = std::net::TcpStream::connect(&address).expect("connected");
            std::io::Write::write_all(&mut stream, garbage).expect("written");
            idle.push(stream);
        }
    }
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]), "ok");
    drop(idle);
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]), "ok");
    assert!(server.is_running());
}

const UNKNOWN_FIELD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndta: {a: b}\n";

/// What a person at a terminal sees: arguments, standard input, standard error.
const TYPED: &[(&[&str], &str, &str)] = &[
    (
        &["create", "-f", "-"],
        UNKNOWN_FIELD,
        r#"Error from server (BadRequest): error when creating "STDIN": ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta""#,
    ),
    (
        &["apply", "-f", "-"],
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: three, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}\n",
        r#"Error from server (BadRequest): error when creating "STDIN": Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
    ),
    (
        &["apply", "--server-side", "-f", "-"],
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, imag: c}]}\n",
        r#"Error from server: failed to create typed patch object (default/p; /v1, Kind=Pod): .spec.containers[name="a"].imag: field not declared in schema"#,
    ),
    (
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a}, {image: b}]}\n",
        "The Pod \"p\" is invalid: \n* spec.containers[0].image: Required value\n* spec.containers[1].name: Required value",
    ),
    (
        &["create", "-f", "-"],
        "apiVersion: v1\nkind: Nothing\nmetadata: {name: thing}\n",
        "error: resource mapping not found for name: \"thing\" namespace: \"\" from \"STDIN\": no matches for kind \"Nothing\" in version \"v1\"\nensure CRDs are installed first",
    ),
    (&["get", "nothings"], "", r#"error: the server doesn't have a resource type "nothings""#),
    (&["get", "pod", "none"], "", r#"Error from server (NotFound): pods "none" not found"#),
    (
        &["create", "namespace", "default"],
        "",
        r#"Error from server (AlreadyExists): namespaces "default" already exists"#,
    ),
    (
        &["get", "pods", "-l", "a===b"],
        "",
        r#"Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "a===b", field selector "": unable to parse requirement: found '=', expected: identifier"#,
    ),
    (
        &["get", "pods", "--field-selector", "spec.colour=red"],
        "",
        r#"Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.colour=red": field label not supported: spec.colour"#,
    ),
    (
        &["replace", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: here, resourceVersion: \"1\"}\n",
        r#"Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on configmaps "here": the object has been modified; please apply your changes to the latest version and try again"#,
    ),
    (
        &["patch", "configmap", "here", "--type=json", "-p", r#"[{"op":"remove","path":"/data/none"}]"#],
        "",
        "The request is invalid: the server rejected our request due to an error in our request",
    ),
    (
        &["label", "configmap", "here", "a=b c"],
        "",
        r#"error: invalid label value: "a=b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#,
    ),
];

#[test]
fn kubectl_says_what_is_wrong() {
    let server = ApiServer::start();
    // Pods need it; no controller makes it here.
    server.kubectl(&["create", "serviceaccount", "default"]);
    server.kubectl(&["create", "configmap", "here"]);
    for (arguments, stdin, want) in TYPED {
        let output = server.try_kubectl(arguments, stdin);
        assert_eq!(output.status.code(), Some(1), "kubectl {}: {}", arguments.join(" "), both(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), *want, "kubectl {}", arguments.join(" "));
    }
    for (validate, name, warned) in [("warn", "warned", "Warning: unknown field \"dta\"\n"), ("ignore", "ignored", "")]
    {
        let flag = format!("--validate={validate}");
        let output = server.try_kubectl(&["create", &flag, "-f", "-"], &UNKNOWN_FIELD.replace("NAME", name));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("configmap/{name} created\n"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), warned);
    }
    let ca = server.dir.path().join("ca.crt").display().to_string();
    let stranger = ["--kubeconfig=/dev/null", "--server", &server.url, "--certificate-authority", &ca];
    for more in [&["--token=rubbish", "get", "pods"][..], &["--username=x", "--password=y", "get", "pods"]] {
        let output = server.try_kubectl(&[&stranger[..], more].concat(), "");
        let said = both(&output);
        assert!(said.contains("error: You must be logged in to the server (Unauthorized)"), "{said}");
    }
}
