//! ResourceQuota.

use super::pod_spec;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Request", "What is used of the requests, out of how much.").by(|q| used(q, false)),
        Column::text("Limit", "What is used of the limits, out of how much.").by(|q| used(q, true)),
        AGE,
    ],
    prepare_create: |q| q.set(&["status"], Value::object()),
    validate: |q, errors| pod_spec::validate_resource_list(&q["spec"]["hard"], &Path::new("spec.hard"), errors),
    ..Kind::PLAIN
};

fn used(q: &Value, of_limits: bool) -> Cell {
    let hard = q["status"]["hard"].as_object().into_iter().flat_map(|hard| hard.iter());
    let parts = hard.filter(|(resource, _)| resource.starts_with("limits") == of_limits).map(|(resource, amount)| {
        let used = Some(text(q, &["status", "used", resource])).filter(|used| !used.is_empty()).unwrap_or("0");
        format!("{resource}: {used}/{}", amount.as_str().unwrap_or_default())
    });
    parts.collect::<Vec<_>>().join(", ").into()
}
