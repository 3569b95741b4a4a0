//! ResourceQuota.

use meta::Value;
use meta::field::{Errors, Path};

use super::columns::{AGE, Cell, Column, NAME, age, name, text};
use super::{Kind, pod_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Request", "What is used of the requests, out of how much."),
        Column::text("Limit", "What is used of the limits, out of how much."),
        AGE,
    ],
    row: |q, now| {
        let [requests, limits] = used(q);
        vec![name(q), requests, limits, age(q, now)]
    },
    prepare_create: |q| q.set(&["status"], Value::object()),
    validate_create: |q| {
        let mut errors = Errors::new();
        pod_spec::validate_resource_list(&q["spec"]["hard"], &Path::new("spec.hard"), &mut errors);
        errors
    },
    ..Kind::PLAIN
};

fn used(q: &Value) -> [Cell; 2] {
    let mut parts = [Vec::new(), Vec::new()];
    if let Some(hard) = q["status"]["hard"].as_object() {
        for (resource, amount) in hard.iter() {
            let used = match text(q, &["status", "used", resource]) {
                "" => "0",
                used => used,
            };
            let part = format!("{resource}: {used}/{}", amount.as_str().unwrap_or_default());
            parts[usize::from(resource.starts_with("limits"))].push(part);
        }
    }
    parts.map(|p| p.join(", ").into())
}
