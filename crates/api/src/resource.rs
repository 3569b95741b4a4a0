//! The table of resources: names, verbs, subresources, where they are stored, which type they have.
//!
//! Built-in resources come from generated data; a custom resource is a `Resource` as well, made from its definition.
//! Invariant: within one list of served resources (group, version, plural) and (group, version, kind) name one resource.

use crate::schema;
use meta::schema::TypeRef;
use meta::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, Value};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

pub type Text = Cow<'static, str>;

/// How settled a version is. Beta and alpha are not served unless asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    Alpha,
    Beta,
    Ga,
}

impl Stage {
    /// Reads it off a version's name: `v1`, `v1beta1`, `v2alpha1`.
    pub fn of(version: &str) -> Stage {
        if version.contains("alpha") {
            Stage::Alpha
        } else if version.contains("beta") {
            Stage::Beta
        } else {
            Stage::Ga
        }
    }
}

/// By plural, sorted. Source: the answers of upstream's OpenAPI to `delete`.
const ANSWERED_DELETED: [&str; 17] = [
    "csidrivers", "csinodes", "deviceclasses", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates",
    "resourceclaims", "resourceclaimtemplates", "resourcepoolstatusrequests", "resourcequotas", "resourceslices",
    "serviceaccounts", "services", "storageclasses", "volumeattachments", "volumeattributesclasses",
];

#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Empty for core.
    pub group: Text,
    pub version: Text,
    pub stage: Stage,
    pub kind: Text,
    /// Empty where nothing can be listed.
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    /// Sorted; `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Vec<Text>,
    /// Sorted by name.
    pub subresources: Vec<Subresource>,
    /// The key prefix in the store, without a slash at its end: `/registry/pods`. See `key`.
    pub prefix: Text,
    /// The version objects are stored in; it may lie in another group (events).
    pub storage: GroupVersion,
    /// The root type's full name in `schema()`; empty for custom resources.
    pub type_name: Text,
    /// The schema of a custom resource, as its definition says it.
    pub schema: Option<Arc<Value>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: Text,
    /// The kind of its body, often of another group (`autoscaling/v1 Scale`).
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// A stream (exec, attach, port-forward, proxy), not an object.
    pub connect: bool,
    pub verbs: Vec<Text>,
}

impl Resource {
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.plural)
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&*self.group, &*self.kind)
    }

    /// `v1` or `apps/v1`, as it stands in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Objects are stored in this version.
    pub fn is_storage(&self) -> bool {
        self.storage.group == self.group && self.storage.version == self.version
    }

    /// Its deletion answers with the object instead of a Status.
    pub fn answers_deleted(&self) -> bool {
        !self.type_name.is_empty() && ANSWERED_DELETED.contains(&&*self.plural)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The root type of a built-in resource.
    pub fn root_type(&self) -> Option<TypeRef<'static>> {
        schema().find(&self.type_name)
    }

    /// The store's key of one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}/{namespace}/{name}", self.prefix) } else { format!("{}/{name}", self.prefix) }
    }

    /// The prefix of the keys of a namespace's objects, or of all objects for an empty namespace; it ends in a slash.
    pub fn key_prefix(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/{namespace}/", self.prefix)
        } else {
            format!("{}/", self.prefix)
        }
    }
}

impl Subresource {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

struct Table {
    resources: Vec<Resource>,
    ga: usize,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut resources =
        parse(include_str!("data/resources.txt")).expect("generated resource data parses: a test holds it");
    // The settled ones first, so that they are one slice.
    resources.sort_by_key(|r| std::cmp::Reverse(r.stage));
    let ga = resources.iter().take_while(|r| r.stage == Stage::Ga).count();
    Table { resources, ga }
});

/// The built-in resources that are served by default: those of settled (GA) versions, sorted by group, version, plural.
pub fn all() -> &'static [Resource] {
    &TABLE.resources[..TABLE.ga]
}

/// Every built-in resource, with beta and alpha versions: what `--runtime-config=api/all=true` serves.
pub fn all_with_previews() -> &'static [Resource] {
    &TABLE.resources
}

/// The resource served by default under these names.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The resource of this kind served by default.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    all().iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The root type of a kind, served as a resource or only as a body (`autoscaling/v1 Scale`, `policy/v1 Eviction`,
/// `meta/v1 DeleteOptions`).
pub fn root_type(group: &str, version: &str, kind: &str) -> Option<TypeRef<'static>> {
    if let Some(resource) =
        all_with_previews().iter().find(|r| r.kind == kind && r.group == group && r.version == version)
    {
        return resource.root_type();
    }
    let meta = "io.k8s.apimachinery.pkg.apis.meta";
    let package = all_with_previews()
        .iter()
        .find(|r| r.group == group && r.version == version)
        .and_then(|r| r.type_name.rsplit_once('.'))
        .map(|(package, _)| package.to_owned())
        .unwrap_or_else(|| format!("{meta}.{version}"));
    schema().find(&format!("{package}.{kind}")).or_else(|| schema().find(&format!("{meta}.v1.{kind}")))
}

#[derive(Debug, thiserror::Error)]
#[error("resource data, line {line}: {what}; regenerate it with tools/schema-gen")]
struct DataError {
    line: usize,
    what: &'static str,
}

fn undash(word: &'static str) -> Text {
    Cow::Borrowed(if word == "-" { "" } else { word })
}

fn list(words: &'static str) -> Vec<Text> {
    words.split(',').map(Cow::Borrowed).collect()
}

fn parse(text: &'static str) -> Result<Vec<Resource>, DataError> {
    let mut out: Vec<Resource> = Vec::with_capacity(128);
    for (number, line) in text.lines().enumerate() {
        let fail = |what| DataError { line: number + 1, what };
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(line) = line.strip_prefix(' ') {
            let subresource = parse_subresource(line).ok_or(fail("bad subresource"))?;
            out.last_mut().ok_or(fail("a subresource without a resource"))?.subresources.push(subresource);
            continue;
        }
        out.push(parse_resource(line).ok_or(fail("bad resource"))?);
    }
    Ok(out)
}

fn parse_resource(line: &'static str) -> Option<Resource> {
    let words: Vec<&'static str> = line.split(' ').collect();
    let [group, version, stage, kind, list_kind, plural, singular, scope, prefix, storage, type_name, rest @ ..] =
        words.as_slice()
    else {
        return None;
    };
    let (storage_group, storage_version) = storage.split_once('/')?;
    let mut resource = Resource {
        group: undash(group),
        version: Cow::Borrowed(version),
        stage: match *stage {
            "ga" => Stage::Ga,
            "beta" => Stage::Beta,
            "alpha" => Stage::Alpha,
            _ => return None,
        },
        kind: Cow::Borrowed(kind),
        list_kind: undash(list_kind),
        plural: Cow::Borrowed(plural),
        singular: Cow::Borrowed(singular),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: *scope == "namespaced",
        verbs: Vec::new(),
        subresources: Vec::new(),
        prefix: Cow::Borrowed(prefix),
        storage: GroupVersion::new(&*undash(storage_group), storage_version),
        type_name: Cow::Borrowed(type_name),
        schema: None,
    };
    for word in rest {
        match word.split_once('=')? {
            ("verbs", words) => resource.verbs = list(words),
            ("short", words) => resource.short_names = list(words),
            ("categories", words) => resource.categories = list(words),
            _ => return None,
        }
    }
    Some(resource)
}

fn parse_subresource(line: &'static str) -> Option<Subresource> {
    let words: Vec<&'static str> = line.split(' ').collect();
    let [name, group_version, kind, how, verbs] = words.as_slice() else { return None };
    let (group, version) = group_version.split_once('/')?;
    Some(Subresource {
        name: Cow::Borrowed(name),
        group: undash(group),
        version: Cow::Borrowed(version),
        kind: Cow::Borrowed(kind),
        connect: *how == "connect",
        verbs: list(verbs.strip_prefix("verbs=")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_resource_has_its_type_and_unique_names() {
        let (mut plurals, mut kinds) = (HashSet::new(), HashSet::new());
        for r in all_with_previews() {
            assert!(r.root_type().is_some(), "{} has no type", r.type_name);
            assert!(plurals.insert(r.gvr().to_string()), "{} is there twice", r.gvr());
            assert!(kinds.insert(r.gvk().to_string()), "{} is there twice", r.gvk());
            assert_eq!(Stage::of(&r.version), r.stage, "{}", r.gvr());
            for s in &r.subresources {
                let found = root_type(&s.group, &s.version, &s.kind);
                assert!(found.is_some(), "{}/{}: no type for {}", r.plural, s.name, s.kind);
            }
        }
        assert!(all().iter().all(|r| r.stage == Stage::Ga));
        assert!(all_with_previews().len() > all().len());
    }

    #[test]
    fn keys_are_upstreams() {
        golden::check!("resource.txt", |case| {
            let [plural, namespace, name] = case.split('/').collect::<Vec<_>>()[..] else { panic!("{case}") };
            let (plural, group) = plural.split_once('.').unwrap_or((plural, ""));
            let resource = find(group, "v1", plural).expect(plural);
            let key = resource.key(namespace, name);
            assert!(key.starts_with(&resource.key_prefix(namespace)));
            key.to_string()
        });
    }
}
