//! An API server alone, to try it with kubectl: `cargo run -p apiserver --example serve -- [DATA-DIR]`.
//!
//! Without a directory everything is in memory. Prints the path of an admin kubeconfig and serves until ctrl-c.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{Config, Server, Tokens};
use pki::tokens::{Signer, Verifier};
use pki::{CertificateRequest, Pki};
use store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let given = std::env::args().nth(1).map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let dir = given.clone().unwrap_or_else(|| temporary.path().to_path_buf());
    let store: Arc<dyn Store> = match given {
        Some(_) => store::open(dir.join("store"), store::Options::default())?,
        None => store::memory(),
    };
    let pki = Pki::open(&dir.join("pki"))?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let request = CertificateRequest::server("kube-apiserver", &["localhost".into()], &[local]);
    let issuer = apiserver::config::DEFAULT_ISSUER;
    let key = pki.service_account_key_pem.clone();
    let mut config = Config::new(store);
    config.listen = Some((local, 0).into());
    config.tls = Some(pki.certificate("apiserver", &request)?);
    config.client_ca_pem = Some(pki.ca.certificate_pem().to_string());
    config.tokens = Some(Tokens {
        signer: Arc::new(Signer::from_pem(&key, issuer)?),
        verifier: Arc::new(Verifier::from_pems(&[&key], issuer)?),
        audiences: vec![issuer.to_string()],
    });
    let server = Server::start(config).await?;
    let address = server.addr().ok_or("no address")?;
    let admin = pki.certificate("admin", &CertificateRequest::client("kubernetes-admin", Some("system:masters")))?;
    let url = format!("https://{address}");
    let kubeconfig = pki::kubeconfig::render("knarr", &url, pki.ca.certificate_pem(), "admin", &admin);
    let path = dir.join("admin.kubeconfig");
    std::fs::write(&path, kubeconfig)?;
    println!("{}", path.display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
