//! Kubeconfig files, as kubectl reads them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Issued;

/// A kubeconfig for one user of one cluster, with everything embedded. It is YAML; JSON's strings are YAML's too.
pub fn render(cluster: &str, server: &str, ca_pem: &str, user: &str, identity: &Issued) -> String {
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let (cluster, server, user) = (quote(cluster), quote(server), quote(user));
    let ca = STANDARD.encode(ca_pem);
    let certificate = STANDARD.encode(&identity.certificate_pem);
    let key = STANDARD.encode(&identity.key_pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {cluster}
  context:
    cluster: {cluster}
    user: {user}
current-context: {cluster}
"
    )
}
