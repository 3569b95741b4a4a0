//! Bad input to the API server by the real kubectl, and connections that are broken: the server says what is wrong, in
//! upstream's words, and goes on. Bad requests and their answers are in the API server's own tests (`requests`). Needs
//! no root.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;

use apiserver::ApiServer;
use cluster::both;

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
