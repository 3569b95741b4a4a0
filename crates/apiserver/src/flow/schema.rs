//! Flow schemas: which requests they are for, and which flow a request belongs to.
//!
//! Pure. Invariant: reading an object that validation let through never fails; what is missing matches nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use meta::Value;

use super::counts::Counts;
use super::{Digest, Target};
use crate::user::User;

pub struct FlowSchema {
    pub name: String,
    pub uid: Arc<str>,
    pub level: Arc<str>,
    pub precedence: i64,
    /// Goes on when the schema is read anew.
    pub counts: Arc<Counts>,
    by: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

struct PathRule {
    verbs: Vec<String>,
    urls: Vec<String>,
}

const ALL: &str = "*";

fn strings(value: &Value, member: &str) -> Vec<String> {
    value.array_at(&[member]).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn text(value: &Value, path: &[&str]) -> String {
    value.str_at(path).unwrap_or_default().to_string()
}

impl FlowSchema {
    pub fn read(object: &Value) -> FlowSchema {
        let spec = &object["spec"];
        let (name, level) =
            (text(object, &["metadata", "name"]), text(spec, &["priorityLevelConfiguration", "name"]).into());
        FlowSchema {
            counts: Arc::new(Counts::new(&name, &level)),
            name,
            level,
            uid: text(object, &["metadata", "uid"]).into(),
            precedence: spec.int_at(&["matchingPrecedence"]).unwrap_or(1000),
            by: match spec.str_at(&["distinguisherMethod", "type"]) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec.array_at(&["rules"]).iter().map(Rule::read).collect(),
        }
    }

    pub fn fits(&self, digest: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.fits(digest))
    }

    /// Requests of one flow share a hand of queues.
    pub fn flow(&self, digest: &Digest<'_>) -> u64 {
        let distinguisher = match (self.by, digest.target) {
            (Distinguisher::User, _) => digest.user.name.as_str(),
            (Distinguisher::Namespace, Target::Resource { namespace, .. }) => namespace,
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        (&self.name, distinguisher).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    fn read(rule: &Value) -> Rule {
        let subject = |s: &Value| match s.str_at(&["kind"]) {
            Some("User") => Some(Subject::User(text(s, &["user", "name"]))),
            Some("Group") => Some(Subject::Group(text(s, &["group", "name"]))),
            Some("ServiceAccount") => Some(Subject::ServiceAccount {
                namespace: text(s, &["serviceAccount", "namespace"]),
                name: text(s, &["serviceAccount", "name"]),
            }),
            _ => None,
        };
        let resource = |r: &Value| ResourceRule {
            verbs: strings(r, "verbs"),
            groups: strings(r, "apiGroups"),
            resources: strings(r, "resources"),
            cluster_scope: r.bool_at(&["clusterScope"]).unwrap_or(false),
            namespaces: strings(r, "namespaces"),
        };
        let path = |r: &Value| PathRule { verbs: strings(r, "verbs"), urls: strings(r, "nonResourceURLs") };
        Rule {
            subjects: rule.array_at(&["subjects"]).iter().filter_map(subject).collect(),
            resources: rule.array_at(&["resourceRules"]).iter().map(resource).collect(),
            paths: rule.array_at(&["nonResourceRules"]).iter().map(path).collect(),
        }
    }

    fn fits(&self, digest: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|s| s.is(digest.user)) {
            return false;
        }
        match digest.target {
            Target::Resource { .. } => self.resources.iter().any(|r| r.fits(digest)),
            Target::Path(path) => self.paths.iter().any(|r| r.fits(digest.verb, path)),
        }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == ALL || *name == user.name,
            Subject::Group(name) => name == ALL || user.is_in(name),
            Subject::ServiceAccount { namespace, name } => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(ns, n)| ns == namespace && (name == ALL || n == name))
            }
        }
    }
}

fn lists(all: &[String], what: &str) -> bool {
    all.iter().any(|one| one == ALL || one == what)
}

impl ResourceRule {
    fn fits(&self, digest: &Digest<'_>) -> bool {
        let Target::Resource { group, resource, subresource, namespace } = digest.target else { return false };
        let named = |one: &String| match one.split_once('/') {
            _ if one == ALL => true,
            Some((r, s)) => r == resource && s == subresource,
            None => one == resource && subresource.is_empty(),
        };
        lists(&self.verbs, digest.verb)
            && lists(&self.groups, group)
            && self.resources.iter().any(named)
            && if namespace.is_empty() { self.cluster_scope } else { lists(&self.namespaces, namespace) }
    }
}

impl PathRule {
    fn fits(&self, verb: &str, path: &str) -> bool {
        let leads = |url: &String| match url.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => url == path,
        };
        lists(&self.verbs, verb) && self.urls.iter().any(leads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn rules_fit() {
        let schema = FlowSchema::read(&json!({"spec": {"rules": [
            {"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}},
                    {"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [
                    {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/status"], "namespaces": ["a"]},
                    {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez/*"]}]}]}}));
        let resource =
            |group, resource, subresource, namespace| Target::Resource { group, resource, subresource, namespace };
        let account = "system:serviceaccount:kube-system:x";
        for (user, verb, target, want) in [
            ("ann", "get", resource("", "pods", "", "a"), true),
            ("bob", "get", resource("", "pods", "", "a"), false),
            (account, "list", resource("", "pods", "status", "a"), true),
            (account, "list", resource("", "pods", "log", "a"), false),
            ("system:serviceaccount:default:x", "list", resource("", "pods", "", "a"), false),
            ("ann", "get", resource("", "pods", "", "b"), false),
            ("ann", "delete", resource("", "pods", "", "a"), false),
            ("ann", "delete", resource("apps", "deployments", "scale", ""), true),
            ("ann", "delete", resource("apps", "deployments", "", "a"), false),
            ("ann", "get", Target::Path("/healthz"), true),
            ("ann", "get", Target::Path("/livez/ping"), true),
            ("ann", "get", Target::Path("/livez"), false),
            ("ann", "post", Target::Path("/healthz"), false),
        ] {
            let user = User::new(user, ["g"]);
            assert_eq!(schema.fits(&Digest { user: &user, verb, target }), want, "{} {verb} {target:?}", user.name);
        }
    }
}
