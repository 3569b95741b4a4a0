//! What kinds the API server serves, for the controllers that work on all of them.
//! Reads: aggregated discovery. Writes nothing. Invariant: a group that cannot be discovered is named, never silently missing.

use kube::Client;
use kube::client::{APIGroupDiscovery, APIResourceDiscovery};
use kube::core::ApiResource;

use crate::context::{During, Result};

/// One served resource in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    /// The version clients should use among those of the group that serve the resource.
    pub preferred: bool,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Discovered {
    pub served: Vec<Served>,
    /// `group/version` of what could not be discovered now.
    pub failed: Vec<String>,
}

impl Discovered {
    /// Every resource once, in its preferred version; without the second name of Event.
    pub fn preferred(&self) -> impl Iterator<Item = &Served> {
        self.served.iter().filter(|served| {
            let event = served.resource.group == "events.k8s.io" && served.resource.plural == "events";
            served.preferred && !event
        })
    }

    /// The resource of a kind, in this version or else in any.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Served> {
        let mut same =
            self.served.iter().filter(|served| served.resource.group == group && served.resource.kind == kind);
        same.clone().find(|served| served.resource.version == version).or_else(|| same.next())
    }
}

pub async fn discover(client: &Client) -> Result<Discovered> {
    let core =
        client.list_core_api_versions_aggregated().await.during(|| "cannot discover the core API".to_string())?;
    let named = client.list_api_groups_aggregated().await.during(|| "cannot discover the API groups".to_string())?;
    let mut found = Discovered::default();
    for group in core.items.iter().chain(&named.items) {
        read_group(group, &mut found);
    }
    Ok(found)
}

fn read_group(group: &APIGroupDiscovery, found: &mut Discovered) {
    let name = group.metadata.as_ref().and_then(|meta| meta.name.as_deref()).unwrap_or_default();
    for version in &group.versions {
        let number = version.version.as_deref().unwrap_or_default();
        let api_version = if name.is_empty() { number.to_string() } else { format!("{name}/{number}") };
        if version.freshness.as_deref() == Some("Stale") {
            found.failed.push(api_version.clone());
        }
        for resource in &version.resources {
            if let Some(mut served) = read_resource(name, number, &api_version, resource) {
                served.preferred = !found
                    .served
                    .iter()
                    .any(|known| known.resource.group == name && known.resource.plural == served.resource.plural);
                found.served.push(served);
            }
        }
    }
}

fn read_resource(group: &str, version: &str, api_version: &str, resource: &APIResourceDiscovery) -> Option<Served> {
    let resource_name = resource.resource.clone()?;
    let kind = resource.response_kind.as_ref().and_then(|kind| kind.kind.clone())?;
    Some(Served {
        resource: ApiResource {
            group: group.to_string(),
            version: version.to_string(),
            api_version: api_version.to_string(),
            kind,
            plural: resource_name,
        },
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: resource.verbs.clone(),
        preferred: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_is_preferred() {
        let group: APIGroupDiscovery = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "autoscaling"},
            "versions": [
                {"version": "v2", "freshness": "Current", "resources": [{"resource": "hpas", "scope": "Namespaced",
                    "responseKind": {"group": "autoscaling", "version": "v2", "kind": "HPA"}, "verbs": ["list"]}]},
                {"version": "v1", "freshness": "Stale", "resources": [{"resource": "hpas", "scope": "Namespaced",
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "HPA"}, "verbs": ["list"]}]}]
        }))
        .unwrap();
        let mut found = Discovered::default();
        read_group(&group, &mut found);
        let preferred: Vec<&str> = found.preferred().map(|served| served.resource.api_version.as_str()).collect();
        assert_eq!(preferred, ["autoscaling/v2"]);
        assert_eq!(found.failed, ["autoscaling/v1"]);
        assert_eq!(found.of_kind("autoscaling", "v1", "HPA").unwrap().resource.version, "v1");
        assert_eq!(found.of_kind("autoscaling", "v9", "HPA").unwrap().resource.version, "v2");
    }
}
