//! What becomes of an object whose owners are as they are.
//! Reads and writes nothing. Invariant: pure; an object with one living owner is never deleted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN};

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Alive,
    Absent,
    /// Being deleted in the foreground.
    Waiting,
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Keep,
    /// Keep with these owners only.
    Disown(Vec<OwnerReference>),
    /// Delete; `unblock` first, since a dependent waits for its own dependents in a circle.
    Delete {
        policy: PropagationPolicy,
        unblock: bool,
    },
}

/// `has_dependents` and `circular` (one of them is itself going in the foreground) are as the graph knows.
pub fn judge(meta: &ObjectMeta, states: &[State], has_dependents: bool, circular: bool) -> Verdict {
    let owners: Vec<&OwnerReference> = meta.owner_references.iter().flatten().collect();
    if owners.is_empty() || owners.len() != states.len() {
        return Verdict::Keep;
    }
    if states.contains(&State::Alive) {
        let alive = owners.iter().zip(states).filter(|(_, state)| **state == State::Alive);
        let alive: Vec<OwnerReference> = alive.map(|(owner, _)| (*owner).clone()).collect();
        return if alive.len() == owners.len() { Verdict::Keep } else { Verdict::Disown(alive) };
    }
    if states.contains(&State::Waiting) && has_dependents {
        return Verdict::Delete { policy: PropagationPolicy::Foreground, unblock: circular };
    }
    let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    let policy = match (has(ORPHAN), has(FOREGROUND)) {
        (true, _) => PropagationPolicy::Orphan,
        (_, true) => PropagationPolicy::Foreground,
        _ => PropagationPolicy::Background,
    };
    Verdict::Delete { policy, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::State::*;
    use super::*;

    #[test]
    fn verdicts() {
        let owner = |uid: &str| OwnerReference { uid: uid.into(), ..OwnerReference::default() };
        let meta = |count: usize, finalizer: Option<&str>| ObjectMeta {
            owner_references: Some((0..count).map(|n| owner(&n.to_string())).collect()),
            finalizers: finalizer.map(|name| vec![name.to_string()]),
            ..ObjectMeta::default()
        };
        let delete = |policy, unblock| Verdict::Delete { policy, unblock };
        use PropagationPolicy::{Background, Foreground, Orphan};
        for (meta, states, dependents, circular, want) in [
            (meta(0, None), vec![], false, false, Verdict::Keep),
            (meta(1, None), vec![Alive], true, false, Verdict::Keep),
            (meta(1, None), vec![Absent], true, false, delete(Background, false)),
            (meta(1, Some(ORPHAN)), vec![Absent], true, false, delete(Orphan, false)),
            (meta(1, Some(FOREGROUND)), vec![Absent], true, false, delete(Foreground, false)),
            (meta(3, None), vec![Absent, Alive, Waiting], true, false, Verdict::Disown(vec![owner("1")])),
            (meta(2, None), vec![Waiting, Absent], true, false, delete(Foreground, false)),
            (meta(1, None), vec![Waiting], true, true, delete(Foreground, true)),
            (meta(1, None), vec![Waiting], false, false, delete(Background, false)),
        ] {
            assert_eq!(judge(&meta, &states, dependents, circular), want, "{states:?}");
        }
    }
}
