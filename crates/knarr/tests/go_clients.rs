//! client-go, unmodified, against `knarr apiserver` alone: typed clients and informers that speak protobuf only.
//!
//! Black box: the program of `tests/clients/go` is built from the published Go modules. Needs Go, and no root.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;

use std::process::Command;

use apiserver::ApiServer;
use cluster::{both, workspace};

#[test]
fn client_go_over_protobuf() {
    let server = ApiServer::start();
    let module = workspace().join("tests/clients/go");
    let mut go = Command::new("go");
    go.args(["run", "."]).arg(server.kubeconfig()).current_dir(module).env("GOWORK", "off");
    let output = go.output().expect("go is installed: it builds the client");
    assert!(output.status.success(), "{}", both(&output));
    assert!(both(&output).contains("client-go over protobuf: "), "{}", both(&output));
}
