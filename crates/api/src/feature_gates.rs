//! Feature gates, as `--feature-gates` sets them: `NAME=true,NAME=false`.
//!
//! Knarr does what upstream does by default, and has what stands behind the gates in `OPTIONAL`. Any other gate may be set
//! to what it is anyhow, so that the flags of an upstream cluster can be taken over; set otherwise it is refused, for nothing
//! would follow from it.

use std::collections::BTreeSet;
use std::str::FromStr;

/// `NAME STAGE true|false` a line.
const GATES: &str = include_str!("data/feature_gates.txt");

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadGate {
    #[error("{0:?} is no NAME=true|false")]
    Malformed(String),
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("feature gate {0} is off in Knarr and cannot be turned on yet")]
    Off(String),
    #[error("feature gate {0} is on in Knarr and cannot be turned off")]
    On(String),
    #[error("feature gate {gate} needs {needed}, which is off: --feature-gates={needed}=true,{gate}=true")]
    Needs { gate: &'static str, needed: &'static str },
}

/// Name, stage (`ALPHA`, `BETA`) and setting by default of every gate.
fn all() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    GATES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let (stage, on) = rest.split_once(' ')?;
        Some((name, stage, on == "true"))
    })
}

/// The gate's setting by default; `None` for a gate that is not known.
pub fn default_of(name: &str) -> Option<bool> {
    all().find(|(gate, ..)| *gate == name).map(|(.., on)| on)
}

/// Gates that are off and can be turned on, and the gate that has to be on too.
const OPTIONAL: [(&str, Option<&str>); 17] = [
    ("AtomicWriteVolumeUserFields", None),
    ("CompositePodGroup", Some("GenericWorkload")),
    ("ContainerStopSignals", None),
    ("DRADeviceCompatibilityGroups", None),
    ("DRAListTypeAttributes", None),
    ("DRAOptionalNodeOperations", None),
    ("DRAPartitionableDevicesType", Some("DRAResourcePoolStatus")),
    ("DRAResourcePoolStatus", None),
    ("EmptyDirVolumeMode", None),
    ("EvictionRequestAPI", None),
    ("GRPCContainerProbeTLS", None),
    ("GenericWorkload", None),
    ("H2CContainerProbe", None),
    ("InPlacePodVerticalScalingSchedulerPreemption", None),
    ("PodGroupPreemptionPolicy", Some("GenericWorkload")),
    ("TopologyAwareWorkloadScheduling", Some("GenericWorkload")),
    ("VolumeBindMountOptions", None),
];

/// The gates that are on beside those that always are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeSet<&'static str>);

impl FeatureGates {
    pub fn is_on(&self, name: &str) -> bool {
        self.0.contains(name) || default_of(name) == Some(true)
    }

    /// Name, stage and setting of every gate.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        all().map(|(name, stage, on)| (name, stage, on || self.0.contains(name)))
    }

    /// Those that were turned on.
    pub fn turned_on(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

impl FromStr for FeatureGates {
    type Err = BadGate;

    fn from_str(text: &str) -> Result<Self, BadGate> {
        let mut gates = FeatureGates::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let malformed = || BadGate::Malformed(word.to_string());
            let (name, value) = word.split_once('=').ok_or_else(malformed)?;
            let name = name.strip_prefix("kube:").unwrap_or(name);
            let wanted: bool = value.parse().map_err(|_| malformed())?;
            let is = default_of(name).ok_or_else(|| BadGate::Unknown(name.to_string()))?;
            match OPTIONAL.iter().find(|(gate, _)| *gate == name) {
                Some((gate, _)) if wanted => drop(gates.0.insert(*gate)),
                Some((gate, _)) => drop(gates.0.remove(gate)),
                None if is == wanted => {}
                None if is => return Err(BadGate::On(name.to_string())),
                None => return Err(BadGate::Off(name.to_string())),
            }
        }
        for (gate, needed) in OPTIONAL {
            if let Some(needed) = needed.filter(|needed| gates.0.contains(gate) && !gates.0.contains(needed)) {
                return Err(BadGate::Needs { gate, needed });
            }
        }
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_follows_from_is_refused() {
        let on = |gates: &[&'static str]| Ok(FeatureGates(gates.iter().copied().collect()));
        for (text, want) in [
            ("", on(&[])),
            ("WatchList=true, kube:AllAlpha=false", on(&[])),
            ("GenericWorkload=true,DRAResourcePoolStatus=true", on(&["DRAResourcePoolStatus", "GenericWorkload"])),
            ("GenericWorkload=true,GenericWorkload=false", on(&[])),
            ("CompositePodGroup=true", Err(BadGate::Needs { gate: "CompositePodGroup", needed: "GenericWorkload" })),
            ("AllAlpha=true", Err(BadGate::Off("AllAlpha".into()))),
            ("WatchList=false", Err(BadGate::On("WatchList".into()))),
            ("Nonsense=true", Err(BadGate::Unknown("Nonsense".into()))),
            ("WatchList", Err(BadGate::Malformed("WatchList".into()))),
        ] {
            assert_eq!(text.parse(), want, "{text}");
        }
        assert!(all().all(|(_, stage, _)| matches!(stage, "ALPHA" | "BETA")));
        assert_eq!(all().count(), GATES.lines().count() - 1);
    }
}
