//! Feature gates, as `--feature-gates` sets them: `NAME=true,NAME=false`.
//!
//! Knarr does what upstream does by default. A gate may be set to what it is anyhow, so that the flags of an upstream
//! cluster can be taken over; set otherwise it is refused, for nothing would follow from it.

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
}

/// Name, stage (`ALPHA`, `BETA`) and setting by default of every gate.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
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

/// Settings of gates that Knarr is as they ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(());

impl FromStr for FeatureGates {
    type Err = BadGate;

    fn from_str(text: &str) -> Result<Self, BadGate> {
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let malformed = || BadGate::Malformed(word.to_string());
            let (name, value) = word.split_once('=').ok_or_else(malformed)?;
            let name = name.strip_prefix("kube:").unwrap_or(name);
            let wanted: bool = value.parse().map_err(|_| malformed())?;
            match default_of(name).ok_or_else(|| BadGate::Unknown(name.to_string()))? {
                is if is == wanted => {}
                true => return Err(BadGate::On(name.to_string())),
                false => return Err(BadGate::Off(name.to_string())),
            }
        }
        Ok(FeatureGates(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_so_anyhow_is_taken() {
        for (text, want) in [
            ("", Ok(FeatureGates(()))),
            ("WatchList=true, kube:AllAlpha=false", Ok(FeatureGates(()))),
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
