//! Resizing a Deployment in the middle of a rollout, or while paused: the change is shared out among its sets.
//! Reads and writes nothing. Invariant: pure; the sizes of the sets add up to no more than the Deployment's size and its surge.

use kube::ResourceExt;

use super::revision;
use super::rollout::{Draft, Place, Set};

/// True if a set was sized for another size of the Deployment than it has now.
pub fn is_due(draft: &Draft) -> bool {
    draft.all().filter(|set| set.replicas > 0).any(|set| {
        let desired = set.object.annotations().get(revision::DESIRED).and_then(|text| text.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != draft.limits.replicas)
    })
}

pub fn plan(draft: &mut Draft) {
    let wanted = draft.limits.replicas;
    if let Some(place) = active_or_latest(draft) {
        draft.resize(place, wanted);
        return;
    }
    let saturated = draft.new.as_ref().is_some_and(|new| is_saturated(new, wanted));
    if saturated {
        for index in 0..draft.old.len() {
            if draft.old[index].replicas > 0 {
                draft.resize(Place::Old(index), 0);
            }
        }
        return;
    }
    if draft.limits.rolling {
        share_out(draft);
    }
}

/// The only set with pods; without any, the new one or else the latest.
fn active_or_latest(draft: &Draft) -> Option<Place> {
    let mut active = places(draft).into_iter().filter(|(_, set)| set.replicas > 0).map(|(place, _)| place);
    match (active.next(), active.next()) {
        (Some(place), None) => Some(place),
        (Some(_), Some(_)) => None,
        (None, _) if draft.new.is_some() => Some(Place::New),
        (None, _) => draft.old.len().checked_sub(1).map(Place::Old),
    }
}

fn places<'a>(draft: &'a Draft) -> Vec<(Place, &'a Set)> {
    let new = draft.new.iter().map(|set| (Place::New, set));
    let old = draft.old.iter().enumerate().map(|(index, set)| (Place::Old(index), set));
    old.chain(new).collect()
}

fn number(set: &Set, key: &str) -> Option<i32> {
    set.object.annotations().get(key).and_then(|text| text.parse().ok())
}

fn is_saturated(new: &Set, wanted: i32) -> bool {
    number(new, revision::DESIRED) == Some(wanted) && new.replicas == wanted && new.available() == wanted
}

/// Proportional scaling: every set grows or shrinks with its share, and the largest takes what rounding leaves.
fn share_out(draft: &mut Draft) {
    let allowed = if draft.limits.replicas > 0 { draft.limits.replicas + draft.limits.surge } else { 0 };
    let mut active: Vec<(Place, Set)> = places(draft)
        .into_iter()
        .filter(|(_, set)| set.replicas > 0)
        .map(|(place, set)| (place, set.clone()))
        .collect();
    let total: i32 = active.iter().map(|(_, set)| set.replicas).sum();
    let to_add = allowed - total;
    // by size; of equals the newest grows and the oldest shrinks first
    active.sort_by(|(_, a), (_, b)| {
        let age = revision::age_order(&a.object).cmp(&revision::age_order(&b.object));
        b.replicas.cmp(&a.replicas).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<(Place, i32)> = Vec::with_capacity(active.len());
    for (place, set) in &active {
        let share = share(draft, set, to_add, added);
        added += share;
        sizes.push((*place, set.replicas + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (place, size) in sizes {
        draft.resize(place, size);
    }
}

fn share(draft: &Draft, set: &Set, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(draft, set);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// What the set would gain if it kept its part of the Deployment's size.
fn fraction(draft: &Draft, set: &Set) -> i32 {
    if draft.limits.replicas == 0 {
        return -set.replicas;
    }
    let sized_for = number(set, revision::MAX)
        .filter(|max| *max > 0)
        .or_else(|| draft.deployment.status.as_ref().and_then(|status| status.replicas))
        .filter(|count| *count > 0);
    let Some(sized_for) = sized_for else { return 0 };
    let size = f64::from(set.replicas) * f64::from(draft.limits.replicas + draft.limits.surge) / f64::from(sized_for);
    size.round() as i32 - set.replicas
}
