//! StatefulSet.

use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, int, name};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, first_generation, keep_status_count_spec, pod_spec, workload};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Ready", "Number of the pod with ready state"),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
    ],
    row,
    defaults,
    prepare_create: |sts| {
        sts.set(&["status"], meta::json!({"replicas": 0, "availableReplicas": 0}));
        first_generation(sts);
    },
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update,
    name_rule: names::dns1123_label,
    ..Kind::PLAIN
};

fn row(sts: &Value, now: Timestamp) -> Vec<Cell> {
    let ready = format!("{}/{}", int(sts, &["status", "readyReplicas"]), int(sts, &["spec", "replicas"]));
    let [names, images, _] = workload::wide_cells(sts, &["spec", "template"]);
    vec![name(sts), ready.into(), age(sts, now), names, images]
}

fn defaults(sts: &mut Value) {
    pod_spec::template_defaults(sts, &["spec", "template"]);
    let spec = sts.slot(&["spec"]);
    fill::text(spec, "podManagementPolicy", "OrderedReady");
    fill::text(spec.slot(&["updateStrategy"]), "type", "RollingUpdate");
    if spec.str_at(&["updateStrategy", "type"]) == Some("RollingUpdate") {
        spec.set_default(&["updateStrategy", "rollingUpdate", "partition"], 0);
    }
    for when in ["whenDeleted", "whenScaled"] {
        fill::text(spec.slot(&["persistentVolumeClaimRetentionPolicy"]), when, "Retain");
    }
    spec.set_default(&["replicas"], 1);
    spec.set_default(&["revisionHistoryLimit"], 10);
    fill::each(spec, &["volumeClaimTemplates"], workload::claim_template_defaults);
}

const RULES: &[Rule] = &[
    ("spec.podManagementPolicy", Check::RequiredOneOf(&["OrderedReady", "Parallel"])),
    ("spec.updateStrategy.type", Check::RequiredOneOf(&["OnDelete", "RollingUpdate"])),
    ("spec.updateStrategy.rollingUpdate.partition", Check::NonNegative),
    ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Check::RequiredOneOf(&["Delete", "Retain"])),
    ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", Check::RequiredOneOf(&["Delete", "Retain"])),
    ("spec.replicas", Check::NonNegative),
    ("spec.minReadySeconds", Check::NonNegative),
    ("spec.ordinals.start", Check::NonNegative),
    ("spec.serviceName", Check::Name(names::dns1123_subdomain)),
];

fn validate(sts: &Value) -> Errors {
    let mut errors = Errors::new();
    check(sts, RULES, &mut errors);
    let max_unavailable = &sts["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    if !max_unavailable.is_null() {
        let at = Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable");
        workload::validate_count_or_percent(max_unavailable, &at, &mut errors);
        workload::validate_at_most_all(max_unavailable, &at, &mut errors);
        if workload::is_zero(max_unavailable) {
            errors.push(Error::invalid(&at, max_unavailable, "cannot be 0"));
        }
    }
    workload::validate(sts, "statefulset", &mut errors);
    errors
}

/// The members of the spec that may change.
const MUTABLE: [&str; 8] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revision",
];

fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = validate(new);
    let rest = |sts: &Value| {
        let mut spec = sts["spec"].clone();
        for member in MUTABLE {
            spec.remove(&[member]);
        }
        spec
    };
    if rest(new) != rest(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(Error::forbidden(&Path::new("spec"), detail));
    }
    errors
}
