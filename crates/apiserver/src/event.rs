//! One change of one object, as watchers get it.
//!
//! Invariant: an event is encoded at most once per event type and encoding, whatever the number of watchers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::object::Object;
use crate::registry::Served;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

#[derive(Debug)]
pub struct Event {
    pub rv: u64,
    /// The state before; `None` when the object was created.
    pub old: Option<Arc<Object>>,
    /// The state after; `None` when the object was deleted.
    pub new: Option<Arc<Object>>,
    /// The last state under the revision of this event, for who must be told that the object is gone.
    gone: OnceLock<Arc<Object>>,
    lines: [OnceLock<Bytes>; 3],
    frames: OnceLock<Box<[OnceLock<Bytes>; 3]>>,
}

impl Event {
    pub fn new(rv: u64, old: Option<Arc<Object>>, new: Option<Arc<Object>>) -> Event {
        Event { rv, old, new, gone: OnceLock::new(), lines: Default::default(), frames: OnceLock::new() }
    }

    /// What a watcher that sees only matching objects is told: a change into its sight is an addition, a change out
    /// of its sight a deletion.
    pub fn seen_by(&self, matches: impl Fn(&Object) -> bool) -> Option<EventType> {
        let before = self.old.as_deref().is_some_and(&matches);
        let after = self.new.as_deref().is_some_and(&matches);
        match (before, after) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object that an event of this type carries.
    pub fn object(&self, kind: EventType) -> Option<&Arc<Object>> {
        match kind {
            EventType::Deleted => {
                let old = self.old.as_ref()?;
                Some(self.gone.get_or_init(|| Arc::new(old.at_revision(self.rv))))
            }
            _ => self.new.as_ref(),
        }
    }

    /// The line of a watch stream.
    pub fn line(&self, kind: EventType) -> Bytes {
        self.lines[kind as usize]
            .get_or_init(|| match self.object(kind) {
                Some(object) => encode(kind, object),
                None => Bytes::new(),
            })
            .clone()
    }

    /// The frame of a watch stream in protobuf. Only for watchers of the stored version, of which there is one.
    pub fn frame(&self, kind: EventType, served: &Served) -> Bytes {
        self.frames.get_or_init(Box::default)[kind as usize]
            .get_or_init(|| match self.object(kind) {
                Some(object) => frame(kind, &served.api_version, &served.kind, object.message()),
                None => Bytes::new(),
            })
            .clone()
    }

    /// About how much memory the event keeps. The old state is the new one of an earlier event, as a rule.
    pub fn size_bytes(&self) -> usize {
        let kept = self.new.as_ref().or(self.old.as_ref());
        256 + kept.map_or(0, |o| o.len_bytes())
    }
}

/// A line of a watch stream with this object.
pub fn encode(kind: EventType, object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(object.len_bytes() + 40);
    open(&mut out, kind);
    object.write_to(&mut out);
    out.extend_from_slice(b"}\n");
    out.into()
}

/// Starts a line; the object and `}\n` follow.
pub fn open(out: &mut Vec<u8>, kind: EventType) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

/// A frame of a watch stream with this message.
pub fn frame(kind: EventType, api_version: &str, object_kind: &str, message: &[u8]) -> Bytes {
    meta::protobuf::frame(kind.as_str(), api_version, object_kind, message).into()
}
