//! ResourcePoolStatusRequest.

use super::conditions;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Driver", "The driver to query pools for.").at("spec.driver"),
        Column::text("Total", "Total number of devices across all pools.").by(|r| total(r, "totalDevices")),
        Column::text("Available", "Number of available devices across all pools.").by(|r| total(r, "availableDevices")),
        Column::text("Allocated", "Number of allocated devices across all pools.").by(|r| total(r, "allocatedDevices")),
        Column::text("Unavailable", "Number of unavailable devices across all pools.")
            .by(|r| total(r, "unavailableDevices")),
        Column::text("Errors", "Number of pools with validation errors.").by(|r| match answered(r) {
            Some(pools) => pools.iter().filter(|pool| !pool["validationError"].is_null()).count().to_string().into(),
            None => "-".into(),
        }),
        Column::number("Pools", "Total number of matching pools.").at("status.poolCount"),
        Column::text("Status", "Processing status.").by(|r| {
            let known = ["Complete", "Failed"].into_iter().find(|ty| conditions::holds(r, ty));
            known.unwrap_or("Pending").into()
        }),
        Column::text("Completed", "Time since the observation completed.").by_time(|r, now| match conditions::holding(
            r, "Complete",
        ) {
            Some(complete) => since(complete.str_at(&["lastTransitionTime"]), now).into(),
            None => "<none>".into(),
        }),
    ],
    defaults: |r| fill::at(r, &["spec"], |spec| fill::unset(spec, "limit", 100)),
    prepare_create: |r| drop(r.remove(&["status"])),
    validate_status_update: |new, old| {
        let mut errors = Errors::new();
        if !old["status"].is_null() && old["status"] != new["status"] {
            errors.push(Error::invalid(&Path::new("status"), &new["status"], "field is immutable"));
        }
        errors.extend(conditions::validate(new));
        errors
    },
    declared: &[("", ("resource", "ResourcePoolStatusRequest"))],
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

/// The pools of an answer.
fn answered(request: &Value) -> Option<&[Value]> {
    let is = !request["status"].is_null() && !conditions::holds(request, "Failed");
    is.then(|| request.array_at(&["status", "pools"]))
}

fn total(request: &Value, field: &str) -> Cell {
    match answered(request) {
        Some(pools) => pools.iter().map(|pool| int(pool, &[field])).sum::<i64>().to_string().into(),
        None => "-".into(),
    }
}
