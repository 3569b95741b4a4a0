//! ResourceSlice.

use std::collections::HashSet;

use super::csidriver;
use super::devices::{self, bounded};
use super::pod_spec;
use super::prelude::*;

mod device;

pub(super) use device::validate_conditions;

const NODES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Node", "").at("spec.nodeName"),
        Column::text("Driver", "").at("spec.driver"),
        Column::text("Pool", "").at("spec.pool.name"),
        AGE,
    ],
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        let fixed = [("spec.pool.name", Immutable), ("spec.driver", Immutable), ("spec.nodeName", Immutable)];
        check_immutable(new, old, &fixed, &mut errors);
        errors
    },
    fixed_first: true,
    selectable: |s| {
        vec![
            ("spec.nodeName", text(s, &["spec", "nodeName"]).to_string()),
            ("spec.driver", text(s, &["spec", "driver"]).to_string()),
            ("spec.pool.name", text(s, &["spec", "pool", "name"]).to_string()),
        ]
    },
    selectable_names: &["spec.nodeName", "spec.driver", "spec.pool.name"],
    ..Kind::PLAIN
};

fn validate(s: &Value, errors: &mut Errors) {
    let (spec, at) = (&s["spec"], Path::new("spec"));
    errors.extend(csidriver::validate_lower_name(text(spec, &["driver"]), &at.child("driver")));
    devices::validate_pool_name(text(spec, &["pool", "name"]), &at.child("pool").child("name"), errors);
    let (count, generation) = (int(spec, &["pool", "resourceSliceCount"]), int(spec, &["pool", "generation"]));
    if count <= 0 {
        let at = at.child("pool").child("resourceSliceCount");
        errors.push(Error::invalid(&at, count, "must be greater than zero"));
    }
    if generation < 0 {
        let at = at.child("pool").child("generation");
        errors.push(Error::invalid(&at, generation, "must be greater than or equal to zero"));
    }
    let one = format!("exactly one of {} is required", NODES.map(|field| format!("`{field}`")).join(", "));
    let several = format!("{one}, but multiple fields are set");
    let empty = "must be either unset or set to a non-empty string";
    validate_nodes(spec, &at, &NODES, empty, [&one, &several], errors);
    let terms = spec.array_at(&["nodeSelector", "nodeSelectorTerms"]);
    if !spec["nodeSelector"].is_null() && terms.len() != 1 {
        let at = at.child("nodeSelector").child("nodeSelectorTerms");
        errors.push(Error::invalid(&at, terms.to_vec(), "must have exactly one node selector term"));
    }
    let mut late = Errors::new();
    validate_contents(spec, &at, errors, &mut late);
    validate_partitions(spec, &at, errors, &mut late);
    devices::validate_skipped(spec, &at, errors, &mut late);
    errors.extend(late);
}

/// The attribute that says of which type a device is that shares counters.
fn validate_partitions(spec: &Value, path: &Path, errors: &mut Errors, late: &mut Errors) {
    let Some(name) = spec.str_at(&["partitionTypeAttribute"]) else { return };
    let (at, driver) = (path.child("partitionTypeAttribute"), text(spec, &["driver"]));
    // An attribute without a domain is of the driver's.
    let short = name.split_once('/').filter(|(domain, _)| *domain == driver).map(|(_, short)| short);
    let sharing = spec.array_at(&["devices"]).iter().enumerate();
    let sharing: Vec<_> = sharing.filter(|(_, d)| !d.array_at(&["consumesCounters"]).is_empty()).collect();
    if sharing.is_empty() {
        errors.push(Error::invalid(
            &at,
            name,
            "may only be set on a slice which declares devices that consume counters",
        ));
    }
    for (i, device) in sharing {
        let at = path.child("devices").index(i).child("attributes").key(name);
        let attributes = &device["attributes"];
        let found = [Some(name), short].into_iter().flatten().map(|name| &attributes[name]).find(|a| !a.is_null());
        match found {
            None => {
                let detail =
                    "device consumes counters and `partitionTypeAttribute` names this attribute, so it must be set";
                errors.push(Error::required(&at, detail));
            }
            Some(attribute) if attribute["string"].is_null() => {
                let detail = "must be a string value because `partitionTypeAttribute` names this attribute";
                errors.push(Error::invalid_raw(&at, &device::in_go(attribute), detail));
            }
            Some(_) => {}
        }
    }
    devices::validate_attribute_name(name, &at, true, late);
}

const COUNTER_SETS_MAX: usize = 8;
const DEVICES_MAX: usize = 128;
/// The bound where devices have taints or share counters.
const COMPLEX_DEVICES_MAX: usize = 64;

/// Checks the devices, or the counters that those of other slices share.
fn validate_contents(spec: &Value, path: &Path, errors: &mut Errors, late: &mut Errors) {
    let (all, sets) = (spec.array_at(&["devices"]), &spec["sharedCounters"]);
    if !all.is_empty() && !spec.array_at(&["sharedCounters"]).is_empty() {
        errors.push(Error::invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let per_device = spec.bool_at(&["perDeviceNodeSelection"]) == Some(true);
    let is_complex = |d: &Value| ["taints", "consumesCounters"].iter().any(|list| !d.array_at(&[list]).is_empty());
    let max = if all.iter().any(is_complex) { COMPLEX_DEVICES_MAX } else { DEVICES_MAX };
    let at = path.child("devices");
    let listed = bounded(&spec["devices"], &at, max, errors);
    for (i, device) in listed.iter().enumerate() {
        let (at, name) = (at.index(i), text(device, &["name"]));
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
        device::validate(device, &at, per_device, errors, late);
    }
    let mut known = HashSet::new();
    for (i, name) in listed.iter().map(|device| text(device, &["name"])).enumerate() {
        if !known.insert(name) {
            errors.push(Error::duplicate(&at.index(i), name));
        }
    }
    let at = path.child("sharedCounters");
    let sets = bounded(sets, &at, COUNTER_SETS_MAX, late);
    devices::duplicates(("CounterSet", sets), &at, |set| text(set, &["name"]), late);
    for (i, set) in sets.iter().enumerate() {
        device::validate_counters(set, "name", &at.index(i), late);
    }
}

/// Checks how a slice, or a device of one, says at which nodes devices are: by one of `fields`. The details are those of an
/// empty name, of no field and of several.
fn validate_nodes(
    spec: &Value,
    path: &Path,
    fields: &[&str],
    empty: &str,
    [none, several]: [&str; 2],
    errors: &mut Errors,
) {
    let mut given = Vec::new();
    for field in fields {
        let (value, at) = (&spec[*field], path.child(field));
        match value {
            Value::Null => continue,
            Value::String(name) if name.is_empty() => {
                errors.push(Error::invalid(&at, "", empty));
                continue;
            }
            Value::Bool(false) => {
                errors.push(Error::invalid(&at, false, "must be either unset or set to true"));
                continue;
            }
            Value::String(name) => {
                errors.extend(names::dns1123_subdomain(name).into_iter().map(|m| Error::invalid(&at, value, m)));
            }
            Value::Object(_) => {
                pod_spec::validate_node_selector(value, &at, errors);
            }
            _ => {}
        }
        given.push(format!("`{field}`"));
    }
    match given.len() {
        0 => errors.push(Error::required(path, none)),
        1 => {}
        _ => errors.push(Error::invalid(path, format!("{{{}}}", given.join(", ")), several)),
    }
}
