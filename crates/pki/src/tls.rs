//! rustls configurations of servers and clients from PEM. aws-lc-rs is the one crypto provider.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::{Error, Issued};

/// The process-wide crypto provider, set on first use.
pub fn provider() -> Arc<CryptoProvider> {
    if CryptoProvider::get_default().is_none() {
        // Somebody else may have set it since: then theirs stands.
        let _ = preferred().install_default();
    }
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(preferred()))
}

/// AES-128 first, as Go's TLS has it: a third less work than AES-256 for each byte.
fn preferred() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A server that speaks HTTP/2 and HTTP/1.1. With `client_ca_pem`, a client may show a certificate of that authority;
/// one that shows none is let in and stays anonymous, one of another authority is refused.
pub fn server(identity: &Issued, client_ca_pem: Option<&str>) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?;
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|e| Error::Tls(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&identity.certificate_pem)?, key(&identity.key_pem)?)
        .map_err(|e| Error::Tls(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts `ca_pem`, and shows `identity` where it has one.
pub fn client(ca_pem: &str, identity: Option<&Issued>) -> Result<ClientConfig, Error> {
    with_roots(roots(ca_pem)?, identity)
}

fn with_roots(roots: RootCertStore, identity: Option<&Issued>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder
            .with_client_auth_cert(certificates(&identity.certificate_pem)?, key(&identity.key_pem)?)
            .map_err(|e| Error::Tls(e.to_string())),
    }
}

/// A client that takes whatever certificate the server shows: for servers whose authority nobody knows.
pub fn client_unverified(identity: Option<&Issued>) -> Result<ClientConfig, Error> {
    let mut config = with_roots(RootCertStore::empty(), identity)?;
    config.dangerous().set_certificate_verifier(Arc::new(Anyone(provider())));
    Ok(config)
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The authorities that this machine trusts; empty when it has none.
pub fn system_bundle() -> String {
    const PLACES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    PLACES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|e| Error::Tls(e.to_string()))?;
    }
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Pem { what: "the certificate".into(), why: "it holds no certificate".into() }),
        Err(e) => Err(Error::Pem { what: "the certificate".into(), why: e.to_string() }),
    }
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| Error::Pem { what: "the private key".into(), why: e.to_string() })
}
