//! StatefulSet.

use super::prelude::*;
use super::{persistentvolumeclaim, pod_spec, templated};
use std::borrow::Cow;
use std::collections::HashSet;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Ready", "Number of the pod with ready state").by(templated::ready),
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
    ],
    defaults,
    prepare_create: |sts| new_object(sts, json!({"replicas": 0, "availableReplicas": 0})),
    prepare_update: keep_status_count_spec,
    rules: RULES,
    validate,
    validate_create: |sts| {
        let mut errors = Errors::new();
        check(sts, &[("spec.serviceName", Name(names::dns1123_label))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        check_immutable(new, old, FIXED, &mut errors);
        errors
    },
    validate_status_update: |new, old| {
        const COUNTS: &[&str] = &[
            "replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas",
            "observedGeneration", "collisionCount",
        ];
        let bounded = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        templated::validate_counts(new, old, COUNTS, &bounded, "status.readyReplicas")
    },
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    name_rule: names::dns1123_label,
    ..Kind::PLAIN
};

fn defaults(sts: &mut Value) {
    pod_spec::template_defaults(sts, &["spec", "template"]);
    let spec = sts.slot(&["spec"]);
    fill::text(spec, "podManagementPolicy", "OrderedReady");
    let typed = !text(spec, &["updateStrategy", "type"]).is_empty();
    fill::text(spec.slot(&["updateStrategy"]), "type", "RollingUpdate");
    // Compat: whoever writes the type out gets no numbers along.
    let numbers = !typed || !spec["updateStrategy"]["rollingUpdate"].is_null();
    if numbers && spec.str_at(&["updateStrategy", "type"]) == Some("RollingUpdate") {
        spec.set_default(&["updateStrategy", "rollingUpdate", "partition"], 0);
        spec.set_default(&["updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
    }
    for when in ["whenDeleted", "whenScaled"] {
        fill::text(spec.slot(&["persistentVolumeClaimRetentionPolicy"]), when, "Retain");
    }
    spec.set_default(&["replicas"], 1);
    spec.set_default(&["revisionHistoryLimit"], 10);
    fill::each(spec, &["volumeClaimTemplates"], templated::claim_template_defaults);
}

const FIXED: &[Rule] = &[
    ("spec.selector", Immutable),
    ("spec.volumeClaimTemplates", Immutable),
    ("spec.serviceName", Immutable),
    ("spec.podManagementPolicy", Immutable),
];

const RULES: &[Rule] = &[
    ("spec.updateStrategy.rollingUpdate.partition", NonNegative),
    ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", RequiredOneOf(&["Retain", "Delete"])),
    ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", RequiredOneOf(&["Retain", "Delete"])),
    ("spec.replicas", NonNegative),
    ("spec.minReadySeconds", NonNegative),
    ("spec.ordinals.start", NonNegative),
];

fn validate(sts: &Value, errors: &mut Errors) {
    let (policy, strategy) = (text(sts, &["spec", "podManagementPolicy"]), &sts["spec"]["updateStrategy"]);
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let at = Path::new("spec.podManagementPolicy");
        errors.push(Error::invalid(&at, policy, "must be 'OrderedReady' or 'Parallel'"));
    }
    if !["RollingUpdate", "OnDelete"].contains(&text(strategy, &["type"])) {
        let at = Path::new("spec.updateStrategy");
        errors.push(Error::invalid(&at, strategy, "must be 'RollingUpdate' or 'OnDelete'"));
    }
    let max_unavailable = &sts["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    if !max_unavailable.is_null() {
        let at = Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable");
        templated::validate_count_or_percent(max_unavailable, &at, errors);
        templated::validate_at_most_all(max_unavailable, &at, errors);
        if templated::is_zero(max_unavailable) {
            errors.push(Error::invalid(&at, max_unavailable, "cannot be 0"));
        }
    }
    let claims = sts.array_at(&["spec", "volumeClaimTemplates"]);
    for (i, claim) in claims.iter().enumerate() {
        let at = Path::new("spec.volumeClaimTemplates").index(i).child("spec");
        persistentvolumeclaim::validate_spec(claim, &at, errors);
    }
    templated::validate(&with_claims(sts), "statefulset", errors);
}

/// The set as its pods will be: the claims that are made for each are volumes, in place of the template's of these names.
fn with_claims(sts: &Value) -> Cow<'_, Value> {
    let claims = sts.array_at(&["spec", "volumeClaimTemplates"]);
    if claims.is_empty() {
        return Cow::Borrowed(sts);
    }
    let mut known = HashSet::new();
    let names = claims.iter().map(|claim| text(claim, &["metadata", "name"])).filter(|name| known.insert(*name));
    let volume = |name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let mut volumes: Vec<Value> = names.map(volume).collect();
    const VOLUMES: [&str; 4] = ["spec", "template", "spec", "volumes"];
    let own = sts.array_at(&VOLUMES).iter().filter(|own| !known.contains(text(own, &["name"])));
    volumes.extend(own.cloned());
    let mut whole = sts.clone();
    whole.set(&VOLUMES, volumes);
    Cow::Owned(whole)
}
