//! RuntimeClass.

use std::collections::HashSet;

use super::pod_spec;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Handler", "").by(|c| text(c, &["handler"]).into()), AGE],
    rules: &[("handler", Required("")), ("handler", Name(names::dns1123_label)), ("handler", Fixed)],
    validate: |c, errors| {
        pod_spec::validate_overhead(&c["overhead"]["podFixed"], &Path::new("overhead"), errors);
        check(c, &[("scheduling.nodeSelector", Labels)], errors);
        let tolerations = c.array_at(&["scheduling", "tolerations"]);
        let path = Path::new("scheduling.tolerations");
        pod_spec::validate_tolerations(tolerations, &path, errors);
        let mut known = HashSet::new();
        for (i, toleration) in tolerations.iter().enumerate().filter(|(_, t)| !known.insert(t.to_string())) {
            errors.push(Error::duplicate(&path.index(i), toleration));
        }
    },
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};
