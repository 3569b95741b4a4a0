//! The cluster's keys and certificates on disk, laid out as kubeadm does below `/etc/kubernetes/pki`.
//!
//! Invariant: an authority or the service account key is made once and never replaced; what is signed by them is made
//! anew when its names change or when it ends within 30 days.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use crate::{Authority, CertificateRequest, Error, Issued, identity};

const RENEW_BEFORE_SECONDS: i64 = 30 * 24 * 3600;

/// The directory of keys and certificates, with the cluster's authorities.
pub struct Pki {
    dir: PathBuf,
    pub ca: Authority,
    /// Vouches for the API server to the API servers behind it, and for nobody else.
    pub front_proxy_ca: Authority,
    /// The private key that service account tokens are signed with.
    pub service_account_key_pem: String,
}

impl Pki {
    /// Opens `dir`, making it and what is missing in it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let doing = |doing| move |source| Error::Io { doing, path: dir.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(doing("create"))?;
        let ca = authority(dir, "ca", "kubernetes-ca")?;
        let front_proxy_ca = authority(dir, "front-proxy-ca", "front-proxy-ca")?;
        let service_account_key_pem = match read(&dir.join("sa.key"))? {
            Some(pem) => pem,
            None => {
                let key = KeyPair::generate()
                    .map_err(|e| Error::Issue { subject: "service accounts".into(), why: e.to_string() })?;
                write_private(&dir.join("sa.key"), &key.serialize_pem())?;
                key.serialize_pem()
            }
        };
        Ok(Pki { dir: dir.into(), ca, front_proxy_ca, service_account_key_pem })
    }

    /// The certificate `name` (`apiserver`, `kubelet`, ...), kept over restarts while it says what `request` asks.
    pub fn certificate(&self, name: &str, request: &CertificateRequest) -> Result<Issued, Error> {
        self.issued_by(&self.ca, name, request)
    }

    /// What the API server shows to the API servers behind it.
    pub fn front_proxy_client(&self) -> Result<Issued, Error> {
        const NAME: &str = "front-proxy-client";
        self.issued_by(&self.front_proxy_ca, NAME, &CertificateRequest::client(NAME, None))
    }

    fn issued_by(&self, ca: &Authority, name: &str, request: &CertificateRequest) -> Result<Issued, Error> {
        let (certificate_path, key_path, request_path) = (
            self.dir.join(format!("{name}.crt")),
            self.dir.join(format!("{name}.key")),
            self.dir.join(format!("{name}.request")),
        );
        let asked = format!("{request:?}");
        if let (Some(certificate_pem), Some(key_pem), Some(was)) =
            (read(&certificate_path)?, read(&key_path)?, read(&request_path)?)
            && was == asked
            && !identity::expires_within(&certificate_pem, RENEW_BEFORE_SECONDS)
        {
            return Ok(Issued { certificate_pem, key_pem });
        }
        let issued = ca.issue(request)?;
        // The request goes last: a crash in between leaves one that does not match, and the next start issues anew.
        let _ = fs::remove_file(&request_path);
        write_private(&key_path, &issued.key_pem)?;
        write_private(&certificate_path, &issued.certificate_pem)?;
        write_private(&request_path, &asked)?;
        Ok(issued)
    }
}

/// The authority in `NAME.crt` and `NAME.key`, made at first use.
fn authority(dir: &Path, name: &str, common_name: &str) -> Result<Authority, Error> {
    let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?) {
        return Authority::from_pem(&certificate, &key);
    }
    let ca = Authority::generate(common_name)?;
    write_private(&key_path, &ca.key_pem())?;
    write_private(&certificate_path, ca.certificate_pem())?;
    Ok(ca)
}

/// The file's text; `None` when there is none.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { doing: "read", path: path.display().to_string(), source }),
    }
}

/// Writes a file of mode 0600 so that a crash leaves the old one or the new one, never half of it.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let fail = |source| Error::Io { doing: "write", path: path.display().to_string(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        fail(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn kept_over_restarts_until_the_names_change() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path().join("pki");
        let first = Pki::open(&dir).expect("made");
        let request = CertificateRequest::server("kube-apiserver", &["localhost".into()], &[]);
        let certificate = first.certificate("apiserver", &request).expect("issued");

        let second = Pki::open(&dir).expect("opened again");
        assert_eq!(first.ca.certificate_pem(), second.ca.certificate_pem());
        assert_eq!(first.front_proxy_ca.certificate_pem(), second.front_proxy_ca.certificate_pem());
        assert_eq!(first.service_account_key_pem, second.service_account_key_pem);
        let kept = second.certificate("apiserver", &request).expect("kept");
        assert_eq!(certificate.certificate_pem, kept.certificate_pem);
        let other = CertificateRequest::server("kube-apiserver", &["example.com".into()], &[]);
        let renewed = second.certificate("apiserver", &other).expect("issued anew");
        assert_ne!(certificate.certificate_pem, renewed.certificate_pem);
        for entry in fs::read_dir(&dir).expect("listed") {
            let entry = entry.expect("entry");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }
}
