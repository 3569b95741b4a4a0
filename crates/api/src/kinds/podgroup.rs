//! PodGroup.

use super::conditions;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        POLICY,
        WORKLOAD,
        Column::text("Status", "Status of the PodGroup").by(|group| status(group).into()),
        AGE,
    ],
    defaults,
    prepare_create: |group| group.set(&["status"], Value::object()),
    validate: |group, errors| {
        let spec = &group["spec"];
        if !spec["parentCompositePodGroupName"].is_null() && spec["workloadRef"].is_null() {
            let detail = "must be set when parentCompositePodGroupName is set";
            errors.push(Error::required(&Path::new("spec.workloadRef"), detail));
        }
    },
    validate_status_update,
    declared: &[("", ("scheduling", "PodGroup"))],
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

pub(super) const POLICY: Column =
    Column::text("Policy", ".spec.schedulingPolicy").by(|group| match &group["spec"]["schedulingPolicy"] {
        policy if !policy["gang"].is_null() => "Gang".into(),
        _ => "Basic".into(),
    });
pub(super) const WORKLOAD: Column =
    Column::text("Workload", "Name of the referenced Workload object").or("spec.workloadRef.workloadName", "<none>");

/// Fills in how pods of the group are disrupted.
pub(super) fn defaults(group: &mut Value) {
    fill::at(group, &["spec"], |spec| fill::unset(spec, "disruptionMode", json!({"single": {}})));
}

fn status(group: &Value) -> &str {
    if let Some(disruption) = conditions::holding(group, "DisruptionTarget") {
        return text(disruption, &["reason"]);
    }
    match conditions::find(group, "PodGroupInitiallyScheduled") {
        Some(scheduled) if text(scheduled, &["status"]) == "True" => "Scheduled",
        Some(_) => "Unschedulable",
        None => "Pending",
    }
}

fn validate_status_update(new: &Value, _: &Value) -> Errors {
    let mut errors = conditions::validate(new);
    let claims = new.array_at(&["spec", "resourceClaims"]);
    for (i, status) in new.array_at(&["status", "resourceClaimStatuses"]).iter().enumerate() {
        if !claims.iter().any(|claim| claim["name"] == status["name"]) {
            let at = Path::new("status.resourceClaimStatuses").index(i).child("name");
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&at, &status["name"], detail));
        }
    }
    errors
}
