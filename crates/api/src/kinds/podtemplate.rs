//! PodTemplate.

use super::columns::containers_and_images;
use super::pod_spec;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Containers", "Names of each container in the template.")
            .by(|t| containers_and_images(&t["template"]["spec"]).0.into()),
        Column::text("Images", "Images referenced by each container in the template.")
            .by(|t| containers_and_images(&t["template"]["spec"]).1.into()),
        Column::text("Pod Labels", "The labels for the pod template.")
            .by(|t| labels(&t["template"]["metadata"]["labels"]).into()),
    ],
    defaults: |t| pod_spec::template_defaults(t, &["template"]),
    prepare_create: first_generation,
    prepare_update: |new, old| {
        keep_status(new, old);
        count_change(new, old, &["template"]);
    },
    validate: |t, errors| pod_spec::validate_template_at(&t["template"], &Path::new("template"), errors),
    declared: &[("template.spec", pod_spec::DECLARED)],
    ..Kind::PLAIN
};
