//! What a schema can't say about a built-in kind: columns, defaults, what create and update reset, validation.
//!
//! One file per kind, named after it in lower case, holding one `Kind`; and one line in `of` below. Everything is a
//! plain function over documents. Invariant: nothing here does I/O or reads the clock; defaults are idempotent.

/// Writes the modules of the kinds, and `of`.
macro_rules! kinds {
    ($($group:literal => { $($kind:ident: $module:ident,)* })*) => {
        $($(pub mod $module;)*)*

        /// The behaviour of a kind; every kind has one, custom kinds the plain one.
        pub fn of(group: &str, kind: &str) -> &'static Kind {
            match (group, kind) {
                $($(($group, stringify!($kind)) => &$module::KIND,)*)*
                // One kind, two groups.
                ("events.k8s.io", "Event") => &event::NEW,
                _ => &PLAIN,
            }
        }
    };
}
mod admissionpolicy;
pub mod columns;
pub mod conditions;
mod devices;
mod fill;
pub mod object_meta;
mod pod_spec;
mod rbac;
mod rules;
mod templated;
mod warnings;
mod webhook;

kinds! {
    "" => {
        ComponentStatus: componentstatus,
        ConfigMap: configmap,
        Endpoints: endpoints,
        Event: event,
        LimitRange: limitrange,
        Namespace: namespace,
        Node: node,
        PersistentVolume: persistentvolume,
        PersistentVolumeClaim: persistentvolumeclaim,
        Pod: pod,
        PodTemplate: podtemplate,
        ReplicationController: replicationcontroller,
        ResourceQuota: resourcequota,
        Secret: secret,
        Service: service,
        ServiceAccount: serviceaccount,
    }
    "admissionregistration.k8s.io" => {
        MutatingAdmissionPolicy: mutatingadmissionpolicy,
        MutatingAdmissionPolicyBinding: mutatingadmissionpolicybinding,
        MutatingWebhookConfiguration: mutatingwebhookconfiguration,
        ValidatingAdmissionPolicy: validatingadmissionpolicy,
        ValidatingAdmissionPolicyBinding: validatingadmissionpolicybinding,
        ValidatingWebhookConfiguration: validatingwebhookconfiguration,
    }
    "apiextensions.k8s.io" => {
        CustomResourceDefinition: customresourcedefinition,
    }
    "apiregistration.k8s.io" => {
        APIService: apiservice,
    }
    "apps" => {
        ControllerRevision: controllerrevision,
        DaemonSet: daemonset,
        Deployment: deployment,
        ReplicaSet: replicaset,
        StatefulSet: statefulset,
    }
    "autoscaling" => {
        HorizontalPodAutoscaler: horizontalpodautoscaler,
        Scale: scale,
    }
    "batch" => {
        CronJob: cronjob,
        Job: job,
    }
    "certificates.k8s.io" => {
        CertificateSigningRequest: certificatesigningrequest,
        ClusterTrustBundle: clustertrustbundle,
        PodCertificateRequest: podcertificaterequest,
    }
    "coordination.k8s.io" => {
        Lease: lease,
        LeaseCandidate: leasecandidate,
    }
    "discovery.k8s.io" => {
        EndpointSlice: endpointslice,
    }
    "flowcontrol.apiserver.k8s.io" => {
        FlowSchema: flowschema,
        PriorityLevelConfiguration: prioritylevelconfiguration,
    }
    "internal.apiserver.k8s.io" => {
        StorageVersion: storageversion,
    }
    "lifecycle.k8s.io" => {
        Eviction: eviction,
        EvictionRequest: evictionrequest,
    }
    "networking.k8s.io" => {
        IPAddress: ipaddress,
        Ingress: ingress,
        IngressClass: ingressclass,
        NetworkPolicy: networkpolicy,
        ServiceCIDR: servicecidr,
    }
    "node.k8s.io" => {
        RuntimeClass: runtimeclass,
    }
    "policy" => {
        PodDisruptionBudget: poddisruptionbudget,
    }
    "rbac.authorization.k8s.io" => {
        ClusterRole: clusterrole,
        ClusterRoleBinding: clusterrolebinding,
        Role: role,
        RoleBinding: rolebinding,
    }
    "resource.k8s.io" => {
        DeviceClass: deviceclass,
        DeviceTaintRule: devicetaintrule,
        ResourceClaim: resourceclaim,
        ResourceClaimTemplate: resourceclaimtemplate,
        ResourcePoolStatusRequest: resourcepoolstatusrequest,
        ResourceSlice: resourceslice,
    }
    "scheduling.k8s.io" => {
        CompositePodGroup: compositepodgroup,
        PodGroup: podgroup,
        PriorityClass: priorityclass,
        Workload: workload,
    }
    "storage.k8s.io" => {
        CSIDriver: csidriver,
        CSINode: csinode,
        CSIStorageCapacity: csistoragecapacity,
        StorageClass: storageclass,
        VolumeAttachment: volumeattachment,
        VolumeAttributesClass: volumeattributesclass,
    }
    "storagemigration.k8s.io" => {
        StorageVersionMigration: storageversionmigration,
    }
}

/// What nearly every kind's file is written with.
mod prelude {
    pub(super) use super::columns::{AGE, Cell, Column, NAME, int, joined, labels, name, selector, since, text};
    pub(super) use super::rules::Check::*;
    pub(super) use super::rules::{Rule, check, check_at, check_immutable};
    pub(super) use super::{
        Kind, OWN_METADATA, count_change, fill, first_generation, keep_status, keep_status_count_spec, new_object,
    };
    pub(super) use meta::field::{Error, Errors, Path};
    pub(super) use meta::time::Timestamp;
    pub(super) use meta::{Value, json, names};
}

use columns::text;
pub use columns::{Cell, Column};
pub use object_meta::NameRule;
pub use rules::{Check, Rule};
pub use warnings::warnings;

use crate::declared::{self, TypeName};
use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

/// The behaviour of one kind. `Kind::PLAIN` is that of a kind without any of its own, custom kinds included.
pub struct Kind {
    /// The columns of `kubectl get`; those of priority 1 only stand in `-o wide`.
    pub columns: &'static [Column],
    /// One cell per column, of a kind whose columns do not say themselves what they show.
    pub row: Option<fn(&Value, Timestamp) -> Vec<Cell>>,
    /// Fills in what the client left out. Runs on every decode, so it must not depend on anything but the object.
    pub defaults: fn(&mut Value),
    /// Resets what a creating client may not say (status, generation).
    pub prepare_create: fn(&mut Value),
    /// `(new, old)`: restores what this endpoint may not change, and bumps the generation.
    pub prepare_update: fn(&mut Value, &Value),
    /// `(new, old)`: as `prepare_update`, for the status endpoint.
    pub prepare_status_update: fn(&mut Value, &Value),
    /// Members of `metadata` that a write of the status leaves as they are.
    pub status_restores: &'static [&'static str],
    /// What every object of the kind must hold to, at creation and at each update; `Immutable` at updates only.
    pub rules: &'static [Rule],
    /// What rules can't say about every object of the kind. Errors of the metadata come from `object_meta`.
    pub validate: fn(&Value, &mut Errors),
    /// The types whose declared validation the kind has, after all others, and the dotted paths where they stand; none
    /// for the kinds that have it as code.
    pub declared: &'static [(&'static str, TypeName)],
    /// More errors, at creation only.
    pub validate_create: fn(&Value) -> Errors,
    /// More errors at updates: `(new, old)`
    pub validate_update: fn(&Value, &Value) -> Errors,
    /// What may not change is told before what no object may have.
    pub fixed_first: bool,
    /// `(new, old)`
    pub validate_status_update: fn(&Value, &Value) -> Errors,
    /// What an object of this kind may be called.
    pub name_rule: NameRule,
    /// Instead of that rule the type declares one, a long name, which is told with what else it declares.
    pub declares_name: bool,
    /// Values of the field selectors that the kind knows beside `metadata.name` and `metadata.namespace`.
    pub selectable: fn(&Value) -> Vec<(&'static str, String)>,
    /// Their names.
    pub selectable_names: &'static [&'static str],
    /// PUT of an absent object creates it.
    pub create_on_update: bool,
    /// A deletion that does not say otherwise leaves the dependents alone.
    pub orphans: bool,
    /// PUT without a resourceVersion is allowed.
    pub unconditional_update: bool,
}

impl Kind {
    pub const PLAIN: Kind = Kind {
        columns: columns::NAME_AND_AGE,
        row: None,
        defaults: |_| {},
        prepare_create: |_| {},
        prepare_update: keep_status,
        prepare_status_update: keep_all_but_status,
        status_restores: &[],
        rules: &[],
        validate: |_, _| {},
        declared: &[],
        validate_create: |_| Errors::new(),
        validate_update: |_, _| Errors::new(),
        fixed_first: false,
        validate_status_update: |_, _| Errors::new(),
        name_rule: names::dns1123_subdomain,
        declares_name: false,
        selectable: |_| Vec::new(),
        selectable_names: &[],
        create_on_update: false,
        orphans: false,
        unconditional_update: true,
    };

    /// Restores what the status endpoint may not change.
    pub fn prepare_status(&self, new: &mut Value, old: &Value) {
        (self.prepare_status_update)(new, old);
        for member in self.status_restores {
            restore_at(new, old, &["metadata", member]);
        }
    }

    /// The object's line in a table: one cell per column.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Cell> {
        match self.row {
            Some(row) => row(object, now),
            None => self.columns.iter().map(|c| c.cell(object, now)).collect(),
        }
    }
}

static PLAIN: Kind = Kind::PLAIN;

/// All errors of an object that is to be created: its metadata's, then its kind's.
pub fn check_create(kind: &Kind, object: &Value, namespaced: bool) -> Errors {
    let name_rule = if kind.declares_name { |_: &str| vec![] } else { kind.name_rule };
    let mut errors = object_meta::validate_create(object, name_rule, namespaced);
    rules::check(object, kind.rules, &mut errors);
    (kind.validate)(object, &mut errors);
    errors.extend((kind.validate_create)(object));
    check_declared(kind, object, None, &mut errors);
    if text(object, &["metadata", "name"]).is_empty() && !kind.declares_name {
        // Compat: that it has no name says it all.
        let mut said = false;
        errors.retain(|error| error.field != "metadata.name" || !std::mem::replace(&mut said, true));
    }
    errors
}

/// All errors of an object that is to replace `old`: its metadata's, then its kind's.
pub fn check_update(kind: &Kind, new: &Value, old: &Value) -> Errors {
    let mut errors = object_meta::validate_update(new, old);
    let mut changes = Errors::new();
    rules::check_immutable(new, old, kind.rules, &mut changes);
    changes.extend((kind.validate_update)(new, old));
    let (before, after) = if kind.fixed_first { (changes, None) } else { (Errors::new(), Some(changes)) };
    errors.extend(before);
    rules::check(new, kind.rules, &mut errors);
    (kind.validate)(new, &mut errors);
    errors.extend(after.into_iter().flatten());
    check_declared(kind, new, Some(old), &mut errors);
    errors
}

/// All errors of an object whose status is to replace that of `old`.
pub fn check_status_update(kind: &Kind, new: &Value, old: &Value) -> Errors {
    let mut errors = object_meta::validate_update(new, old);
    errors.extend((kind.validate_status_update)(new, old));
    check_declared(kind, new, Some(old), &mut errors);
    errors
}

fn check_declared(kind: &Kind, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if kind.declares_name && old.is_none() {
        let name = text(new, &["metadata", "name"]);
        let faults = declared::long_name(name).into_iter();
        errors.extend(faults.map(|fault| Error::invalid(&Path::new("metadata.name"), name, fault)));
    }
    for (path, ty) in kind.declared {
        let find = |object| if path.is_empty() { object } else { rules::at(object, path) };
        declared::check(*ty, &Path::new(path), find(new), old.map(find), errors);
    }
}

/// Sets one top-level member of `new` to what `old` has there.
pub(crate) fn restore(new: &mut Value, old: &Value, member: &str) {
    restore_at(new, old, &[member]);
}

fn restore_at(new: &mut Value, old: &Value, path: &[&str]) {
    match old.at(path) {
        // Mostly the client sends back what it read.
        Some(value) if new.at(path) == Some(value) => {}
        Some(value) => new.set(path, value),
        None => drop(new.remove(path)),
    }
}

/// An update may not touch the status.
pub(crate) fn keep_status(new: &mut Value, old: &Value) {
    restore(new, old, "status");
}

/// What clients write of an object's metadata.
pub const OWN_METADATA: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// A status update may only touch the status, and metadata.
pub(crate) fn keep_all_but_status(new: &mut Value, old: &Value) {
    let Value::Object(members) = &old else { return };
    let others: Vec<&str> =
        members.keys().filter(|k| !matches!(*k, "status" | "metadata" | "apiVersion" | "kind")).collect();
    for member in others {
        restore(new, old, member);
    }
    if let Value::Object(m) = new {
        m.retain(|k, _| matches!(k, "status" | "metadata" | "apiVersion" | "kind") || members.contains_key(k));
    }
}

/// A new object of a kind that counts the versions of its spec.
pub(crate) fn first_generation(new: &mut Value) {
    new.set(&["metadata", "generation"], 1);
}

/// A new object with its first status, of a kind that counts the versions of its spec.
pub(crate) fn new_object(new: &mut Value, status: Value) {
    new.set(&["status"], status);
    first_generation(new);
}

/// As `keep_status`, counting a change of the spec.
pub(crate) fn keep_status_count_spec(new: &mut Value, old: &Value) {
    keep_status(new, old);
    count_change(new, old, &["spec"]);
}

/// Bumps the generation when one of these members changed.
pub(crate) fn count_change(new: &mut Value, old: &Value, members: &[&str]) {
    let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
    let changed = members.iter().any(|m| new[*m] != old[*m]);
    if changed || generation > 0 {
        new.set(&["metadata", "generation"], generation + i64::from(changed));
    } else {
        new.remove(&["metadata", "generation"]);
    }
}

/// What an `immutable` ConfigMap or Secret may not change.
pub(crate) fn validate_frozen(new: &Value, old: &Value, members: &[&str]) -> Errors {
    let frozen = old.bool_at(&["immutable"]) == Some(true);
    let changed = members.iter().filter(|m| frozen && new[**m] != old[**m]);
    let detail = "field is immutable when `immutable` is set";
    changed.map(|m| meta::field::Error::forbidden(&meta::field::Path::new(m), detail)).collect()
}

/// Upstream's bound on the data of a ConfigMap or Secret.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

/// Checks a key of a ConfigMap or Secret.
pub(crate) fn validate_key(key: &str, path: &meta::field::Path, errors: &mut Errors) {
    errors.extend(names::config_map_key(key).into_iter().map(|m| meta::field::Error::invalid(path, key, m)));
}
