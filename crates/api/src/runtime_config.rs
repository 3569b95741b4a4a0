//! Which versions of built-in resources are served, as `--runtime-config` says it: `api/beta=true,apps/v1=false`.
//!
//! Source: the reference of kube-apiserver's flags. Settled versions are served unless they are turned off, others when
//! they are turned on. Invariant: a group and version that nothing is known of is refused, not forgotten.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::resource::{self, Resource, Stage};

/// What upstream serves only with a feature gate that is off, and which: the version is not enough.
const GATED: [(&str, &str, &str); 6] = [
    ("lifecycle.k8s.io", "evictionrequests", "EvictionRequestAPI"),
    ("lifecycle.k8s.io", "evictions", "EvictionRequestAPI"),
    ("scheduling.k8s.io", "compositepodgroups", "CompositePodGroup"),
    ("scheduling.k8s.io", "podgroups", "GenericWorkload"),
    ("scheduling.k8s.io", "workloads", "GenericWorkload"),
    ("resource.k8s.io", "resourcepoolstatusrequests", "DRAResourcePoolStatus"),
];

/// The switches that were given, the last of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig(BTreeMap<String, bool>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRuntimeConfig {
    #[error("{0:?} is no GROUP/VERSION=true|false, nor api/all, api/ga, api/beta or api/alpha")]
    Malformed(String),
    #[error("no built-in resource is of the version {0}")]
    Unknown(String),
    #[error("{version} needs the feature gate {gate}, which Knarr does not have yet")]
    Gated { version: String, gate: &'static str },
}

fn gate(resource: &Resource) -> Option<&'static str> {
    let is_of = |(group, plural, _): &&(&str, &str, &str)| *group == resource.group && *plural == resource.plural;
    GATED.iter().find(is_of).map(|(.., gate)| *gate)
}

impl FromStr for RuntimeConfig {
    type Err = BadRuntimeConfig;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut switches = BTreeMap::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let malformed = || BadRuntimeConfig::Malformed(word.to_string());
            let (name, value) = word.split_once('=').unwrap_or((word, "true"));
            let on = value.parse().map_err(|_| malformed())?;
            match name {
                "api/all" | "api/ga" | "api/beta" | "api/alpha" => {}
                _ if name.starts_with("api/") || name.split('/').count() > 2 => return Err(malformed()),
                _ => {
                    let mut known = resource::all_with_previews().iter().filter(|r| r.api_version() == name).peekable();
                    let first = *known.peek().ok_or_else(|| BadRuntimeConfig::Unknown(name.to_string()))?;
                    if let (true, Some(gate)) = (on && known.all(|r| gate(r).is_some()), gate(first)) {
                        return Err(BadRuntimeConfig::Gated { version: name.to_string(), gate });
                    }
                }
            }
            switches.insert(name.to_string(), on);
        }
        Ok(RuntimeConfig(switches))
    }
}

impl RuntimeConfig {
    pub fn serves(&self, resource: &Resource) -> bool {
        let stage = match resource.stage {
            Stage::Ga => "api/ga",
            Stage::Beta => "api/beta",
            Stage::Alpha => "api/alpha",
        };
        let said =
            [resource.api_version().as_str(), stage, "api/all"].iter().find_map(|name| self.0.get(*name).copied());
        gate(resource).is_none() && said.unwrap_or(resource.stage == Stage::Ga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(config: &str) -> Vec<String> {
        let config: RuntimeConfig = config.parse().expect("valid");
        let all = resource::all_with_previews().iter().filter(|r| config.serves(r));
        all.map(|r| format!("{} {}", r.api_version(), r.plural)).collect()
    }

    #[test]
    fn the_narrowest_switch_counts() {
        let ga = served("");
        assert_eq!(ga.len(), resource::all().len());
        let has = |all: &[String], what: &str| all.iter().any(|r| r == what);
        let beta = served("api/beta=true,resource.k8s.io/v1beta1=false,apps/v1=false");
        for (what, want) in [
            ("resource.k8s.io/v1beta2 resourceclaims", true),
            ("resource.k8s.io/v1beta1 resourceclaims", false),
            ("coordination.k8s.io/v1alpha2 leasecandidates", false),
            ("apps/v1 deployments", false),
            ("v1 pods", true),
            ("scheduling.k8s.io/v1beta1 podgroups", false),
        ] {
            assert_eq!(has(&beta, what), want, "{what}");
        }
        assert!(has(&served("api/all"), "internal.apiserver.k8s.io/v1alpha1 storageversions"));
        assert_eq!(served("api/all=false,v1=true").iter().filter(|r| !r.starts_with("v1 ")).count(), 0);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (text, want) in [
            (
                "apps/v1=maybe",
                "\"apps/v1=maybe\" is no GROUP/VERSION=true|false, nor api/all, api/ga, api/beta or api/alpha",
            ),
            (
                "api/legacy=true",
                "\"api/legacy=true\" is no GROUP/VERSION=true|false, nor api/all, api/ga, api/beta or api/alpha",
            ),
            ("apps/v2=true", "no built-in resource is of the version apps/v2"),
            (
                "scheduling.k8s.io/v1beta1",
                "scheduling.k8s.io/v1beta1 needs the feature gate GenericWorkload, which Knarr does not have yet",
            ),
        ] {
            assert_eq!(text.parse::<RuntimeConfig>().expect_err("refused").to_string(), want);
        }
    }
}
