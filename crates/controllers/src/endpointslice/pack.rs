//! Packs wanted endpoints into slices with few writes: what is right stays, what changed is written in place, what is new goes
//! where a slice is written anyway.
//! Reads and writes nothing. Invariant: pure; afterwards each wanted endpoint is in exactly one slice, and no slice holds more
//! than its maximum.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::desired::{Group, Wanted, group_key};
use crate::owner;
use crate::service_endpoint::{HEADLESS, LAST_CHANGE, SERVICE_NAME, is_headless};

pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

#[derive(Debug)]
pub enum Step {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// `trigger` is the time of the change that caused this, for the annotation that measures how long it took.
pub fn plan(
    service: &Service,
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
        // one slice always stands, so that a watcher can tell "no endpoints" from "not looked at yet"
        for family in crate::service_endpoint::families(service) {
            wanted.insert(group_key(family, &[]), Wanted { ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    for (group, wanted) in wanted {
        let existing = by_group.remove(&group).unwrap_or_default();
        pack_group(service, group.0, wanted, existing, per_slice.max(1), trigger, &mut steps);
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
    service: &Service,
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
        let mut changed = labels(service, &slice) != slice.metadata.labels
            || !owner::is_controlled_by(&slice.metadata, service.uid().as_deref().unwrap_or_default());
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
            slice.metadata.labels = labels(service, &slice);
            slice.metadata.owner_references = Some(vec![owner::reference(service)]);
            slice.endpoints = Some(slot.endpoints);
            note_trigger(&mut slice.metadata, trigger);
            steps.push(Step::Update(Box::new(slice)));
        }
    }
    while rest.peek().is_some() || keep_one {
        keep_one = false;
        let endpoints: Vec<Endpoint> = rest.by_ref().take(per_slice).collect();
        let mut slice = EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", service.name_any())),
                namespace: service.namespace(),
                owner_references: Some(vec![owner::reference(service)]),
                ..ObjectMeta::default()
            },
            address_type: family.to_string(),
            ports: Some(wanted.ports.clone()),
            endpoints: Some(endpoints),
        };
        slice.metadata.labels = labels(service, &slice);
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

/// The service's labels, and the ones that say whose the slice is.
fn labels(service: &Service, _slice: &EndpointSlice) -> Option<BTreeMap<String, String>> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_string(), service.name_any());
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    Some(labels)
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
