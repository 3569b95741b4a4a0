//! The node ports that services have: one bit each, in one object of the store.
//!
//! Reads and writes `/registry/ranges/servicenodeports`, a RangeAllocation as upstream keeps it: `data` is one big-endian
//! number whose lowest bit stands for the first port. Invariant: the object changes in the transaction that stores the
//! service, and only from the state that the ports were chosen in, so no API server gives out another's port.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use meta::{Status, Value, json};
use store::Op;
use tokio::sync::{Mutex, MutexGuard};

use super::ranges;
use crate::protobuf;
use crate::storage::{Storage, store_error};

pub const KEY: &str = "/registry/ranges/servicenodeports";

pub struct Ports {
    range: RangeInclusive<u16>,
    state: Mutex<State>,
}

/// The object as last read or written.
#[derive(Default)]
pub struct State {
    /// 0: there is none.
    pub revision: u64,
    pub used: BTreeSet<u16>,
    /// Ports that were used by nobody when last looked at.
    pub leaks: BTreeSet<u16>,
}

impl Ports {
    pub fn new(range: RangeInclusive<u16>) -> Ports {
        Ports { range, state: Mutex::default() }
    }

    /// The state, for one at a time.
    pub async fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    pub async fn load(&self, storage: &Storage, state: &mut State) -> Result<(), Status> {
        let kv = storage.store.get(KEY.into()).await.map_err(|e| store_error(&e))?;
        state.revision = kv.as_ref().map_or(0, |kv| kv.mod_revision);
        // One of another range counts for nothing: the repair makes it anew.
        state.used = kv.and_then(|kv| self.decode(kv.value)).unwrap_or_default();
        Ok(())
    }

    /// Any free port that is not among `mine` either.
    pub async fn any(&self, mine: &BTreeSet<u16>) -> Option<u16> {
        let state = self.lock().await;
        let (first, last) = (u128::from(*self.range.start()), u128::from(*self.range.end()));
        let reserved = ((last - first + 1) / 32).clamp(16, 128);
        let is_taken = |n| u16::try_from(n).is_ok_and(|n| state.used.contains(&n) || mine.contains(&n));
        ranges::any(first..=last, reserved, is_taken).and_then(|n| u16::try_from(n).ok())
    }

    /// Whether a service may ask for this port; the error is upstream's.
    pub async fn admit(&self, storage: &Storage, port: i64) -> Result<u16, String> {
        let found = u16::try_from(port).ok().filter(|p| self.range.contains(p));
        let Some(found) = found else {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}",
                self.name()
            ));
        };
        let mut state = self.lock().await;
        if state.used.contains(&found) {
            // Another server may have freed it.
            self.load(storage, &mut state).await.map_err(|status| status.to_string())?;
        }
        if state.used.contains(&found) { Err("provided port is already allocated".into()) } else { Ok(found) }
    }

    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// `30000-32767`
    pub fn name(&self) -> String {
        format!("{}-{}", self.range.start(), self.range.end())
    }

    /// What stores these ports as the used ones.
    pub fn put(&self, used: &BTreeSet<u16>) -> Op {
        let first = *self.range.start();
        let mut data = vec![0u8; used.last().map_or(0, |last| usize::from(last - first) / 8 + 1)];
        for port in used {
            let bit = usize::from(port - first);
            let at = data.len() - 1 - bit / 8;
            data[at] |= 1 << (bit % 8);
        }
        let object = json!({
            "apiVersion": "v1", "kind": "RangeAllocation", "metadata": {}, "range": self.name(), "data": STANDARD.encode(data),
        });
        Op::put(KEY, object.to_vec())
    }

    fn decode(&self, value: Bytes) -> Option<BTreeSet<u16>> {
        let object: Value = meta::parse(&protobuf::stored(value)?).ok()?;
        if object.str_at(&["range"]) != Some(&self.name()) {
            return None;
        }
        let data = STANDARD.decode(object.str_at(&["data"]).unwrap_or_default()).ok()?;
        let bits = data.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        Some(self.range.clone().zip(bits).filter(|(_, used)| *used).map(|(port, _)| port).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_upstreams() {
        let ports = Ports::new(30000..=32767);
        for (used, data) in [(vec![], ""), (vec![30000], "AQ=="), (vec![30000, 30009, 30016], "AQIB")] {
            let used: BTreeSet<u16> = used.into_iter().collect();
            let Op::Put { value, .. } = ports.put(&used) else { panic!("it is put") };
            let want = format!(
                r#"{{"apiVersion":"v1","data":"{data}","kind":"RangeAllocation","metadata":{{}},"range":"30000-32767"}}"#
            );
            assert_eq!(String::from_utf8_lossy(&value), want);
            assert_eq!(ports.decode(value.clone()), Some(used));
            assert_eq!(Ports::new(30000..=30001).decode(value), None);
        }
        // The same as an upstream server writes it: runtime.Unknown around the message.
        let message = b"\x0a\x00\x12\x0b30000-32767\x1a\x03\x01\x02\x01";
        let mut written = b"k8s\0\x0a\x15\x0a\x02v1\x12\x0fRangeAllocation\x12".to_vec();
        written.push(message.len() as u8);
        written.extend_from_slice(message);
        assert_eq!(ports.decode(written.into()), Some([30000, 30009, 30016].into()));
    }
}
