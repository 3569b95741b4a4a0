//! The model: what the store should be, as maps, one per revision. Slow and plain.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::request::KeyRange;
use crate::{
    Compare, EventKind, KeyValue, Op, OpResult, RangeRequest, RangeResponse, Relation, StoreError, Target, Txn,
    TxnResponse, WatchEvent,
};

pub(crate) type State = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    /// The state at every revision.
    pub(crate) states: BTreeMap<u64, State>,
    pub(crate) events: Vec<WatchEvent>,
    /// Seconds, and when it ends.
    pub(crate) leases: BTreeMap<i64, (u64, Duration)>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            states: BTreeMap::from([(1, State::new())]),
            events: Vec::new(),
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn now(&self) -> &State {
        &self.states[&self.revision]
    }

    pub(crate) fn range(&self, r: &RangeRequest) -> Result<RangeResponse, StoreError> {
        if r.revision > self.revision {
            return Err(StoreError::FutureRevision { requested: r.revision, current: self.revision });
        }
        if r.revision != 0 && r.revision < self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        let at = if r.revision == 0 { self.revision } else { r.revision };
        let range = KeyRange::new(r.start.clone(), r.end.clone());
        // Before the first state there was nothing.
        let state = self.states.range(..=at).next_back().map(|(_, s)| s.clone()).unwrap_or_default();
        let all: Vec<KeyValue> = state.into_values().filter(|kv| range.contains(&kv.key)).collect();
        let count = all.len();
        let mut kvs = all;
        if r.limit > 0 {
            kvs.truncate(r.limit);
        }
        let mut more = kvs.len() < count;
        if r.count_only {
            kvs.clear();
            more = false;
        }
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResponse { kvs, more, count, revision: self.revision })
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, StoreError> {
        let mut state = self.now().clone();
        let succeeded = txn.compares.iter().all(|c| holds(&state, c));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        self.refuse(ops)?;
        let revision = self.revision + 1;
        let results = ops.iter().map(|op| step(&mut state, op, revision)).collect();
        self.commit(state);
        Ok(TxnResponse { succeeded, revision: self.revision, results })
    }

    pub(crate) fn is_invalid(&self, ops: &[Op]) -> bool {
        let mut ops = ops.to_vec();
        for op in &mut ops {
            if let Op::Put { lease, .. } = op {
                *lease = 0;
            }
        }
        self.refuse(&ops).is_err()
    }

    fn refuse(&self, ops: &[Op]) -> Result<(), StoreError> {
        let mut written = Vec::new();
        for op in ops {
            if let Op::Put { lease, .. } = op
                && *lease != 0
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseNotFound { id: *lease });
            }
            if let Op::Put { key, .. } | Op::Delete { key } = op {
                if written.contains(key) {
                    return Err(StoreError::invalid("twice"));
                }
                written.push(key.clone());
            }
        }
        for op in ops {
            if let Op::DeleteRange { start, end } = op {
                let range = KeyRange::new(start.clone(), end.clone());
                if written.iter().any(|k| range.contains(k)) {
                    return Err(StoreError::invalid("in a deleted range"));
                }
            }
        }
        Ok(())
    }

    /// A new revision, if anything changed.
    fn commit(&mut self, state: State) {
        let revision = self.revision + 1;
        let old = self.now();
        let keys: std::collections::BTreeSet<&Bytes> = old.keys().chain(state.keys()).collect();
        let mut events = Vec::new();
        for key in keys {
            match (old.get(key), state.get(key)) {
                (prev, Some(new)) if new.mod_revision == revision => {
                    events.push(WatchEvent { kind: EventKind::Put, kv: new.clone(), prev: prev.cloned() });
                }
                (Some(prev), None) => {
                    let kv = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
                    events.push(WatchEvent { kind: EventKind::Delete, kv, prev: Some(prev.clone()) });
                }
                _ => {}
            }
        }
        if !events.is_empty() {
            self.events.extend(events);
            self.revision = revision;
            self.states.insert(revision, state);
        }
    }

    pub(crate) fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        self.compacted = revision;
        Ok(())
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), StoreError> {
        self.leases.remove(&id).ok_or(StoreError::LeaseNotFound { id })?;
        let mut state = self.now().clone();
        state.retain(|_, kv| kv.lease != id);
        self.commit(state);
        Ok(())
    }

    pub(crate) fn due(&self, now: Duration) -> Vec<i64> {
        let mut due: Vec<(Duration, i64)> =
            self.leases.iter().filter(|(_, (_, at))| *at <= now).map(|(id, (_, at))| (*at, *id)).collect();
        due.sort();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// The leases' time begins anew at opening.
    pub(crate) fn reopened(&mut self, now: Duration) {
        for (ttl_s, at) in self.leases.values_mut() {
            *at = now + Duration::from_secs(*ttl_s);
        }
    }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let kv = state.get(&compare.key);
    let order = match &compare.target {
        Target::ModRevision(n) => kv.map_or(0, |kv| kv.mod_revision).cmp(n),
        Target::CreateRevision(n) => kv.map_or(0, |kv| kv.create_revision).cmp(n),
        Target::Version(n) => kv.map_or(0, |kv| kv.version).cmp(n),
        Target::Lease(n) => kv.map_or(0, |kv| kv.lease).cmp(n),
        Target::Exists(b) => kv.is_some().cmp(b),
        Target::Value(value) => match kv {
            Some(kv) => kv.value.cmp(value),
            None => return false,
        },
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

fn step(state: &mut State, op: &Op, revision: u64) -> OpResult {
    match op {
        Op::Put { key, value, lease } => {
            let (create_revision, version) =
                state.get(key).map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
            let (key, value) = (key.clone(), value.clone());
            let kv =
                KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, version, lease: *lease };
            state.insert(key, kv);
            OpResult::Put
        }
        Op::Delete { key } => OpResult::Deleted(usize::from(state.remove(key).is_some())),
        Op::DeleteRange { start, end } => {
            let range = KeyRange::new(start.clone(), end.clone());
            let before = state.len();
            state.retain(|key, _| !range.contains(key));
            OpResult::Deleted(before - state.len())
        }
        Op::Get { key } => OpResult::Got(state.get(key).cloned()),
    }
}
