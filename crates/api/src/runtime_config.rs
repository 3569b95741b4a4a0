//! Which versions of built-in resources are served, as `--runtime-config` says it: `api/beta=true,apps/v1=false`.
//!
//! Source: the reference of kube-apiserver's flags. Settled versions are served unless they are turned off, others when
//! they are turned on. Invariant: a group and version that nothing is known of is refused, not forgotten.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::feature_gates::FeatureGates;
use crate::resource::{self, Resource, Stage};

/// What is served only with a feature gate, and which: the version is not enough.
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
    #[error("{version} needs the feature gate {gate}, which is off: --feature-gates={gate}=true")]
    Gated { version: String, gate: &'static str },
}

fn gate(resource: &Resource) -> Option<&'static str> {
    let is_of = |(group, plural, _): &&(&str, &str, &str)| *group == resource.group && *plural == resource.plural;
    GATED.iter().find(is_of).map(|(.., gate)| *gate)
}

fn of_version(api_version: &str) -> impl Iterator<Item = &'static Resource> {
    resource::all_with_previews().iter().filter(move |r| r.api_version() == api_version)
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
                _ if of_version(name).next().is_none() => return Err(BadRuntimeConfig::Unknown(name.to_string())),
                _ => {}
            }
            switches.insert(name.to_string(), on);
        }
        Ok(RuntimeConfig(switches))
    }
}

impl RuntimeConfig {
    /// A version that is asked for by its name, and of which nothing is served without a gate that is off.
    pub fn check(&self, gates: &FeatureGates) -> Result<(), BadRuntimeConfig> {
        for (name, _) in self.0.iter().filter(|(_, on)| **on) {
            let mut missing = of_version(name).map(|r| gate(r).filter(|gate| !gates.is_on(gate)));
            if let Some(Some(gate)) = missing.next()
                && missing.all(|gate| gate.is_some())
            {
                return Err(BadRuntimeConfig::Gated { version: name.clone(), gate });
            }
        }
        Ok(())
    }

    pub fn serves(&self, resource: &Resource, gates: &FeatureGates) -> bool {
        let stage = match resource.stage {
            Stage::Ga => "api/ga",
            Stage::Beta => "api/beta",
            Stage::Alpha => "api/alpha",
        };
        let said =
            [resource.api_version().as_str(), stage, "api/all"].iter().find_map(|name| self.0.get(*name).copied());
        gate(resource).is_none_or(|gate| gates.is_on(gate)) && said.unwrap_or(resource.stage == Stage::Ga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(config: &str) -> Vec<String> {
        served_with(config, "")
    }

    fn served_with(config: &str, gates: &str) -> Vec<String> {
        let config: RuntimeConfig = config.parse().expect("valid");
        let gates = gates.parse().expect("valid");
        let all = resource::all_with_previews().iter().filter(|r| config.serves(r, &gates));
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
        let workloads = served_with("scheduling.k8s.io/v1alpha3=true", "GenericWorkload=true");
        assert!(has(&workloads, "scheduling.k8s.io/v1alpha3 podgroups"));
        assert!(!has(&workloads, "scheduling.k8s.io/v1alpha3 compositepodgroups"));
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
        ] {
            assert_eq!(text.parse::<RuntimeConfig>().expect_err("refused").to_string(), want);
        }
        let workloads: RuntimeConfig = "scheduling.k8s.io/v1beta1".parse().expect("valid");
        assert_eq!(
            workloads.check(&FeatureGates::default()).expect_err("refused").to_string(),
            "scheduling.k8s.io/v1beta1 needs the feature gate GenericWorkload, which is off: --feature-gates=GenericWorkload=true"
        );
        assert_eq!(workloads.check(&"GenericWorkload=true".parse().expect("valid")), Ok(()));
    }
}
