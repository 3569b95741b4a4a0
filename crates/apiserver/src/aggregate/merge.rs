//! Discovery and OpenAPI of several API servers as one.
//!
//! Reads: this server's own documents, and what is known of the others. Pure. Invariant: groups stand in the order of their
//! priority, versions of a group in the order of theirs, whoever serves them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::discovery::version_order;
use meta::{Value, json};

use super::Remote;

/// Built-in groups and their priorities, as upstream has them (kube-apiserver's aggregator).
const GROUPS: &str = "apiregistration.k8s.io=20000 =18000 apps=17800 events.k8s.io=17750 authentication.k8s.io=17700 \
    authorization.k8s.io=17600 autoscaling=17500 batch=17400 certificates.k8s.io=17300 networking.k8s.io=17200 policy=17100 \
    rbac.authorization.k8s.io=17000 storage.k8s.io=16800 admissionregistration.k8s.io=16700 apiextensions.k8s.io=16700 \
    scheduling.k8s.io=16600 coordination.k8s.io=16500 node.k8s.io=16300 discovery.k8s.io=16200 \
    resource.k8s.io=16200 flowcontrol.apiserver.k8s.io=16100 internal.apiserver.k8s.io=16000 storagemigration.k8s.io=15800 \
    lifecycle.k8s.io=15700";
/// What custom resources' groups and versions have.
const CUSTOM: (i64, i64) = (1000, 100);

fn built_in(group: &str) -> Option<i64> {
    let mut all = GROUPS.split_whitespace().filter_map(|pair| pair.split_once('='));
    all.find(|(name, _)| *name == group)?.1.parse().ok()
}

pub fn group_priority(group: &str) -> i64 {
    built_in(group).unwrap_or(CUSTOM.0)
}

/// Of a version that this server serves itself.
pub fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        _ if built_in(group).is_none() => CUSTOM.1,
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", "v1") => 21,
        (_, "v1") | ("resource.k8s.io", "v1beta2") => 15,
        ("coordination.k8s.io", "v1beta1") => 13,
        ("coordination.k8s.io", "v1alpha2") | ("admissionregistration.k8s.io", "v1beta1") => 12,
        ("resource.k8s.io", "v1alpha3") => 1,
        _ => 9,
    }
}

/// Adds the remotes' versions to a list of groups; `name` leads to a group's name, `version` makes a version's entry.
fn merge(list: &mut Vec<Value>, remotes: &[&Remote], name: &[&str], version: impl Fn(&Remote) -> Value) {
    let named = |group: &Value| group.str_at(name).unwrap_or_default().to_string();
    for remote in remotes {
        let at = list.iter().position(|g| named(g) == remote.group).unwrap_or_else(|| {
            let mut group = json!({"versions": []});
            group.set(name, remote.group.as_str());
            list.push(group);
            list.len() - 1
        });
        let priority = |v: &Value| {
            let version = v["version"].as_str().unwrap_or_default();
            let elsewhere = remotes.iter().find(|r| r.group == remote.group && r.version == version);
            let priority = match elsewhere {
                Some(r) => r.spec.int_at(&["versionPriority"]).unwrap_or_default(),
                None => version_priority(&remote.group, version),
            };
            (Reverse(priority), version_order(version))
        };
        let Some(Value::Array(versions)) = list[at].at_mut(&["versions"]) else { continue };
        versions.retain(|v| v["version"].as_str() != Some(&remote.version));
        versions.push(version(remote));
        versions.sort_by_key(priority);
        let first = versions.first().cloned().unwrap_or_default();
        if first.get("groupVersion").is_some() {
            list[at].set(&["preferredVersion"], first);
        }
    }
    list.sort_by_key(|group| {
        let name = named(group);
        let elsewhere =
            remotes.iter().filter(|r| r.group == name).filter_map(|r| r.spec.int_at(&["groupPriorityMinimum"]));
        Reverse(elsewhere.chain(built_in(&name)).max().unwrap_or(CUSTOM.0))
    });
}

fn plain_version(remote: &Remote) -> Value {
    json!({"groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version.as_str()})
}

/// `/apis`
pub fn group_list(remotes: &[&Remote], mut document: Value) -> Value {
    if let Some(Value::Array(groups)) = document.at_mut(&["groups"]) {
        merge(groups, remotes, &["name"], plain_version);
    }
    document
}

/// `/apis/GROUP`; `document` is what this server itself serves of it.
pub fn group(remotes: &[&Remote], group: &str, document: Option<Value>) -> Option<Value> {
    let remotes: Vec<&Remote> = remotes.iter().filter(|r| r.group == group).copied().collect();
    if remotes.is_empty() {
        return document;
    }
    let mut list: Vec<Value> = document.into_iter().collect();
    merge(&mut list, &remotes, &["name"], plain_version);
    let mut document = list.pop()?;
    document.set(&["kind"], "APIGroup");
    document.set(&["apiVersion"], "v1");
    Some(document)
}

/// `/apis` in the aggregated form.
pub fn aggregated(remotes: &[&Remote], mut document: Value) -> Value {
    if let Some(Value::Array(groups)) = document.at_mut(&["items"]) {
        merge(groups, remotes, &["metadata", "name"], |remote| {
            let known = remote.known().resources.clone();
            let resources = known.map(|list| aggregated_resources(remote, &list)).unwrap_or_default();
            let freshness = if remote.is_available() { "Current" } else { "Stale" };
            json!({"version": remote.version.as_str(), "resources": resources, "freshness": freshness})
        });
    }
    document
}

/// An APIResourceList's resources in the aggregated form.
fn aggregated_resources(remote: &Remote, list: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for resource in list.array_at(&["resources"]) {
        let text = |field: &str| resource.str_at(&[field]).unwrap_or_default();
        let or = |field: &str, otherwise: &str| match text(field) {
            "" => otherwise.to_string(),
            text => text.to_string(),
        };
        let (name, sub) = text("name").split_once('/').unwrap_or((text("name"), ""));
        let kind = json!({"group": or("group", &remote.group), "version": or("version", &remote.version), "kind": text("kind")});
        let scope = if resource.bool_at(&["namespaced"]) == Some(true) { "Namespaced" } else { "Cluster" };
        let mut entry = json!({"responseKind": kind, "verbs": resource["verbs"].clone()});
        if sub.is_empty() {
            entry.set(&["resource"], name);
            entry.set(&["scope"], scope);
            entry.set(&["singularResource"], text("singularName"));
            for field in ["shortNames", "categories"] {
                if !resource.array_at(&[field]).is_empty() {
                    entry.set(&[field], resource[field].clone());
                }
            }
            all.push(entry);
            continue;
        }
        entry.set(&["subresource"], sub);
        let at = all.iter().position(|r| r["resource"].as_str() == Some(name)).unwrap_or_else(|| {
            all.push(json!({"resource": name, "scope": scope}));
            all.len() - 1
        });
        all[at].set_default(&["subresources"], Vec::<Value>::new());
        if let Some(Value::Array(subs)) = all[at].at_mut(&["subresources"]) {
            subs.push(entry);
        }
    }
    all
}

/// `/openapi/v3`
pub fn openapi_index(remotes: &[&Remote], own: Vec<u8>) -> Vec<u8> {
    let Ok(mut index) = meta::parse(&own) else { return own };
    for remote in remotes {
        if let Some(url) = remote.known().openapi.clone() {
            let path = format!("apis/{}/{}", remote.group, remote.version);
            index.set(&["paths", &path, "serverRelativeURL"], url);
        }
    }
    index.to_vec()
}

/// `/openapi/v2`
pub fn openapi_v2(remotes: &[&Remote], own: Vec<u8>) -> Vec<u8> {
    let known = |remote: &Remote| remote.known().openapi_v2.as_ref().map(|(_, document)| document.clone());
    let others: Vec<_> = remotes.iter().filter_map(|r| Some((r, known(r)?))).collect();
    match meta::parse(&own) {
        Ok(mut whole) if !others.is_empty() => {
            others.iter().for_each(|(r, document)| add_document(&mut whole, document, &r.group, &r.version));
            whole.to_vec()
        }
        _ => own,
    }
}

/// Adds the paths of one group version to a document, with what they refer to. What stands there already stays; what has
/// the same name and is something else gets another one, as upstream names it.
fn add_document(whole: &mut Value, other: &Value, group: &str, version: &str) {
    let (group, version) = (format!("/apis/{group}/"), format!("/apis/{group}/{version}/"));
    let paths = other["paths"].as_object().into_iter().flat_map(|p| p.iter());
    let wanted = paths.filter(|(path, _)| **path == group || path.starts_with(&version));
    let wanted: Vec<_> = wanted.filter(|(path, _)| whole.at(&["paths", path]).is_none()).collect();
    // What is referred to, by its reference, with where it is and what it is called in the whole.
    let mut used: BTreeMap<String, (&str, String, &Value)> = BTreeMap::new();
    let mut waiting = Vec::new();
    wanted.iter().for_each(|(_, item)| references(item, &mut waiting));
    while let Some(reference) = waiting.pop() {
        let place = reference.strip_prefix("#/").and_then(|r| r.split_once('/'));
        let Some((section, name)) = place.filter(|_| !used.contains_key(reference)) else { continue };
        let Some(found) = other.at(&[section, name]) else { continue };
        references(found, &mut waiting);
        used.insert(reference.into(), (section, name.into(), found));
    }
    let free = |section: &str, name: &str| {
        let names = (2..).map(|n| format!("{name}_v{n}"));
        names.into_iter().find(|n| whole.at(&[section, n]).is_none()).unwrap_or_default()
    };
    loop {
        let renamed =
            |reference: &str| used.get(reference).is_some_and(|(_, name, _)| !reference.ends_with(&format!("/{name}")));
        let differs = |(section, name, found): &(&str, String, &Value)| {
            let mut inner = Vec::new();
            references(found, &mut inner);
            whole.at(&[section, name]).is_some_and(|own| own != *found || inner.iter().any(|r| renamed(r)))
        };
        let Some(reference) = used.iter().find(|(_, one)| differs(one)).map(|(r, _)| r.clone()) else { break };
        if let Some((section, name, _)) = used.get_mut(&reference) {
            *name = free(section, name);
        }
    }
    let names: BTreeMap<String, String> =
        used.iter().map(|(r, (section, name, _))| (r.clone(), format!("#/{section}/{name}"))).collect();
    let placed = |value: &Value| {
        let mut value = value.clone();
        rename(&mut value, &names);
        value
    };
    for (section, name, found) in used.values() {
        whole.set_default(&[section, name], placed(found));
    }
    for (path, item) in wanted {
        whole.set(&["paths", path], placed(item));
    }
}

fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) = members.get("$ref").and_then(|r| names.get(r.as_str()?)) {
                members.insert("$ref", name.as_str());
            }
            members.iter_mut().for_each(|(_, v)| rename(v, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_group_has_its_place() {
        let lost: Vec<_> = api::resource::all().iter().filter(|r| built_in(&r.group).is_none()).collect();
        assert!(lost.is_empty(), "{lost:?}");
        let order: Vec<i64> =
            GROUPS.split_whitespace().map(|g| group_priority(g.split_once('=').expect("a pair").0)).collect();
        assert!(order.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn documents_are_merged() {
        let mut whole = json!({"paths": {"/apis/": {"a": 1}}, "definitions": {"Meta": {"type": "object"}, "Same": {"type": "string"},
            "Holder": {"$ref": "#/definitions/Meta"}}});
        let item =
            json!({"get": {"parameters": [{"$ref": "#/parameters/p"}], "schema": {"$ref": "#/definitions/Thing"}}});
        let other = json!({
            "paths": {"/apis/": {}, "/api/v1/pods": item.clone(), "/apis/g/": {}, "/apis/g/v2/x": {}, "/apis/g/v1/things": item},
            "parameters": {"p": {"in": "query"}},
            "definitions": {"Meta": {"type": "integer"}, "Same": {"type": "string"}, "Unused": {}, "Holder": {"$ref": "#/definitions/Meta"},
                "Thing": {"properties": {"m": {"$ref": "#/definitions/Holder"}, "s": {"$ref": "#/definitions/Same"}, "t": {"$ref": "#/definitions/Thing"}}}}});
        add_document(&mut whole, &other, "g", "v1");
        let want = json!({
            "paths": {"/apis/": {"a": 1}, "/apis/g/": {}, "/apis/g/v1/things":
                {"get": {"parameters": [{"$ref": "#/parameters/p"}], "schema": {"$ref": "#/definitions/Thing"}}}},
            "parameters": {"p": {"in": "query"}},
            "definitions": {"Meta": {"type": "object"}, "Same": {"type": "string"}, "Holder": {"$ref": "#/definitions/Meta"},
                "Meta_v2": {"type": "integer"}, "Holder_v2": {"$ref": "#/definitions/Meta_v2"},
                "Thing": {"properties": {"m": {"$ref": "#/definitions/Holder_v2"}, "s": {"$ref": "#/definitions/Same"}, "t": {"$ref": "#/definitions/Thing"}}}}});
        assert_eq!(whole, want);
    }
}
