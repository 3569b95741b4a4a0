//! Makes a `kube::Client` from a kubeconfig file or from a pod's service account.
//! Reads: the kubeconfig, or the service account's mounted files. Writes nothing. Invariant: nothing is taken from the user's
//! environment unasked: no ~/.kube/config, no $KUBECONFIG.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::Error;

/// From the file if one is given, else from the pod's service account.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => in_cluster()?,
    };
    client_of(config)
}

/// The configuration a kubeconfig's current context describes.
pub async fn from_file(path: &Path) -> Result<Config, Error> {
    let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(wrap)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrap)
}

/// The configuration of a pod's service account.
pub fn in_cluster() -> Result<Config, Error> {
    Config::incluster().map_err(|error| Error::InCluster(Box::new(error)))
}

fn client_of(config: Config) -> Result<Client, Error> {
    // both answers are fine: somebody installs the one provider first
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| Error::Client { server, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let Err(error) = client(Some(Path::new("/absent/kubeconfig"))).await else {
            panic!("made a client of nothing")
        };
        assert!(error.to_string().starts_with("cannot read kubeconfig /absent/kubeconfig: "), "{error}");
    }
}
