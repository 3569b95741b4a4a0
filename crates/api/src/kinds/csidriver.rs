//! CSIDriver.

use std::collections::HashSet;

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::flag("AttachRequired", "").at("spec.attachRequired"),
        Column::flag("PodInfoOnMount", "").at("spec.podInfoOnMount"),
        Column::flag("StorageCapacity", "").at("spec.storageCapacity"),
        Column::text("TokenRequests", ".spec.tokenRequests").by(|d| {
            let requests = d.array_at(&["spec", "tokenRequests"]).iter();
            joined(&requests.map(|r| text(r, &["audience"])).collect::<Vec<_>>().into(), "<unset>")
        }),
        Column::flag("RequiresRepublish", "").at("spec.requiresRepublish"),
        Column::text("Modes", ".spec.volumeLifecycleModes")
            .by(|d| joined(&d["spec"]["volumeLifecycleModes"], "<none>")),
        AGE,
    ],
    defaults: |d| {
        let spec = d.slot(&["spec"]);
        spec.set_default(&["attachRequired"], true);
        for field in
            ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"]
        {
            spec.set_default(&[field], false);
        }
        fill::unset(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.array_at(&["volumeLifecycleModes"]).is_empty() {
            spec.set(&["volumeLifecycleModes"], vec!["Persistent"]);
        }
    },
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[("spec.fsGroupPolicy", GivenOneOf(&["File", "None", "ReadWriteOnceWithFSType"]))],
    validate,
    validate_update: |new, old| {
        let changed = |field: &str| new["spec"][field] != old["spec"][field];
        let fixed = [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")];
        let fixed = fixed.into_iter().filter(|(field, _)| changed(field));
        let at = |named: &str| Path::new("spec").child(named);
        fixed.map(|(field, named)| Error::invalid(&at(named), &new["spec"][field], "field is immutable")).collect()
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

/// What is wrong with the name of a driver, where upstream takes every letter for its lower case.
pub(super) fn validate_lower_name(name: &str, at: &Path) -> Errors {
    validate_name_as(name, at, "bytes", |name| names::dns1123_subdomain(&name.to_lowercase()))
}

pub(super) fn validate_name_as(name: &str, at: &Path, unit: &str, rule: fn(&str) -> Vec<String>) -> Errors {
    if name.is_empty() {
        return vec![Error::required(at, "")];
    }
    let long = (name.len() > 63).then(|| Error::too_long(at, 63).with_unit(unit));
    let wrong = rule(name).into_iter().map(|m| Error::invalid(at, name, m));
    long.into_iter().chain(wrong).collect()
}

fn validate(d: &Value, errors: &mut Errors) {
    let modes = d.array_at(&["spec", "volumeLifecycleModes"]);
    for mode in modes.iter().filter(|m| !MODES.contains(&m.as_str().unwrap_or_default())) {
        errors.push(Error::not_supported(&Path::new("spec.volumeLifecycleModes"), mode, MODES));
    }
    let requests = d.array_at(&["spec", "tokenRequests"]);
    let mut known = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let at = Path::new("spec.tokenRequests").index(i);
        if !known.insert(text(request, &["audience"])) {
            errors.push(Error::duplicate(&at.child("audience"), text(request, &["audience"])));
        }
        let Some(seconds) = request.int_at(&["expirationSeconds"]) else { continue };
        let detail = match seconds {
            ..600 => "may not specify a duration less than 10 minutes",
            4_294_967_297.. => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(Error::invalid(&at.child("expirationSeconds"), seconds, detail));
    }
    if let Some(n) = d.int_at(&["spec", "nodeAllocatableUpdatePeriodSeconds"]).filter(|n| *n < 10) {
        let at = Path::new("spec.nodeAllocatableUpdatePeriodSeconds");
        errors.push(Error::invalid(&at, n, "must be greater than or equal to 10 seconds"));
    }
    if d.bool_at(&["spec", "serviceAccountTokenInSecrets"]) == Some(true) && requests.is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(Error::invalid(&Path::new("spec.serviceAccountTokenInSecrets"), true, detail));
    }
}

const MODES: &[&str] = &["Persistent", "Ephemeral"];
