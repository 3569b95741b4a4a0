//! Discovery documents: what the server serves, in the plain form (`/api`, `/apis`, ...) and the aggregated one (v2).
//!
//! Pure functions from a list of resources, built-in or custom. Source: the discovery documents in the API reference
//! and KEP-3352 (aggregated discovery).
//! Invariant: the same resources give the same document, whatever their order.

use crate::resource::{Resource, Stage, Subresource, Text};
use base64::Engine;
use meta::{Value, json};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What stands behind the media type where clients ask for the aggregated form.
pub const AGGREGATED_PARAMETERS: &str = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Built-in groups behind core in the order upstream prefers them; others come after, by name.
const GROUP_ORDER: &str = include_str!("data/groups.txt");

/// Sorts `v2` before `v1` before `v1beta2` before `v1beta1` before `v1alpha1` before names of no such form.
pub fn version_order(version: &str) -> impl Ord + use<> {
    let parsed = parse_version(version);
    (Reverse(parsed), version.to_owned())
}

fn parse_version(version: &str) -> Option<(Stage, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let suffix = &rest[digits..];
    if suffix.is_empty() {
        return Some((Stage::Ga, major, 0));
    }
    let (stage, minor) = match suffix.strip_prefix("beta") {
        Some(minor) => (Stage::Beta, minor),
        None => (Stage::Alpha, suffix.strip_prefix("alpha")?),
    };
    Some((stage, major, minor.parse().ok()?))
}

/// Groups in order; in each its versions in order; in each its resources by name.
type Groups<'r> = Vec<(&'r str, Vec<(&'r str, Vec<&'r Resource>)>)>;

fn grouped<'r>(resources: impl IntoIterator<Item = &'r Resource>) -> Groups<'r> {
    let mut tree: BTreeMap<&str, BTreeMap<&str, Vec<&Resource>>> = BTreeMap::new();
    for r in resources {
        tree.entry(&r.group).or_default().entry(&r.version).or_default().push(r);
    }
    let mut groups: Groups<'r> = Vec::new();
    for (group, versions) in tree {
        let mut versions: Vec<(&str, Vec<&Resource>)> = versions.into_iter().collect();
        versions.sort_by_key(|(version, _)| version_order(version));
        for (_, resources) in &mut versions {
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
        groups.push((group, versions));
    }
    let place = |group: &str| GROUP_ORDER.lines().position(|g| g == group).unwrap_or(usize::MAX);
    groups.sort_by_key(|(group, _)| (!group.is_empty(), place(group)));
    groups
}

/// `GET /api`. `address` is `host:port` as clients outside the cluster reach the server.
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_owned()}],
    })
}

fn group_value(group: &str, versions: &[(&str, Vec<&Resource>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{group}/{version}"), "version": version.to_string()}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.to_owned(), "versions": Value::Array(versions), "preferredVersion": preferred})
}

/// `GET /apis`: every group but core.
pub fn group_list<'r>(resources: impl IntoIterator<Item = &'r Resource>) -> Value {
    let groups: Vec<Value> = grouped(resources)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": Value::Array(groups)})
}

/// `GET /apis/GROUP`; `None` when nothing of the group is served.
pub fn group<'r>(resources: impl IntoIterator<Item = &'r Resource>, group: &str) -> Option<Value> {
    let groups = grouped(resources.into_iter().filter(|r| r.group == group));
    let (name, versions) = groups.first()?;
    let mut value = group_value(name, versions);
    value.set(&["kind"], "APIGroup");
    value.set(&["apiVersion"], "v1");
    Some(value)
}

fn texts(words: &[Text]) -> Value {
    words.iter().map(|w| Value::from(w.as_ref())).collect::<Vec<_>>().into()
}

/// Upstream's: eight bytes of the hash of the stored kind's name.
fn storage_version_hash(r: &Resource) -> String {
    let name = format!("{}/{}/{}", r.storage.group, r.storage.version, r.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(name.as_bytes())[..8])
}

fn is_stored(r: &Resource) -> bool {
    r.can("list") && r.can("create")
}

/// `GET /api/v1` (empty group) and `GET /apis/GROUP/VERSION`; `None` when nothing of it is served.
pub fn resource_list<'r>(
    resources: impl IntoIterator<Item = &'r Resource>,
    group: &str,
    version: &str,
) -> Option<Value> {
    let groups = grouped(resources.into_iter().filter(|r| r.group == group && r.version == version));
    let (_, versions) = groups.first()?;
    let (_, resources) = versions.first()?;
    let mut items = Vec::new();
    for r in resources {
        let mut item = json!({
            "name": r.plural.as_ref(),
            "singularName": r.singular.as_ref(),
            "namespaced": r.namespaced,
            "kind": r.kind.as_ref(),
            "verbs": texts(&r.verbs),
        });
        if !r.short_names.is_empty() {
            item.set(&["shortNames"], texts(&r.short_names));
        }
        if !r.categories.is_empty() {
            item.set(&["categories"], texts(&r.categories));
        }
        if is_stored(r) {
            item.set(&["storageVersionHash"], storage_version_hash(r));
        }
        items.push(item);
        items.extend(subresources(r).map(|s| subresource_value(r, s)));
    }
    let mut list = json!({"kind": "APIResourceList", "resources": Value::Array(items)});
    if group.is_empty() {
        // Compat: the core document has no apiVersion, as the group is older than the field.
        list.set(&["groupVersion"], version);
    } else {
        list.set(&["apiVersion"], "v1");
        list.set(&["groupVersion"], format!("{group}/{version}"));
    }
    Some(list)
}

/// Compat: of custom resources the status comes before the scale.
fn subresources(r: &Resource) -> impl Iterator<Item = &Subresource> {
    let last = r.subresources.len().wrapping_sub(1);
    (0..r.subresources.len()).map(move |i| &r.subresources[if r.type_name.is_empty() { last - i } else { i }])
}

fn subresource_value(r: &Resource, s: &Subresource) -> Value {
    let mut item = json!({
        "name": format!("{}/{}", r.plural, s.name),
        "singularName": "",
        "namespaced": r.namespaced,
        "kind": s.kind.as_ref(),
        "verbs": texts(&s.verbs),
    });
    if s.group != r.group || s.version != r.version {
        item.set(&["group"], s.group.as_ref());
        item.set(&["version"], s.version.as_ref());
    }
    item
}

/// `GET /api` (`core`) or `GET /apis` in the aggregated form, for clients that accept `AGGREGATED_PARAMETERS`.
pub fn aggregated<'r>(resources: impl IntoIterator<Item = &'r Resource>, core: bool) -> Value {
    let groups = grouped(resources.into_iter().filter(|r| r.group.is_empty() == core));
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, resources)| {
                    let resources: Vec<Value> = resources.iter().map(|r| aggregated_resource(r)).collect();
                    json!({"version": version.to_string(), "resources": Value::Array(resources), "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { Value::object() } else { json!({"name": group.to_string()}) };
            json!({"metadata": metadata, "versions": Value::Array(versions)})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": Value::Array(items),
    })
}

/// Compat: of built-in resources the group and version that it stands below go without saying.
fn response_kind(r: &Resource, (group, version): (&str, &str), kind: &str) -> Value {
    let own = r.schema.is_none() && (group, version) == (&*r.group, &*r.version);
    let (group, version) = if own { ("", "") } else { (group, version) };
    json!({"group": group.to_owned(), "version": version.to_owned(), "kind": kind.to_owned()})
}

fn aggregated_resource(r: &Resource) -> Value {
    let mut item = json!({
        "resource": r.plural.as_ref(),
        "responseKind": response_kind(r, (&r.group, &r.version), &r.kind),
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular.as_ref(),
        "verbs": texts(&r.verbs),
    });
    if !r.short_names.is_empty() {
        item.set(&["shortNames"], texts(&r.short_names));
    }
    if !r.categories.is_empty() {
        item.set(&["categories"], texts(&r.categories));
    }
    if !r.subresources.is_empty() {
        let subresources: Vec<Value> = subresources(r)
            .map(|s| {
                json!({
                    "subresource": s.name.as_ref(),
                    "responseKind": response_kind(r, (&s.group, &s.version), &s.kind),
                    "verbs": texts(&s.verbs),
                })
            })
            .collect();
        item.set(&["subresources"], Value::Array(subresources));
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{all, all_with_previews};
    use expect_test::expect;

    fn text(value: &Value) -> String {
        String::from_utf8(value.to_vec()).expect("UTF-8")
    }

    #[test]
    fn versions_in_order() {
        let mut versions = ["foo", "v1alpha1", "v1", "v11beta2", "v10beta3", "v2", "v1beta1", "v1alpha2", "v10"];
        versions.sort_by_key(|v| version_order(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v10beta3", "v1beta1", "v1alpha2", "v1alpha1", "foo"]);
    }

    #[test]
    fn groups() {
        let list = group_list(all());
        let names: Vec<&str> = list.array_at(&["groups"]).iter().filter_map(|g| g.str_at(&["name"])).collect();
        assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
        expect![[r#"{"apiVersion":"v1","kind":"APIGroup","name":"autoscaling","preferredVersion":{"groupVersion":"autoscaling/v2","version":"v2"},"versions":[{"groupVersion":"autoscaling/v2","version":"v2"},{"groupVersion":"autoscaling/v1","version":"v1"}]}"#]]
            .assert_eq(&text(&group(all(), "autoscaling").expect("served")));
        assert_eq!(group(all(), "lifecycle.k8s.io"), None, "alpha only");
        assert!(group(all_with_previews(), "lifecycle.k8s.io").is_some());
        // Every built-in group has its place.
        assert!(all_with_previews().iter().all(|r| r.group.is_empty() || GROUP_ORDER.lines().any(|g| g == r.group)));
    }

    #[test]
    fn resources_of_a_version() {
        expect![[r#"{"apiVersion":"v1","groupVersion":"policy/v1","kind":"APIResourceList","resources":[{"kind":"PodDisruptionBudget","name":"poddisruptionbudgets","namespaced":true,"shortNames":["pdb"],"singularName":"poddisruptionbudget","storageVersionHash":"EVWiDmWqyJw=","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]},{"kind":"PodDisruptionBudget","name":"poddisruptionbudgets/status","namespaced":true,"singularName":"","verbs":["get","patch","update"]}]}"#]]
            .assert_eq(&text(&resource_list(all(), "policy", "v1").expect("served")));
        let core = resource_list(all(), "", "v1").expect("served");
        let find = |name: &str| {
            core.array_at(&["resources"]).iter().find(|r| r.str_at(&["name"]) == Some(name)).expect("there").clone()
        };
        assert_eq!(find("pods").str_at(&["storageVersionHash"]), Some("xPOwRZ+Yhw8="));
        assert_eq!(find("pods/eviction").str_at(&["group"]), Some("policy"));
        assert_eq!(resource_list(all(), "", "v2"), None);
    }

    #[test]
    fn aggregated_form() {
        let core = aggregated(all(), true);
        assert_eq!(core.array_at(&["items"]).len(), 1);
        let apis = aggregated(all(), false);
        let scheduling =
            apis.array_at(&["items"]).iter().find(|g| g.str_at(&["metadata", "name"]) == Some("node.k8s.io"));
        expect![[r#"{"metadata":{"name":"node.k8s.io"},"versions":[{"freshness":"Current","resources":[{"resource":"runtimeclasses","responseKind":{"group":"","kind":"RuntimeClass","version":""},"scope":"Cluster","singularResource":"runtimeclass","verbs":["create","delete","deletecollection","get","list","patch","update","watch"]}],"version":"v1"}]}"#]]
            .assert_eq(&text(scheduling.expect("served")));
    }
}
