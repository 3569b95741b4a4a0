//! StorageClass.

use std::collections::HashSet;

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Provisioner", "").at("provisioner"),
        Column::text("ReclaimPolicy", "").at("reclaimPolicy"),
        Column::text("VolumeBindingMode", "").at("volumeBindingMode"),
        Column::flag("AllowVolumeExpansion", "").at("allowVolumeExpansion").said_text(),
        AGE,
    ],
    defaults: |c| {
        fill::unset(c, "reclaimPolicy", "Delete");
        fill::unset(c, "volumeBindingMode", "Immediate");
    },
    validate,
    rules: &[("provisioner", Fixed), ("parameters", Fixed), ("reclaimPolicy", Fixed), ("volumeBindingMode", Fixed)],
    ..Kind::PLAIN
};

fn validate(c: &Value, errors: &mut Errors) {
    // Compat: that it is missing is told last.
    let missing = c["provisioner"].is_empty();
    if !missing {
        validate_provisioner(c, "provisioner", errors);
    }
    validate_parameters(c, true, errors);
    check(c, &[("reclaimPolicy", OneOf(&["Delete", "Retain"]))], errors);
    check(c, &[("volumeBindingMode", AnyOneOf(&["Immediate", "WaitForFirstConsumer"]))], errors);
    validate_topologies(c, errors);
    if missing {
        validate_provisioner(c, "provisioner", errors);
    }
}

/// Checks who makes volumes: a qualified name, which may have capitals.
pub(super) fn validate_provisioner(c: &Value, field: &str, errors: &mut Errors) {
    let (name, at) = (text(c, &[field]).to_lowercase(), Path::new(field));
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        errors.extend(names::qualified_name(&name).into_iter().map(|m| Error::invalid(&at, name.as_str(), m)));
    }
}

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

/// Checks the parameters of a class of volumes or of their attributes.
pub(super) fn validate_parameters(c: &Value, may_be_none: bool, errors: &mut Errors) {
    let at = Path::new("parameters");
    let Some(parameters) = c["parameters"].as_object().filter(|p| !p.is_empty()) else {
        if !may_be_none {
            errors.push(Error::required(&at, "must contain at least one key/value pair"));
        }
        return;
    };
    if parameters.len() > PARAMETERS_MAX {
        return errors.push(Error::too_long(&at, PARAMETERS_MAX));
    }
    let mut bytes = 0;
    for (key, value) in parameters.iter() {
        if key.is_empty() {
            errors.push(Error::invalid(&at, key, "field can not be empty."));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETERS_MAX_BYTES {
        errors.push(Error::too_long(&at, PARAMETERS_MAX_BYTES));
    }
}

fn validate_topologies(c: &Value, errors: &mut Errors) {
    let topologies = c.array_at(&["allowedTopologies"]);
    let mut known = HashSet::new();
    for (i, topology) in topologies.iter().enumerate() {
        let at = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
        let expressions = topology.array_at(&["matchLabelExpressions"]);
        let mut keys = HashSet::new();
        for (j, expression) in expressions.iter().enumerate() {
            let at = at.index(j);
            let values = expression.array_at(&["values"]);
            if values.is_empty() {
                errors.push(Error::required(&at.child("values"), ""));
            }
            let mut met = HashSet::new();
            for (k, value) in values.iter().enumerate().filter(|(_, value)| !met.insert(value.as_str())) {
                errors.push(Error::duplicate(&at.child("values").index(k), value));
            }
            check_at(expression, &at, &[("key", AnyName(names::qualified_name))], errors);
            if !keys.insert(text(expression, &["key"])) {
                errors.push(Error::duplicate(&at.child("key"), text(expression, &["key"])));
            }
        }
        // Compat: upstream takes a term without expressions for one of none that was there before.
        if expressions.is_empty() || !known.insert(topology.to_string()) {
            errors.push(Error::duplicate(&at, ""));
        }
    }
}
