//! Which kinds of volume there are, what they refer to, and what their files hold.
//!
//! Reads watched objects and tokens. Invariant: every kind of the API is either served or refused by name.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, Pod, ProjectedVolumeSource, SecretProjection, Volume, VolumeProjection,
};

use jiff::Timestamp;

use super::Work;
use super::objects::{Key, Kind, Object};
use super::payload::{self, Defaults, File, Payload};
use super::token::Tokens;
use crate::pods::Allocatable;

/// Where volumes of a kind live, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugin {
    pub directory: &'static str,
    /// Secret things are never on disk.
    pub in_memory: bool,
}

/// The files of a volume, and when a token among them wants renewing.
pub struct Built {
    pub payload: Payload,
    pub refresh_at: Option<Timestamp>,
}

/// None: a hostPath, or a kind that is not served.
pub fn plugin(volume: &Volume) -> Option<Plugin> {
    let plugin = |directory, in_memory| Some(Plugin { directory, in_memory });
    match volume {
        Volume { empty_dir: Some(_), .. } => plugin("kubernetes.io~empty-dir", false),
        Volume { config_map: Some(_), .. } => plugin("kubernetes.io~configmap", false),
        Volume { secret: Some(_), .. } => plugin("kubernetes.io~secret", true),
        Volume { downward_api: Some(_), .. } => plugin("kubernetes.io~downward-api", true),
        Volume { projected: Some(_), .. } => plugin("kubernetes.io~projected", true),
        _ => None,
    }
}

/// The error for a kind that is not served.
pub fn unsupported(volume: &Volume) -> String {
    let document = serde_json::to_value(volume).unwrap_or_default();
    let kind = document
        .as_object()
        .and_then(|fields| fields.keys().find(|field| *field != "name"))
        .map_or("unknown", String::as_str);
    format!("{kind} volumes are not supported yet; use emptyDir, hostPath, configMap, secret, downwardAPI or projected")
}

/// The objects a volume shows.
pub fn keys(pod: &Pod, volume: &Volume) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let key = |kind, name: &str| Key { kind, namespace: namespace.clone(), name: name.to_owned() };
    let mut keys = Vec::new();
    keys.extend(volume.config_map.iter().map(|source| key(Kind::ConfigMap, &source.name)));
    keys.extend(volume.secret.iter().filter_map(|source| Some(key(Kind::Secret, source.secret_name.as_deref()?))));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        keys.extend(source.config_map.iter().map(|source| key(Kind::ConfigMap, &source.name)));
        keys.extend(source.secret.iter().map(|source| key(Kind::Secret, &source.name)));
    }
    keys.retain(|key| !key.name.is_empty());
    keys
}

/// What the volume's files hold now. A volume of one source is a projection of one.
pub async fn build(work: &Work, volume: &Volume, tokens: &Tokens, allocatable: &Allocatable) -> Result<Built, String> {
    let mut one = VolumeProjection::default();
    let defaults = if let Some(source) = volume.config_map.clone() {
        one.config_map =
            Some(ConfigMapProjection { name: source.name, items: source.items, optional: source.optional });
        Defaults::new(source.default_mode, source.default_user)
    } else if let Some(source) = volume.secret.clone() {
        let name = source.secret_name.unwrap_or_default();
        one.secret = Some(SecretProjection { name, items: source.items, optional: source.optional });
        Defaults::new(source.default_mode, source.default_user)
    } else if let Some(source) = volume.downward_api.clone() {
        one.downward_api = Some(DownwardAPIProjection { items: source.items });
        Defaults::new(source.default_mode, source.default_user)
    } else {
        return match &volume.projected {
            Some(source) => projected(work, source, tokens, allocatable).await,
            None => Err(unsupported(volume)),
        };
    };
    project(work, &one, defaults, tokens, allocatable).await
}

async fn config_map(work: &Work, source: &ConfigMapProjection, defaults: Defaults) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let object = fetch(work, Kind::ConfigMap, &source.name, optional).await?;
    let map = match &object {
        Some(Object::ConfigMap(map)) => Some(map.as_ref()),
        _ => None,
    };
    payload::config_map(map, source.items.as_deref(), defaults, optional)
}

async fn secret(work: &Work, source: &SecretProjection, defaults: Defaults) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let object = fetch(work, Kind::Secret, &source.name, optional).await?;
    let secret = match &object {
        Some(Object::Secret(secret)) => Some(secret.as_ref()),
        _ => None,
    };
    payload::secret(secret, source.items.as_deref(), defaults, optional)
}

async fn fetch(work: &Work, kind: Kind, name: &str, optional: bool) -> Result<Option<Object>, String> {
    let namespace = work.pod.metadata.namespace.clone().unwrap_or_default();
    let key = Key { kind, namespace, name: name.to_owned() };
    let Some(watched) = work.watched.get(&key) else {
        return if optional { Ok(None) } else { Err("the volume names no object".to_owned()) };
    };
    match watched.get().await? {
        None if !optional => Err(watched.not_found()),
        found => Ok(found),
    }
}

async fn projected(
    work: &Work,
    volume: &ProjectedVolumeSource,
    tokens: &Tokens,
    allocatable: &Allocatable,
) -> Result<Built, String> {
    let defaults = Defaults::new(volume.default_mode, volume.default_user);
    let mut all = Built { payload: Payload::new(), refresh_at: None };
    let mut errors = Vec::new();
    for source in volume.sources.iter().flatten() {
        match project(work, source, defaults, tokens, allocatable).await {
            Ok(built) => {
                all.payload.extend(built.payload);
                all.refresh_at = [all.refresh_at, built.refresh_at].into_iter().flatten().min();
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(payload::aggregate(errors)) }
}

async fn project(
    work: &Work,
    source: &VolumeProjection,
    defaults: Defaults,
    tokens: &Tokens,
    allocatable: &Allocatable,
) -> Result<Built, String> {
    let plain = |payload| Built { payload, refresh_at: None };
    if let Some(source) = &source.config_map {
        return config_map(work, source, defaults).await.map(plain);
    }
    if let Some(source) = &source.secret {
        return secret(work, source, defaults).await.map(plain);
    }
    if let Some(source) = &source.downward_api {
        return payload::downward(&work.pod, source.items.as_deref().unwrap_or_default(), defaults, allocatable)
            .map(plain);
    }
    if let Some(source) = &source.service_account_token {
        let issued = tokens.get(&work.pod, source).await?;
        let group = work.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
        let common = payload::common_user(&work.pod);
        // A token is for its owner alone as soon as it is known who that is.
        let mode = if common.is_some() || group.is_some() { 0o600 } else { defaults.mode };
        let user = Defaults::new(None, source.user).user.or(defaults.user).or(common);
        let file = File { data: issued.text.into_bytes(), mode, user };
        return Ok(Built {
            payload: Payload::from([(source.path.clone(), file)]),
            refresh_at: Some(issued.refresh_at),
        });
    }
    if source.cluster_trust_bundle.is_some() {
        return Err("clusterTrustBundle sources are not supported yet".to_owned());
    }
    if source.pod_certificate.is_some() {
        return Err("podCertificate sources are not supported yet".to_owned());
    }
    Ok(plain(Payload::new()))
}
