//! PodTemplate.

use meta::field::{Errors, Path};

use super::columns::{Column, NAME, containers_and_images, labels, name};
use super::{Kind, count_change, first_generation, keep_status, pod_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Containers", "Names of each container in the template."),
        Column::text("Images", "Images referenced by each container in the template."),
        Column::text("Pod Labels", "The labels for the pod template."),
    ],
    row: |t, _| {
        let (names, images) = containers_and_images(&t["template"]["spec"]);
        vec![name(t), names.into(), images.into(), labels(&t["template"]["metadata"]["labels"]).into()]
    },
    defaults: |t| pod_spec::template_defaults(t, &["template"]),
    prepare_create: first_generation,
    prepare_update: |new, old| {
        keep_status(new, old);
        count_change(new, old, &["template"]);
    },
    validate_create: |t| {
        let mut errors = Errors::new();
        pod_spec::validate(&t["template"]["spec"], &Path::new("template.spec"), &mut errors);
        errors
    },
    ..Kind::PLAIN
};
