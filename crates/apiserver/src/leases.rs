//! How long objects live: Events go after an hour.
//!
//! Writes: leases of the store, each shared by the events of a short while so that there are few. Invariant: an event
//! lives at least as long as its time, and at most a twentieth longer.

use std::time::{Duration, Instant};

use meta::Status;
use store::Store;
use tokio::sync::Mutex;

use crate::call::Call;
use crate::registry::Served;
use crate::storage::store_error;

/// Objects that share one lease.
const SHARED_BY: usize = 1000;

pub struct Leases {
    event_ttl: Duration,
    current: Mutex<Option<Current>>,
}

struct Current {
    id: i64,
    until: Instant,
    objects: usize,
}

impl Leases {
    pub fn new(event_ttl: Duration) -> Leases {
        Leases { event_ttl, current: Mutex::default() }
    }

    /// The lease that an object is written with; 0 for one that stays.
    pub async fn for_new(&self, call: &Call, served: &Served) -> Result<i64, Status> {
        if served.info.plural != "events" || served.custom.is_some() {
            return Ok(0);
        }
        self.event(&*call.shared.storage.store).await
    }

    async fn event(&self, store: &dyn Store) -> Result<i64, Status> {
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(lease) = current.as_mut()
            && lease.until > now
            && lease.objects < SHARED_BY
        {
            lease.objects += 1;
            return Ok(lease.id);
        }
        let spare = self.event_ttl / 20;
        let lease =
            store.lease_grant(0, (self.event_ttl + spare).as_secs().max(1)).await.map_err(|e| store_error(&e))?;
        *current = Some(Current { id: lease.id, until: now + spare, objects: 1 });
        Ok(lease.id)
    }
}
