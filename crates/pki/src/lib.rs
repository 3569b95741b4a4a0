//! Who is who: the cluster's certificate authorities, certificates, service account tokens and kubeconfigs.
//!
//! Reads and writes PEM files below one directory ([`files`]); everything else is pure. Invariant: a private key is
//! written with mode 0600 before its certificate exists, and never logged or printed.

pub mod ca;
pub mod files;
pub mod identity;
pub mod kubeconfig;
pub mod tls;
pub mod tokens;

pub use ca::{Authority, CertificateRequest, Issued, Usage};
pub use files::Pki;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: String, source: std::io::Error },
    #[error("cannot make a certificate for {subject}: {why}")]
    Issue { subject: String, why: String },
    #[error("{what} is not valid PEM: {why}")]
    Pem { what: String, why: String },
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("cannot sign the token: {0}")]
    Sign(String),
}
