//! The environment of a container: `env`, `envFrom`, the variables of services, and `$(VAR)` in command and arguments.
//!
//! Pure: `references` says which ConfigMaps and Secrets are wanted, the caller fetches them, `plan` puts it all
//! together. Invariant: the result is sorted by name and holds each name once. Error texts are upstream's.

pub mod expand;
pub mod fields;
pub mod resources;
pub mod services;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pods::{Allocatable, PodIps};

pub use sources::Sources;

/// The ConfigMaps and Secrets that are known to exist, by name, in the pod's namespace.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// Names of the ConfigMaps and Secrets that a container's environment draws on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

/// What is known about the pod beyond its own document.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    /// Addresses of the sandbox, the main one first; empty before there is one.
    pub pod_ips: &'a [String],
    /// Addresses of the node, the main one first.
    pub host_ips: &'a [String],
    /// Stands in for limits that are not set.
    pub allocatable: &'a BTreeMap<String, Quantity>,
    /// Services of the pod's namespace and of `default`; others are ignored.
    pub services: &'a [Arc<Service>],
    pub objects: &'a Objects,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("configmap \"{0}\" not found")]
    ConfigMapNotFound(String),
    #[error("secret \"{0}\" not found")]
    SecretNotFound(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    ConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    SecretKey { namespace: String, name: String, key: String },
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("{0} is not a quantity")]
    Quantity(String),
    #[error("variable {0}: fileKeyRef is not supported yet; write the value into a ConfigMap or Secret instead")]
    FileKey(String),
    #[error("{0}")]
    Fetch(String),
}

/// Which objects `plan` will look for.
pub fn references(container: &Container) -> References {
    let mut wanted = References::default();
    for source in container.env_from.iter().flatten() {
        wanted.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
        wanted.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        wanted.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
        wanted.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
    }
    wanted
}

/// Fetches what the container refers to and makes its variables, sorted by name.
pub async fn container_env(
    pod: &Pod,
    container: &Container,
    ips: &PodIps,
    allocatable: &Allocatable,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let objects = sources.objects(namespace, &references(container)).await?;
    let services = sources.services(namespace).await?;
    let inputs =
        Inputs { pod, pod_ips: &ips.pod, host_ips: &ips.host, allocatable, services: &services, objects: &objects };
    plan(&inputs, container)
}

/// The variables of one container, sorted by name. Pure.
pub fn plan(inputs: &Inputs<'_>, container: &Container) -> Result<Vec<(String, String)>, EnvError> {
    let service_env = services::variables(inputs.pod, inputs.services);
    let mut own = BTreeMap::new();
    env_from(inputs, container, &mut own)?;
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or(""), &variable.value_from) {
            ("", None) => Some(String::new()),
            ("", Some(source)) => value_from(inputs, container, &variable.name, source)?,
            (text, _) => Some(expand::expand(text, |name| own.get(name).or_else(|| service_env.get(name)).cloned())),
        };
        if let Some(value) = value {
            own.insert(variable.name.clone(), value);
        }
    }
    let mut all = service_env;
    all.extend(own);
    Ok(all.into_iter().collect())
}

/// `command` or `args` with `$(VAR)` replaced; unknown variables stay as they are written.
pub fn expand(args: &[String], env: &[(String, String)]) -> Vec<String> {
    let known: BTreeMap<&str, &str> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    args.iter().map(|text| expand::expand(text, |name| known.get(name).map(|value| (*value).to_owned()))).collect()
}

fn env_from(inputs: &Inputs<'_>, container: &Container, out: &mut BTreeMap<String, String>) -> Result<(), EnvError> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        let mut put = |key: &str, value: String| {
            let name = format!("{prefix}{key}");
            // The kernel cannot tell a name with `=` from its value.
            if !name.contains(['=', '\0']) {
                out.insert(name, value);
            }
        };
        if let Some(reference) = &source.config_map_ref {
            match inputs.objects.config_maps.get(&reference.name) {
                Some(map) => map.data.iter().flatten().for_each(|(key, value)| put(key, value.clone())),
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::ConfigMapNotFound(reference.name.clone())),
            }
        } else if let Some(reference) = &source.secret_ref {
            match inputs.objects.secrets.get(&reference.name) {
                Some(secret) => secret.data.iter().flatten().for_each(|(key, value)| put(key, text(&value.0))),
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::SecretNotFound(reference.name.clone())),
            }
        }
    }
    Ok(())
}

// None: optional and absent, so the variable is not set at all.
fn value_from(
    inputs: &Inputs<'_>,
    container: &Container,
    variable: &str,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    let namespace = || inputs.pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return fields::env_value(inputs, &field.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
        let container = match named {
            Some(name) => {
                resources::find_container(inputs.pod, name).ok_or_else(|| EnvError::Container(name.to_owned()))?
            }
            None => container,
        };
        return resources::value(container, reference, inputs.allocatable).map(Some);
    }
    let (value, missing, optional) = if let Some(reference) = &source.config_map_key_ref {
        let (name, key) = (reference.name.clone(), reference.key.clone());
        let (value, missing) = match inputs.objects.config_maps.get(&name) {
            Some(map) => {
                let value = map.data.as_ref().and_then(|data| data.get(&key)).cloned();
                (value, EnvError::ConfigMapKey { namespace: namespace(), name, key })
            }
            None => (None, EnvError::ConfigMapNotFound(name)),
        };
        (value, missing, reference.optional)
    } else if let Some(reference) = &source.secret_key_ref {
        let (name, key) = (reference.name.clone(), reference.key.clone());
        let (value, missing) = match inputs.objects.secrets.get(&name) {
            Some(secret) => {
                let value = secret.data.as_ref().and_then(|data| data.get(&key)).map(|value| text(&value.0));
                (value, EnvError::SecretKey { namespace: namespace(), name, key })
            }
            None => (None, EnvError::SecretNotFound(name)),
        };
        (value, missing, reference.optional)
    } else if source.file_key_ref.is_some() {
        return Err(EnvError::FileKey(variable.to_owned()));
    } else {
        return Ok(Some(String::new()));
    };
    if value.is_none() && optional != Some(true) { Err(missing) } else { Ok(value) }
}

// CRI carries variables as UTF-8 strings, so other bytes cannot get through whole.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
