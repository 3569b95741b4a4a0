//! What waits for the commit thread. Senders take a permit first, so the queue is bounded; the thread takes all that is there, which
//! makes the next group. Invariant: once closed, nothing is taken in any more, and what was in it is handed out once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::StoreError;
use crate::group::{Moving, Outcome};
use crate::request::{Lease, Txn};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
pub(crate) enum Request {
    Txn {
        txn: Txn,
        reply: Reply<Outcome>,
        _permit: OwnedSemaphorePermit,
    },
    Compact {
        revision: u64,
        reply: Reply<()>,
    },
    /// Id 0: choose one.
    Grant {
        id: i64,
        ttl_s: u64,
        reply: Reply<Lease>,
    },
    KeepAlive {
        id: i64,
        reply: Reply<Lease>,
    },
    Revoke {
        id: i64,
        reply: Reply<()>,
    },
    /// From the housekeeper, which waits on a thread of its own.
    Move {
        items: Vec<Moving>,
        reply: mpsc::SyncSender<Result<(), StoreError>>,
    },
    /// Says when no write is on its way, and then waits until the other side is dropped.
    Hold {
        held: mpsc::SyncSender<()>,
        release: mpsc::Receiver<()>,
    },
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Txn { txn, .. } => txn.success.iter().map(op_bytes).sum(),
            Self::Move { items, .. } => items.iter().map(|m| m.value.len()).sum(),
            _ => 0,
        }
    }
}

fn op_bytes(op: &crate::Op) -> usize {
    match op {
        crate::Op::Put { key, value, .. } => key.len() + value.len(),
        _ => 0,
    }
}

/// A group takes no more requests after so many, or so many bytes.
const GROUP_REQUESTS: usize = 2048;
const GROUP_BYTES: usize = 8 << 20;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    closed: bool,
    poked: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request is dropped, and with it its reply, when the queue is closed.
    pub(crate) fn push(&self, request: Request) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(StoreError::Closed);
        }
        inner.requests.push_back(request);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Makes [`Queue::take`] return, if only to look at the clock.
    pub(crate) fn poke(&self) {
        self.lock().poked = true;
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        // Dropping a request answers `Closed`.
        inner.requests.clear();
        drop(inner);
        self.changed.notify_all();
    }

    /// The next group, waiting at most `wait` for it (possibly in vain). `None` once closed.
    pub(crate) fn take(&self, wait: Option<Duration>) -> Option<Vec<Request>> {
        let mut inner = self.lock();
        while inner.requests.is_empty() && !inner.closed && !inner.poked {
            match wait {
                None => inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let woken = self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner);
                    inner = woken.0;
                    break;
                }
            }
        }
        if inner.closed {
            return None;
        }
        inner.poked = false;
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            let Some(request) = inner.requests.pop_front() else { break };
            bytes += request.bytes();
            group.push(request);
        }
        Some(group)
    }
}
