//! Packs wanted endpoints into slices with few writes: what is right stays, what changed is written in place, what is new goes
//! where a slice is written anyway.
//! Reads and writes nothing. Invariant: pure; afterwards each wanted endpoint is in exactly one slice, and no slice holds more
//! than its maximum.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::desired::{Group, Wanted, group_key};
use crate::owner;
use crate::service_endpoint::{HEADLESS, LAST_CHANGE, SERVICE_NAME, is_headless};

pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// What slices are made from: a service, or Endpoints that somebody else keeps.
pub struct Parent {
    /// Of a new slice. An existing one gets the labels, the one owner, and the annotations if there are any here.
    pub meta: ObjectMeta,
    /// One slice of each of these families stands even if no endpoint is wanted.
    pub families: Vec<&'static str>,
}

impl Parent {
    pub fn new(meta: &ObjectMeta, owner: OwnerReference, manager: &str) -> Self {
        let name = meta.name.clone().unwrap_or_default();
        let mut labels = meta.labels.clone().unwrap_or_default();
        labels.insert(SERVICE_NAME.to_string(), name.clone());
        labels.insert(MANAGED_BY.to_string(), manager.to_string());
        let meta = ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        Parent { meta, families: Vec::new() }
    }

    pub fn of_service(service: &Service) -> Self {
        let mut parent = Parent::new(&service.metadata, owner::reference(service), CONTROLLER);
        // one slice always stands, so that a watcher can tell "no endpoints" from "not looked at yet"
        parent.families = crate::service_endpoint::families(service);
        let labels = parent.meta.labels.get_or_insert_default();
        labels.remove(HEADLESS);
        if is_headless(service) {
            labels.insert(HEADLESS.to_string(), String::new());
        }
        parent
    }

    fn owns(&self, slice: &EndpointSlice) -> bool {
        let uid = self.meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str()).next();
        owner::is_controlled_by(&slice.metadata, uid.unwrap_or_default())
    }

    fn fits(&self, slice: &EndpointSlice) -> bool {
        let (meta, wanted) = (&slice.metadata, &self.meta);
        let now = meta.annotations.clone().unwrap_or_default();
        let annotated = wanted.annotations.as_ref().is_none_or(|wanted| *wanted == now);
        annotated && wanted.labels == meta.labels && self.owns(slice)
    }
}

#[derive(Debug)]
pub enum Step {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// `trigger` is the time of the change that caused this, for the annotation that measures how long it took.
pub fn plan(
    parent: &Parent,
    slices: &[Arc<EndpointSlice>],
    mut wanted: BTreeMap<Group, Wanted>,
    per_slice: usize,
    trigger: Option<&str>,
) -> Vec<Step> {
    let mut by_group: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    let mut steps = Vec::new();
    for slice in slices {
        match family_of(slice) {
            Some(family) => {
                let key = group_key(family, slice.ports.as_deref().unwrap_or_default());
                by_group.entry(key).or_default().push(slice.clone());
            }
            None => steps.push(Step::Delete(slice.clone())),
        }
    }
    if wanted.is_empty() {
        for family in &parent.families {
            wanted.insert(group_key(family, &[]), Wanted { ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    for (group, wanted) in wanted {
        let existing = by_group.remove(&group).unwrap_or_default();
        pack_group(parent, group.0, wanted, existing, per_slice.max(1), trigger, &mut steps);
    }
    steps.extend(by_group.into_values().flatten().map(Step::Delete));
    steps
}

fn family_of(slice: &EndpointSlice) -> Option<&'static str> {
    match slice.address_type.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    }
}

/// What an endpoint is known by: its pod, or else its address.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    format!("{uid}/{}", endpoint.addresses.first().map(String::as_str).unwrap_or_default())
}

struct Slot {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn pack_group(
    parent: &Parent,
    family: &'static str,
    wanted: Wanted,
    existing: Vec<Arc<EndpointSlice>>,
    per_slice: usize,
    trigger: Option<&str>,
    steps: &mut Vec<Step>,
) {
    let order: Vec<String> = wanted.endpoints.iter().map(identity).collect();
    let mut missing: HashMap<String, Endpoint> = order.iter().cloned().zip(wanted.endpoints).collect();
    let empty_is_wanted = missing.is_empty();
    let mut slots: Vec<Slot> = Vec::new();
    for slice in existing {
        let mut endpoints = Vec::new();
        let mut changed = !parent.fits(&slice);
        for old in slice.endpoints.iter().flatten() {
            match missing.remove(&identity(old)) {
                Some(new) => {
                    changed |= new != *old;
                    endpoints.push(new);
                }
                None => changed = true,
            }
        }
        slots.push(Slot { slice, endpoints, changed });
    }
    let mut rest =
        order.into_iter().filter_map(|identity| missing.remove(&identity)).collect::<Vec<_>>().into_iter().peekable();
    // first into slices that are written anyway, the fullest first; then into any that has room for all; then new ones
    slots.sort_by_key(|slot| (!slot.changed, std::cmp::Reverse(slot.endpoints.len())));
    for slot in slots.iter_mut().filter(|slot| slot.changed) {
        fill(slot, &mut rest, per_slice);
    }
    let left = rest.len();
    if left > 0
        && let Some(slot) =
            slots.iter_mut().filter(|slot| !slot.changed).find(|slot| slot.endpoints.len() + left <= per_slice)
    {
        fill(slot, &mut rest, per_slice);
    }
    let mut keep_one = empty_is_wanted;
    for slot in slots {
        if slot.endpoints.is_empty() && !keep_one {
            steps.push(Step::Delete(slot.slice));
            continue;
        }
        keep_one = false;
        if slot.changed {
            let mut slice = slot.slice.as_ref().clone();
            slice.metadata.labels.clone_from(&parent.meta.labels);
            slice.metadata.owner_references.clone_from(&parent.meta.owner_references);
            if parent.meta.annotations.is_some() {
                slice.metadata.annotations.clone_from(&parent.meta.annotations);
            }
            slice.endpoints = Some(slot.endpoints);
            note_trigger(&mut slice.metadata, trigger);
            steps.push(Step::Update(Box::new(slice)));
        }
    }
    while rest.peek().is_some() || keep_one {
        keep_one = false;
        let endpoints: Vec<Endpoint> = rest.by_ref().take(per_slice).collect();
        let mut slice = EndpointSlice {
            metadata: parent.meta.clone(),
            address_type: family.to_string(),
            ports: Some(wanted.ports.clone()),
            endpoints: Some(endpoints),
        };
        note_trigger(&mut slice.metadata, trigger);
        steps.push(Step::Create(Box::new(slice)));
    }
}

fn fill(slot: &mut Slot, rest: &mut impl Iterator<Item = Endpoint>, per_slice: usize) {
    while slot.endpoints.len() < per_slice {
        let Some(endpoint) = rest.next() else { return };
        slot.endpoints.push(endpoint);
        slot.changed = true;
    }
}

fn note_trigger(meta: &mut ObjectMeta, trigger: Option<&str>) {
    match trigger {
        Some(at) => {
            meta.annotations.get_or_insert_default().insert(LAST_CHANGE.to_string(), at.to_string());
        }
        None => {
            if let Some(annotations) = &mut meta.annotations {
                annotations.remove(LAST_CHANGE);
            }
        }
    }
}
