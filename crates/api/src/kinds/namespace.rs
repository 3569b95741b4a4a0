//! Namespace.

use super::object_meta::bare_finalizer;
use super::prelude::*;
use super::restore;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Status", "The status of the namespace").at("status.phase"), AGE],
    defaults,
    prepare_create: |n| {
        n.set(&["status"], json!({"phase": "Active"}));
        let finalizers = n.array_at(&["spec", "finalizers"]);
        if !finalizers.iter().any(|f| f.as_str() == Some(FINALIZER)) {
            let mut all = finalizers.to_vec();
            all.push(FINALIZER.into());
            n.set(&["spec", "finalizers"], Value::Array(all));
        }
    },
    // Finalizers change by the finalize endpoint only.
    prepare_update: |new, old| {
        restore(new, old, "status");
        restore(new, old, "spec");
    },
    validate_create: |n| {
        let (mut errors, at) = (Errors::new(), Path::new("spec.finalizers"));
        for name in n.array_at(&["spec", "finalizers"]).iter().filter_map(Value::as_str) {
            validate_finalizer(name, &at, &mut errors);
        }
        errors
    },
    name_rule: names::dns1123_label,
    selectable: |n| vec![("status.phase", text(n, &["status", "phase"]).to_string())],
    selectable_names: &["status.phase"],
    ..Kind::PLAIN
};

/// What keeps a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";
/// The label by which every namespace can be selected.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Checks what is to hold a namespace.
pub fn validate_finalizer(name: &str, at: &Path, errors: &mut Errors) {
    errors.extend(names::qualified_name(name).into_iter().map(|m| Error::invalid(at, name, m)));
    errors.extend(bare_finalizer(name, at));
}

fn defaults(n: &mut Value) {
    let name = text(n, &["metadata", "name"]).to_string();
    if !name.is_empty() {
        n.set(&["metadata", "labels", NAME_LABEL], name);
    }
    n.set_default(&["status", "phase"], "Active");
}
