//! CSINode.

use std::collections::HashSet;

use super::csidriver::validate_lower_name;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Drivers", "How many drivers run on the node.").count("spec.drivers"), AGE],
    validate,
    validate_update: |new, old| {
        // A driver stays as it is while it is there; only how much fits on the node changes.
        let bare = |driver: &Value| {
            let mut driver = driver.clone();
            driver.remove(&["allocatable"]);
            driver
        };
        let drivers = new.array_at(&["spec", "drivers"]);
        let was = old.array_at(&["spec", "drivers"]);
        let changed = drivers.iter().any(|d| was.iter().any(|o| o["name"] == d["name"] && bare(o) != bare(d)));
        let error = || Error::invalid(&Path::new("spec.drivers"), &new["spec"]["drivers"], "field is immutable");
        changed.then(error).into_iter().collect()
    },
    unconditional_update: false,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn validate(n: &Value, errors: &mut Errors) {
    let drivers = n.array_at(&["spec", "drivers"]);
    let mut known = HashSet::new();
    for (i, driver) in drivers.iter().enumerate() {
        let at = Path::new("spec.drivers").index(i);
        errors.extend(validate_lower_name(text(driver, &["name"]), &at.child("name")));
        let id = text(driver, &["nodeID"]);
        match id.len() {
            0 => errors.push(Error::required(&at.child("nodeID"), "")),
            257.. => errors.push(Error::invalid(&at.child("nodeID"), id, "must be 256 characters or less")),
            _ => {}
        }
        check_at(driver, &at, &[("allocatable.count", NonNegative)], errors);
        let keys = driver.array_at(&["topologyKeys"]);
        let mut met = HashSet::new();
        for key in keys.iter().filter_map(Value::as_str) {
            if !met.insert(key) {
                errors.push(Error::duplicate(&at, key));
            }
            if key.is_empty() {
                errors.push(Error::required(&at, ""));
            }
            errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&at, key, m)));
        }
        if !known.insert(text(driver, &["name"])) {
            errors.push(Error::duplicate(&at.child("name"), text(driver, &["name"])));
        }
    }
}
