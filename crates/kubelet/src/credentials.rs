//! Registry credentials from `imagePullSecrets`: which of them fit an image.
//!
//! Reads docker's two JSON forms; pure. Invariant: the most specific registry entry comes first; a secret that cannot be
//! read is skipped, never fatal, since the image may be public.

use base64::Engine;
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: std::collections::BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials for `image` in these secrets, the best fitting first.
pub fn matching(secrets: &[&Secret], image: &str) -> Vec<AuthConfig> {
    let image = repository(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (registry, entry) in entries(secret) {
            let place = place(&registry);
            if fits(&place, &image)
                && let Some(auth) = auth_of(&entry, &place)
            {
                found.push((place.len(), auth));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let data = secret.data.as_ref();
    let text = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    if let Some(bytes) = text(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(bytes).unwrap_or_default().auths.into_iter().collect();
    }
    let Some(bytes) = text(".dockercfg") else { return Vec::new() };
    serde_json::from_slice::<std::collections::BTreeMap<String, Entry>>(bytes).unwrap_or_default().into_iter().collect()
}

/// `HOST[/PATH]` of a registry entry, without scheme and version.
fn place(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".to_string(),
        other => other.to_string(),
    }
}

/// `HOST/PATH` of an image, without tag and digest; names without a host are docker's.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    };
    let host = name.split('/').next().unwrap_or_default();
    if name.contains('/') && (host.contains('.') || host.contains(':') || host == "localhost") {
        return name.to_string();
    }
    let library = if name.contains('/') { "" } else { "library/" };
    format!("docker.io/{library}{name}")
}

/// Host parts may be `*` in the entry; its path must be a prefix of the image's.
fn fits(place: &str, image: &str) -> bool {
    let (want_host, want_path) = place.split_once('/').unwrap_or((place, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let (want_host, want_port) = want_host.split_once(':').unwrap_or((want_host, ""));
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let (want_labels, labels): (Vec<_>, Vec<_>) = (want_host.split('.').collect(), host.split('.').collect());
    want_port == port
        && want_labels.len() == labels.len()
        && want_labels.iter().zip(&labels).all(|(want, label)| *want == "*" || want == label)
        && path.starts_with(want_path)
}

fn auth_of(entry: &Entry, server: &str) -> Option<AuthConfig> {
    let (mut username, mut password) = (entry.username.clone(), entry.password.clone());
    if !entry.auth.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, secret) = text.split_once(':')?;
        (username, password) = (user.to_string(), secret.trim_end_matches('\0').to_string());
    }
    Some(AuthConfig {
        username,
        password,
        server_address: server.to_string(),
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
        ..AuthConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn the_most_specific_entry_wins() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"username": "hub", "password": "1"},
            "*.example.com": {"auth": "YTpiOmM="},
            "r.example.com/team": {"username": "team", "password": "2"},
            "127.0.0.1:5000": {"username": "local", "password": "3"}}}"#;
        let data = [(".dockerconfigjson".to_string(), ByteString(config.as_bytes().to_vec()))].into_iter().collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let users = |image: &str| {
            let found = matching(&[&secret], image);
            found.iter().map(|auth| format!("{}/{}", auth.username, auth.password)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(users("busybox"), "hub/1");
        assert_eq!(users("docker.io/me/app:1"), "hub/1");
        assert_eq!(users("r.example.com/team/app@sha256:00"), "team/2 a/b:c");
        assert_eq!(users("r.example.com/other"), "a/b:c");
        assert_eq!(users("127.0.0.1:5000/app:v1"), "local/3");
        assert_eq!(users("127.0.0.1:5001/app:v1"), "");
    }
}
