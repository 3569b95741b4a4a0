//! Follows a list and its watch for ever into a sink: relists when the server says so, backs off when it fails.
//! Reads: list and watch of the API. Writes: the sink. Invariant: ends at shutdown only; the sink gets complete lists and,
//! between them, every change in order.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const DELAY_FIRST: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// A watch that could not start this often in a row is replaced by a fresh list.
const STARTS_MAX: u32 = 3;
/// Objects per list page.
const PAGE_SIZE: u32 = 500;

/// Where a followed list goes. Objects come without managedFields.
pub trait Sink<K>: Send {
    /// A complete list.
    fn replace(&mut self, list: Vec<K>);
    fn apply(&mut self, object: K);
    fn delete(&mut self, object: K);
}

/// The watch settings every follower uses.
pub fn config(labels: Option<&str>, fields: Option<&str>) -> watcher::Config {
    let mut config = watcher::Config::default().page_size(PAGE_SIZE);
    config.label_selector = labels.map(String::from);
    config.field_selector = fields.map(String::from);
    config
}

/// Runs until `shutdown`.
pub async fn follow<K>(api: Api<K>, config: watcher::Config, sink: impl Sink<K>, shutdown: CancellationToken)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut follower = Follower { sink, listing: Vec::new(), backoff: Backoff::new(), failed_starts: 0 };
    while !shutdown.is_cancelled() {
        // one pass of this loop is one kube watcher, which starts with a list
        follower.listing = Vec::new();
        let mut stream = pin!(watcher(api.clone(), config.clone()));
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = shutdown.cancelled() => return,
            };
            let Some(event) = event else { break };
            match event {
                Ok(event) => follower.take(event),
                Err(error) => {
                    let delay = follower.backoff.next();
                    let relist = follower.wants_relist(&error);
                    tracing::debug!(path = api.resource_url(), %error, ?delay, relist, "watch failed, will retry");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = shutdown.cancelled() => return,
                    }
                    if relist {
                        break;
                    }
                }
            }
        }
    }
}

struct Follower<K, S> {
    sink: S,
    listing: Vec<K>,
    backoff: Backoff,
    failed_starts: u32,
}

impl<K: Resource, S: Sink<K>> Follower<K, S> {
    fn take(&mut self, event: Event<K>) {
        if !matches!(event, Event::Init) {
            self.failed_starts = 0;
            self.backoff.reset();
        }
        match event.modify(|object| object.meta_mut().managed_fields = None) {
            Event::Init => self.listing = Vec::new(),
            Event::InitApply(object) => self.listing.push(object),
            Event::InitDone => self.sink.replace(std::mem::take(&mut self.listing)),
            Event::Apply(object) => self.sink.apply(object),
            Event::Delete(object) => self.sink.delete(object),
        }
    }

    /// kube resumes from the last revision by itself, also from one the server no longer has or does not know yet (restored
    /// from a backup): then only a fresh list helps.
    fn wants_relist(&mut self, error: &watcher::Error) -> bool {
        match error {
            watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
                self.failed_starts += 1;
                status.code == 410 || self.failed_starts >= STARTS_MAX
            }
            _ => false,
        }
    }
}

struct Backoff {
    delay: Duration,
    last: Option<Instant>,
}

impl Backoff {
    fn new() -> Self {
        Backoff { delay: DELAY_FIRST, last: None }
    }

    fn reset(&mut self) {
        self.delay = DELAY_FIRST;
    }

    /// Doubles from call to call, with a jitter of a quarter; starts afresh after a minute without failures.
    fn next(&mut self) -> Duration {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last > Duration::from_secs(60)) {
            self.reset();
        }
        self.last = Some(now);
        let delay = self.delay;
        self.delay = (delay * 2).min(DELAY_MAX);
        delay.mul_f64(rand::random_range(0.75..1.25))
    }
}
