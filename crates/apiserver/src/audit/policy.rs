//! Which requests are written to the audit log, and how much of them.
//!
//! Reads: a Policy of `audit.k8s.io/v1`. Source: the pages "Auditing" and "kube-apiserver Audit Configuration (v1)".
//! Invariant: the first rule that matches decides; where none does, nothing is written.

use meta::Value;

use crate::request::ResourcePath;
use crate::user::User;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    fn named(name: &str) -> Option<Level> {
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse]
            .into_iter()
            .find(|l| format!("{l:?}") == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

const STAGES: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

/// What a request is about.
pub struct Asked<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub path: &'a str,
    /// `None` for a path that names no resource.
    pub resource: Option<&'a ResourcePath>,
}

#[derive(Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// What is to be written of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

fn strings(value: &Value, member: &str) -> Vec<String> {
    value.array_at(&[member]).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    let named = |name: String| {
        let found = STAGES.into_iter().find(|stage| format!("{stage:?}") == name);
        found.ok_or_else(|| format!("omitStages: {name:?} is none of {STAGES:?}"))
    };
    strings(value, "omitStages").into_iter().map(named).collect()
}

impl Policy {
    /// Reads a policy file (YAML or JSON).
    pub fn parse(text: &str) -> Result<Policy, String> {
        let (value, _) = crate::decode::yaml(text.as_bytes())?;
        let text = |member: &str| value.str_at(&[member]).unwrap_or_default();
        if (text("apiVersion"), text("kind")) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("not a Policy of audit.k8s.io/v1, but {:?} of {:?}", text("kind"), text("apiVersion")));
        }
        let mut rules = Vec::new();
        for (i, rule) in value.array_at(&["rules"]).iter().enumerate() {
            rules.push(Rule::parse(rule).map_err(|why| format!("rules[{i}].{why}"))?);
        }
        if rules.is_empty() {
            return Err("it has no rules, so nothing would be written".into());
        }
        let omit_managed_fields = value.bool_at(&["omitManagedFields"]).unwrap_or_default();
        Ok(Policy { rules, omit_stages: stages(&value)?, omit_managed_fields })
    }

    pub fn decide(&self, asked: &Asked) -> Decision {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(asked)) else { return Decision::default() };
        Decision {
            level: rule.level,
            omit_stages: rule.omit_stages.iter().chain(&self.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn parse(rule: &Value) -> Result<Rule, String> {
        let level = rule.str_at(&["level"]).unwrap_or_default();
        let resources = rule.array_at(&["resources"]).iter().map(|r| Resources {
            group: r.str_at(&["group"]).unwrap_or_default().into(),
            resources: strings(r, "resources"),
            names: strings(r, "resourceNames"),
        });
        let parsed = Rule {
            level: Level::named(level)
                .ok_or_else(|| format!("level: {level:?} is none of None, Metadata, Request, RequestResponse"))?,
            users: strings(rule, "users"),
            groups: strings(rule, "userGroups"),
            verbs: strings(rule, "verbs"),
            resources: resources.collect(),
            namespaces: strings(rule, "namespaces"),
            urls: strings(rule, "nonResourceURLs"),
            omit_stages: stages(rule)?,
            omit_managed_fields: rule.bool_at(&["omitManagedFields"]),
        };
        let of_resources = !parsed.resources.is_empty() || !parsed.namespaces.is_empty();
        if of_resources && !parsed.urls.is_empty() {
            return Err("nonResourceURLs: a rule is for resources or for other paths, not for both".into());
        }
        Ok(parsed)
    }

    fn matches(&self, asked: &Asked) -> bool {
        let open = |list: &[String], found: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(found);
        if !open(&self.users, &|user| *user == asked.user.name)
            || !open(&self.groups, &|group| asked.user.groups.contains(group))
            || !open(&self.verbs, &|verb| verb == asked.verb)
        {
            return false;
        }
        match asked.resource {
            Some(path) => {
                self.urls.is_empty()
                    && open(&self.namespaces, &|namespace| *namespace == path.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(path)))
            }
            None => {
                let under = |url: &String| match url.strip_suffix('*') {
                    Some(prefix) => asked.path.starts_with(prefix),
                    None => asked.path == url,
                };
                self.resources.is_empty() && self.namespaces.is_empty() && open(&self.urls, &under)
            }
        }
    }
}

impl Resources {
    fn matches(&self, path: &ResourcePath) -> bool {
        let (resource, sub) = (&path.resource, &path.subresource);
        let means = |wanted: &String| match wanted.split_once('/') {
            None => wanted == "*" || (wanted == resource && sub.is_empty()),
            Some((of, "*")) => of == resource && !sub.is_empty(),
            Some(("*", wanted)) => wanted == sub,
            Some((of, wanted)) => of == resource && wanted == sub,
        };
        self.group == path.group
            && (self.resources.is_empty() || self.resources.iter().any(means))
            && (self.names.is_empty() || self.names.contains(&path.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Target, parse_path};

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(include_str!("policy/example.yaml")).expect("a policy");
        golden::check!("policy/levels.txt", |case| {
            let [user, verb, path] = case.split(' ').collect::<Vec<_>>()[..] else { panic!("{case}") };
            let target = parse_path(path).expect("a path");
            let resource = match &target {
                Target::Resource(path) => Some(path),
                Target::NonResource => None,
            };
            let user = if user == "anonymous" { User::anonymous() } else { User::new(user, [""; 0]) };
            format!("{:?}", policy.decide(&Asked { user: &user, verb, path, resource }))
        });
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_said() {
        golden::check!("policy/faults.txt", |case| Policy::parse(case).expect_err("refused"));
    }
}
