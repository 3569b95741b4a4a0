//! ResourceSlice.

use std::collections::HashSet;

use super::prelude::*;
use super::{csidriver, devices};

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
    validate_nodes(spec, &at, errors);
    let per_device = spec.bool_at(&["perDeviceNodeSelection"]) == Some(true);
    let all = spec.array_at(&["devices"]);
    let mut known = HashSet::new();
    for (i, device) in all.iter().enumerate() {
        let at = at.child("devices").index(i);
        if !known.insert(text(device, &["name"])) {
            errors.push(Error::duplicate(&at, &device["name"]));
        }
        devices::validate_device(device, &at, errors);
        match (per_device, NODES[..3].iter().any(|field| !device[*field].is_null())) {
            (false, true) => {
                let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is \
                              set to true in the ResourceSlice spec";
                errors.push(Error::invalid(&at, Value::Null, detail));
            }
            (true, false) => {
                let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                              `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
                errors.push(Error::required(&at, detail));
            }
            _ => {}
        }
    }
}

const NODES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

/// Checks how the slice says at which nodes its devices are.
fn validate_nodes(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut given = Vec::new();
    for field in NODES {
        let (value, at) = (&spec[field], path.child(field));
        match value {
            Value::Null => continue,
            Value::String(name) if name.is_empty() => {
                errors.push(Error::invalid(&at, "", "must be either unset or set to a non-empty string"));
            }
            Value::Bool(false) => errors.push(Error::invalid(&at, false, "must be either unset or set to true")),
            Value::String(name) => {
                errors.extend(names::dns1123_subdomain(name).into_iter().map(|m| Error::invalid(&at, value, m)));
                given.push(format!("`{field}`"));
            }
            _ => given.push(format!("`{field}`")),
        }
    }
    let all = NODES.map(|field| format!("`{field}`")).join(", ");
    match given.len() {
        0 => errors.push(Error::required(path, format!("exactly one of {all} is required"))),
        1 => {}
        _ => {
            let detail = format!("exactly one of {all} is required, but multiple fields are set");
            errors.push(Error::invalid(path, format!("{{{}}}", given.join(", ")), detail));
        }
    }
}
