//! DeviceTaintRule.

use super::prelude::*;
use super::{csidriver, devices};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Key", "").at("spec.taint.key"),
        Column::text("Value", "").at("spec.taint.value"),
        Column::text("Effect", "").at("spec.taint.effect"),
        Column::text("TimeAdded", ".spec.taint.timeAdded")
            .by_time(|r, now| since(r.str_at(&["spec", "taint", "timeAdded"]), now).into()),
        AGE,
    ],
    // The taint is as old as the rule.
    prepare_create: |rule| {
        let created = rule["metadata"]["creationTimestamp"].clone();
        rule.set_default(&["spec", "taint", "timeAdded"], created);
        new_object(rule, Value::object());
    },
    prepare_update: |new, old| {
        new.set_default(&["spec", "taint", "timeAdded"], &old["spec"]["taint"]["timeAdded"]);
        keep_status_count_spec(new, old);
    },
    validate,
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(rule: &Value, errors: &mut Errors) {
    let (selector, at) = (&rule["spec"]["deviceSelector"], Path::new("spec.deviceSelector"));
    if let Some(driver) = selector.str_at(&["driver"]) {
        errors.extend(csidriver::validate_lower_name(driver, &at.child("driver")));
    }
    if let Some(pool) = selector.str_at(&["pool"]) {
        devices::validate_pool_name(pool, &at.child("pool"), errors);
    }
    check_at(selector, &at, &[("device", GivenName(names::dns1123_label))], errors);
    let (taint, at) = (&rule["spec"]["taint"], Path::new("spec.taint"));
    check_at(taint, &at, devices::TAINT, errors);
    check_at(taint, &at, &[("effect", devices::EFFECT)], errors);
}
