//! Which requests a webhook, a policy or a binding is for: rules, selectors, and how exactly versions have to match.
//!
//! Reads rules once, then requests. Invariant: nothing here waits; what costs most is looked at last.

use std::sync::Arc;

use compact_str::CompactString;
use meta::Value;
use meta::selector::LabelSelector;

use super::Operation;
use super::request::Request;
use crate::registry::Served;

/// `rules` of a webhook, `resourceRules` of a policy.
struct Rule {
    operations: Vec<CompactString>,
    groups: Vec<CompactString>,
    versions: Vec<CompactString>,
    resources: Vec<CompactString>,
    /// Empty: any.
    names: Vec<CompactString>,
    scope: CompactString,
}

pub struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// No rule matches everything, as in bindings.
    open: bool,
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Rule {
    fn new(rule: &Value) -> Rule {
        let list = |member: &str| rule.array_at(&[member]).iter().filter_map(Value::as_str).map(Into::into).collect();
        Rule {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            names: list("resourceNames"),
            scope: rule.str_at(&["scope"]).unwrap_or("*").into(),
        }
    }

    fn matches(&self, request: &Request, served: &Served) -> bool {
        let review = request.review;
        let has = |list: &[CompactString], what: &str| list.iter().any(|one| one == "*" || one == what);
        has(&self.operations, review.operation.as_str())
            && has(&self.groups, &served.info.group)
            && has(&self.versions, &served.info.version)
            && self.resources.iter().any(|resource| names_resource(resource, &served.info.plural, review.subresource))
            && match self.scope.as_str() {
                "Namespaced" => served.namespaced,
                "Cluster" => !served.namespaced,
                _ => true,
            }
            && (self.names.is_empty() || self.names.iter().any(|name| *name == review.name))
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*` (no subresources), `*/*`.
fn names_resource(rule: &str, plural: &str, subresource: &str) -> bool {
    let (resource, sub) = rule.split_once('/').unwrap_or((rule, ""));
    (resource == "*" || resource == plural) && (sub == subresource || sub == "*")
}

fn rules(matching: &Value, member: &str) -> Vec<Rule> {
    matching.array_at(&[member]).iter().map(Rule::new).collect()
}

impl Matching {
    /// Of one webhook.
    pub fn of_webhook(hook: &Value) -> Matching {
        Matching::new(hook, "rules", false)
    }

    /// `matchConstraints` of a policy; `matchResources` of a binding, which without rules are open.
    pub fn of_policy(constraints: &Value, open: bool) -> Matching {
        Matching::new(constraints, "resourceRules", open)
    }

    fn new(matching: &Value, member: &str, open: bool) -> Matching {
        let selector = |member: &str| match matching.get(member) {
            Some(selector @ Value::Object(_)) => LabelSelector::from_valid_object(selector),
            _ => LabelSelector::everything(),
        };
        Matching {
            rules: rules(matching, member),
            excluded: rules(matching, "excludeResourceRules"),
            open,
            exact: matching.str_at(&["matchPolicy"]) == Some("Exact"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The version in which the request is to be shown; `None` when it is not meant.
    pub fn matched(&self, request: &Request, new: Option<&Value>, old: Option<&Value>) -> Option<Arc<Served>> {
        if self.version(&self.excluded, request).is_some() {
            return None;
        }
        let served = if self.open && self.rules.is_empty() {
            request.requested.clone()
        } else {
            self.version(&self.rules, request)?
        };
        (self.selects_namespace(request, new, old) && self.selects_object(new, old)).then_some(served)
    }

    fn version(&self, rules: &[Rule], request: &Request) -> Option<Arc<Served>> {
        let named = |served: &&Arc<Served>| rules.iter().any(|rule| rule.matches(request, served));
        if rules.is_empty() {
            return None;
        }
        let others = if self.exact { &[] } else { request.equivalents() };
        [&request.requested].into_iter().chain(others).find(named).cloned()
    }

    fn selects_namespace(&self, request: &Request, new: Option<&Value>, old: Option<&Value>) -> bool {
        if self.namespaces.is_everything() {
            return true;
        }
        let review = request.review;
        if review.is("", "namespaces") {
            // Compat: what a namespace is to become counts, except where there is no such thing.
            let written = matches!(review.operation, Operation::Create | Operation::Update);
            return new.filter(|_| written).or(old).is_none_or(|ns| self.namespaces.matches_object(ns));
        }
        match &request.namespace {
            Some(namespace) => self.namespaces.matches_with(|key| namespace.label(key)),
            // In no namespace: always meant.
            None => !request.requested.namespaced || self.namespaces.matches_with(|_| None),
        }
    }

    /// Either state of the object may match.
    fn selects_object(&self, new: Option<&Value>, old: Option<&Value>) -> bool {
        let labelled = |object: &Value| object.get("metadata").is_some() && self.objects.matches_object(object);
        self.objects.is_everything() || new.is_some_and(labelled) || old.is_some_and(labelled)
    }
}

#[cfg(test)]
mod tests {
    use super::names_resource;

    #[test]
    fn resources() {
        golden::check!("matching.txt", |case| {
            let (rule, resource) = case.split_once(' ').expect("a rule and a resource");
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            names_resource(rule, plural, sub).to_string()
        });
    }
}
