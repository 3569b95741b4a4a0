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
                ("events.k8s.io", "Event") => &event::KIND,
                _ => &PLAIN,
            }
        }
    };
}
mod admissionpolicy;
pub mod columns;
mod fill;
pub mod object_meta;
mod pod_spec;
mod rbac;
mod rules;
mod webhook;
mod workload;

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
    }
    "batch" => {
        CronJob: cronjob,
        Job: job,
    }
    "certificates.k8s.io" => {
        CertificateSigningRequest: certificatesigningrequest,
        ClusterTrustBundle: clustertrustbundle,
    }
    "coordination.k8s.io" => {
        Lease: lease,
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
        ResourceClaim: resourceclaim,
        ResourceClaimTemplate: resourceclaimtemplate,
        ResourceSlice: resourceslice,
    }
    "scheduling.k8s.io" => {
        PriorityClass: priorityclass,
    }
    "storage.k8s.io" => {
        CSIDriver: csidriver,
        CSINode: csinode,
        CSIStorageCapacity: csistoragecapacity,
        StorageClass: storageclass,
        VolumeAttachment: volumeattachment,
        VolumeAttributesClass: volumeattributesclass,
    }
}

pub use columns::{Cell, Column};
pub use object_meta::NameRule;
pub use rules::{Check, Rule};

use meta::field::Errors;
use meta::time::Timestamp;
use meta::{Value, names};

/// The behaviour of one kind. `Kind::PLAIN` is that of a kind without any of its own, custom kinds included.
pub struct Kind {
    /// The columns of `kubectl get`; those of priority 1 only stand in `-o wide`.
    pub columns: &'static [Column],
    /// One cell per column.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    /// Fills in what the client left out. Runs on every decode, so it must not depend on anything but the object.
    pub defaults: fn(&mut Value),
    /// Resets what a creating client may not say (status, generation).
    pub prepare_create: fn(&mut Value),
    /// `(new, old)`: restores what this endpoint may not change, and bumps the generation.
    pub prepare_update: fn(&mut Value, &Value),
    /// `(new, old)`: as `prepare_update`, for the status endpoint.
    pub prepare_status_update: fn(&mut Value, &Value),
    /// The kind's own errors; those of the metadata come from `object_meta`.
    pub validate_create: fn(&Value) -> Errors,
    /// `(new, old)`
    pub validate_update: fn(&Value, &Value) -> Errors,
    /// `(new, old)`
    pub validate_status_update: fn(&Value, &Value) -> Errors,
    /// What an object of this kind may be called.
    pub name_rule: NameRule,
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
        row: columns::name_and_age,
        defaults: |_| {},
        prepare_create: |_| {},
        prepare_update: keep_status,
        prepare_status_update: keep_all_but_status,
        validate_create: |_| Errors::new(),
        validate_update: |_, _| Errors::new(),
        validate_status_update: |_, _| Errors::new(),
        name_rule: names::dns1123_subdomain,
        selectable: |_| Vec::new(),
        selectable_names: &[],
        create_on_update: false,
        orphans: false,
        unconditional_update: true,
    };
}

static PLAIN: Kind = Kind::PLAIN;

/// All errors of an object that is to be created: its metadata's, then its kind's.
pub fn check_create(kind: &Kind, object: &Value, namespaced: bool) -> Errors {
    let mut errors = object_meta::validate_create(object, kind.name_rule, namespaced);
    errors.extend((kind.validate_create)(object));
    errors
}

/// All errors of an object that is to replace `old`: its metadata's, then its kind's.
pub fn check_update(kind: &Kind, new: &Value, old: &Value) -> Errors {
    let mut errors = object_meta::validate_update(new, old);
    errors.extend((kind.validate_update)(new, old));
    errors
}

/// All errors of an object whose status is to replace that of `old`.
pub fn check_status_update(kind: &Kind, new: &Value, old: &Value) -> Errors {
    let mut errors = object_meta::validate_update(new, old);
    errors.extend((kind.validate_status_update)(new, old));
    errors
}

/// Sets one top-level member of `new` to what `old` has there.
pub(crate) fn restore(new: &mut Value, old: &Value, member: &str) {
    match old.get(member) {
        Some(value) => new.set(&[member], value),
        None => {
            new.remove(&[member]);
        }
    }
}

/// An update may not touch the status.
pub(crate) fn keep_status(new: &mut Value, old: &Value) {
    restore(new, old, "status");
}

/// A status update may only touch the status (and metadata other than labels and owners).
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
    for member in ["labels", "ownerReferences"] {
        match old["metadata"].get(member) {
            Some(value) => new.set(&["metadata", member], value),
            None => {
                new.remove(&["metadata", member]);
            }
        }
    }
}

/// A new object of a kind that counts the versions of its spec.
pub(crate) fn first_generation(new: &mut Value) {
    new.set(&["metadata", "generation"], 1);
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

/// Upstream's bound on the data of a ConfigMap or Secret.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

/// Checks a key of a ConfigMap or Secret.
pub(crate) fn validate_key(key: &str, path: &meta::field::Path, errors: &mut Errors) {
    errors.extend(names::config_map_key(key).into_iter().map(|m| meta::field::Error::invalid(path, key, m)));
}
