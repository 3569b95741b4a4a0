//! LeaseCandidate.

use semver::Version;

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("LeaseName", "").at("spec.leaseName"),
        Column::text("BinaryVersion", "").at("spec.binaryVersion"),
        Column::text("EmulationVersion", "").at("spec.emulationVersion"),
        AGE,
    ],
    rules: &[("spec.leaseName", Required("")), ("spec.binaryVersion", Required("")), ("spec.leaseName", Immutable)],
    validate,
    name_rule: names::config_map_key,
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};

const OLDEST: &str = "OldestEmulationVersion";

fn validate(candidate: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &candidate["spec"];
    let mut version = |member: &str| {
        let given = text(spec, &[member]);
        let parsed = Version::parse(given).ok();
        if parsed.is_none() && !given.is_empty() {
            errors.push(Error::invalid(&path.child(member), given, "must be a valid semantic version"));
        }
        parsed
    };
    let (emulation, binary) = (version("emulationVersion"), version("binaryVersion"));
    if let (Some(emulation), Some(binary)) = (&emulation, &binary)
        // What was built from a version does not count.
        && binary.cmp_precedence(emulation).is_lt()
    {
        let shown = text(spec, &["binaryVersion"]);
        let detail = "must be greater than or equal to `emulationVersion`";
        errors.push(Error::invalid(&path.child("binaryVersion"), shown, detail));
    }
    let strategy = text(spec, &["strategy"]);
    // Compat: the member's name stands twice (coordination.k8s.io validation).
    let at = path.child("strategy").child("strategy");
    if strategy.is_empty() {
        errors.push(Error::required(&path.child("strategy"), ""));
    } else if strategy == OLDEST {
        if text(spec, &["emulationVersion"]).is_empty() {
            let detail = format!("must be specified when `strategy` is '{OLDEST}'");
            errors.push(Error::required(&path.child("emulationVersion"), detail));
        }
    } else if !strategy.contains('/') {
        errors.push(Error::not_supported(&at, strategy, &[OLDEST]));
    } else {
        errors.extend(names::qualified_name(strategy).into_iter().map(|why| Error::invalid(&at, strategy, why)));
    }
}
