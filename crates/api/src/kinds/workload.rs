//! Workload: templates of the pod groups that a controller makes.

use super::prelude::*;

pub static KIND: Kind = Kind {
    validate: |workload, errors| {
        let (spec, at) = (&workload["spec"], Path::new("spec"));
        let groups = spec.array_at(&[GROUPS]);
        if groups.iter().any(|group| priority(group) != priority(&groups[0])) {
            errors.push(Error::invalid(&at, Value::Null, "detected multiple priority configurations"));
        }
        let mut tree = Tree { names: vec![], priority: None, differ: false };
        for (i, template) in spec.array_at(&[COMPOSITES]).iter().enumerate().filter(|(_, t)| levels(t) > LEVELS_MAX) {
            let detail = format!("maximum template hierarchy depth is {LEVELS_MAX}");
            errors.push(Error::invalid(&at.child(COMPOSITES).index(i), &template[COMPOSITES], detail));
        }
        tree.validate(spec, COMPOSITES, &at, errors);
    },
    declared: &[("", ("scheduling", "Workload"))],
    unconditional_update: false,
    ..Kind::PLAIN
};

const GROUPS: &str = "podGroupTemplates";
const COMPOSITES: &str = "compositePodGroupTemplates";
const LEVELS_MAX: usize = 4;

fn priority(template: &Value) -> [&Value; 2] {
    [&template["priorityClassName"], &template["priority"]]
}

/// How many templates stand in each other.
fn levels(template: &Value) -> usize {
    let deeper = [GROUPS, COMPOSITES].iter().flat_map(|list| template.array_at(&[list])).map(levels);
    1 + deeper.max().unwrap_or(0)
}

/// What was met of the templates of composite groups and the groups in them.
struct Tree<'v> {
    names: Vec<&'v str>,
    priority: Option<[&'v Value; 2]>,
    differ: bool,
}

impl<'v> Tree<'v> {
    /// Checks the templates in a list of `holder`, and those in them.
    fn validate(&mut self, holder: &'v Value, list: &str, path: &Path, errors: &mut Errors) {
        let outside = self.names.clone();
        for (i, template) in holder.array_at(&[list]).iter().enumerate() {
            let (at, name) = (path.child(list).index(i), text(template, &["name"]));
            if outside.contains(&name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            self.names.push(name);
            if priority(template) != *self.priority.get_or_insert(priority(template)) && !self.differ {
                self.differ = true;
                let detail = "all priority and priorityClassName values must be identical, detected multiple values";
                errors.push(Error::invalid(&Path::new("spec"), Value::Null, detail));
            }
            if list == COMPOSITES && [GROUPS, COMPOSITES].iter().all(|list| template.array_at(&[list]).is_empty()) {
                let detail = "must have at least one child PodGroupTemplate or CompositePodGroupTemplate";
                errors.push(Error::invalid(&at, name, detail));
            }
            for list in [GROUPS, COMPOSITES] {
                self.validate(template, list, &at, errors);
            }
        }
    }
}
