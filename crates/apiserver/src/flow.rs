//! Priority and fairness: which requests go first, how many at once, and who waits.
//!
//! Reads: flow schemas and priority levels, from the caches. A request is put into a level by the first schema that fits;
//! there it takes seats, waits in one of the queues that its flow was dealt, or is refused. Source: KEP-1040 and the page
//! "API Priority and Fairness". Invariants: seats taken are given back when their guard drops; the seats of all limited
//! levels are never more than the server has; the limit that a level does not lend is always there for it.

mod counts;
pub mod defaults;
mod follow;
mod level;
mod schema;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meta::{Status, Value};
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::metrics::Page;
use crate::user::User;

use counts::{Counts, Held};
pub use follow::{follow, settle};
use level::{Entry, Level, Levels, Refusal};
use schema::FlowSchema;

/// A number of a level, for the metrics.
type Read = fn(&Levels<oneshot::Sender<Seats>>, &Level<oneshot::Sender<Seats>>) -> usize;

/// What classification looks at.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub target: Target<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str },
    Path(&'a str),
}

pub struct Flow {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Reads and writes under way.
    inflight: [AtomicUsize; 2],
    /// How long a request waits in a queue.
    patience: Duration,
}

struct State {
    /// By precedence, then name.
    schemas: Vec<FlowSchema>,
    levels: Levels<oneshot::Sender<Seats>>,
}

/// Seats among the requests under way; given back when dropped.
pub struct Seats {
    inner: Arc<Inner>,
    /// `None` in an exempt level, and once given back.
    entry: Option<Entry>,
    began: Instant,
    counted: Option<usize>,
    counts: Option<(Arc<Counts>, [Held; 2])>,
}

impl Drop for Seats {
    fn drop(&mut self) {
        if let Some(kind) = self.counted {
            self.inner.inflight[kind].fetch_sub(1, Ordering::Relaxed);
        }
        if let Some((counts, _)) = &self.counts {
            counts.end(self.began.elapsed());
        }
        if let Some(entry) = self.entry.take() {
            let mut state = self.inner.lock();
            state.levels.leave(&entry, self.began.elapsed());
            self.inner.admit(&mut state);
        }
    }
}

/// How a request was classified: the answer says so in its headers.
#[derive(Clone, Debug, Default)]
pub struct Class {
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
    counts: Option<Arc<Counts>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(self: &Arc<Self>, entry: Option<Entry>) -> Seats {
        let entry = entry.filter(Entry::is_limited);
        Seats { inner: self.clone(), entry, began: Instant::now(), counted: None, counts: None }
    }

    /// Hands out the seats that have become free.
    fn admit(self: &Arc<Self>, state: &mut State) {
        while let Some((entry, waiter)) = state.levels.next() {
            let seats = self.seats(Some(entry));
            // Who waited may have gone: the seats come back and go to the next. Not by their drop, which would lock again.
            if let Err(mut seats) = waiter.send(seats)
                && let Some(entry) = seats.entry.take()
            {
                state.levels.leave(&entry, Duration::ZERO);
            }
        }
    }
}

impl Flow {
    /// With the mandatory objects only, until `configure` is told of the stored ones.
    pub fn new(limits: &Limits) -> Flow {
        let seats = limits.reads + limits.writes;
        let state = State { schemas: Vec::new(), levels: Levels::new(seats) };
        // A quarter of the request's time, as upstream.
        let flow = Flow {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                inflight: Default::default(),
                patience: limits.request / 4,
            }),
        };
        flow.configure(&[], &[]);
        flow
    }

    /// Takes these stored objects as the configuration. Mandatory ones that are missing are added.
    pub fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let with_mandatory = |stored: &[Value], mandatory: &[Value]| {
            let missing = |m: &&Value| !stored.iter().any(|s| crate::metadata::name(s) == crate::metadata::name(m));
            let missing: Vec<Value> = mandatory.iter().filter(missing).cloned().collect();
            stored.iter().cloned().chain(missing).collect::<Vec<_>>()
        };
        let levels = with_mandatory(levels, &defaults::mandatory_levels());
        let mut schemas: Vec<FlowSchema> =
            with_mandatory(schemas, &defaults::mandatory_schemas()).iter().map(FlowSchema::read).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let mut state = self.inner.lock();
        for schema in &mut schemas {
            let same = |s: &&FlowSchema| s.name == schema.name && s.level == schema.level;
            if let Some(before) = state.schemas.iter().find(same) {
                schema.counts = before.counts.clone();
            }
        }
        state.levels.configure(&levels);
        state.schemas = schemas;
        self.inner.admit(&mut state);
    }

    /// How a request would be classified that takes no seats because it lasts.
    pub fn classify(&self, digest: &Digest<'_>) -> Class {
        self.inner.lock().find(digest).2
    }

    /// Takes `width` seats for a request, waiting for them when there are none. The class is told in any case.
    pub async fn enter(&self, digest: &Digest<'_>, width: usize) -> (Class, Result<Seats, Status>) {
        let (class, seats) = self.take(digest, width).await;
        let seats = seats.map(|mut seats| {
            let kind = usize::from(!matches!(digest.verb, "get" | "list" | "watch" | "head" | "options"));
            self.inner.inflight[kind].fetch_add(1, Ordering::Relaxed);
            seats.counted = Some(kind);
            let width = seats.entry.as_ref().map_or(width, Entry::width);
            seats.counts = class.counts.as_ref().map(|counts| (counts.clone(), counts.begin(width)));
            seats
        });
        (class, seats)
    }

    async fn take(&self, digest: &Digest<'_>, width: usize) -> (Class, Result<Seats, Status>) {
        let began = Instant::now();
        let waited = |class: &Class, refusal| class.counts.iter().for_each(|c| c.waited(began.elapsed(), refusal));
        let (class, waiting) = {
            let mut state = self.inner.lock();
            let (level, flow, class) = state.find(digest);
            let mut receiver = None;
            let who = || {
                let (sender, waiting) = oneshot::channel();
                receiver = Some(waiting);
                sender
            };
            match (state.levels.enter(&level, flow, width, who), receiver) {
                (Ok(Some(entry)), _) => {
                    if entry.is_limited() {
                        waited(&class, None);
                    }
                    return (class, Ok(self.inner.seats(Some(entry))));
                }
                (Ok(None), Some(waiting)) => (class, waiting),
                (result, _) => {
                    waited(&class, Some(result.err().unwrap_or(Refusal::Limit)));
                    return (class, Err(refused()));
                }
            }
        };
        let _waiting = class.counts.as_ref().map(Counts::wait);
        match tokio::time::timeout(self.inner.patience, waiting).await {
            Ok(Ok(seats)) => {
                waited(&class, None);
                (class, Ok(seats))
            }
            _ => {
                waited(&class, Some(Refusal::TimeOut));
                self.inner.lock().levels.forget(|sender| sender.is_closed());
                (class, Err(refused()))
            }
        }
    }

    /// Reads and writes under way.
    pub fn inflight(&self) -> (usize, usize) {
        let [reads, writes] = &self.inner.inflight;
        (reads.load(Ordering::Relaxed), writes.load(Ordering::Relaxed))
    }

    /// Appends the metrics, under upstream's names.
    pub fn write_metrics(&self, page: &mut Page) {
        let state = self.inner.lock();
        let metrics: [(&str, &str, Read); 3] = [
            ("nominal", "Nominal number of execution seats configured for each priority level", |_, l| l.nominal()),
            (
                "lower",
                "Configured lower bound on number of execution seats available to each priority level",
                |_, l| l.reserve(),
            ),
            (
                "upper",
                "Configured upper bound on number of execution seats available to each priority level",
                |levels, l| levels.most(l),
            ),
        ];
        for (name, help, read) in metrics {
            let name = format!("apiserver_flowcontrol_{name}_limit_seats");
            page.head(&name, "gauge", help);
            for level in state.levels.iter() {
                page.line(format_args!("{name}{{priority_level=\"{}\"}} {}", level.name, read(&state.levels, level)));
            }
        }
        let all: Vec<Arc<Counts>> = state.schemas.iter().map(|s| s.counts.clone()).collect();
        drop(state);
        counts::write(&all, page);
    }
}

impl State {
    /// The level's name, the flow's number, the class.
    fn find(&self, digest: &Digest<'_>) -> (Arc<str>, u64, Class) {
        let fits = self.schemas.iter().find(|s| s.fits(digest) && self.levels.get(&s.level).is_some());
        let Some(schema) = fits else {
            // Nothing fits a request that is in neither of the system's two groups.
            return (defaults::CATCH_ALL.into(), 0, Class::default());
        };
        let level_uid = self.levels.get(&schema.level).map(|l| l.uid.clone()).unwrap_or_default();
        let class = Class { schema_uid: schema.uid.clone(), level_uid, counts: Some(schema.counts.clone()) };
        (schema.level.clone(), schema.flow(digest), class)
    }
}

fn refused() -> Status {
    Status::too_many_requests("too many requests, please try again later", 1)
}

/// How many seats a list takes: one for every hundred objects that it may have to look at. Source: KEP-1040, "Width of
/// LIST requests".
pub fn list_width(objects: usize, limit: usize) -> usize {
    const OBJECTS_PER_SEAT: usize = 100;
    const MAX_SEATS: usize = 10;
    let objects = if limit == 0 { objects } else { objects.min(limit) };
    objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, MAX_SEATS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    fn flow(seats: usize, queuing: Value) -> Flow {
        let limits = Limits { reads: seats, writes: 0, request: Duration::from_secs(60), ..Limits::default() };
        let flow = Flow::new(&limits);
        // The catch-all level has five shares, so nearly all seats are this one's.
        let level = json!({"metadata": {"name": "l", "uid": "lu"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 10000, "lendablePercent": 0, "limitResponse": queuing}}});
        let schema = json!({"metadata": {"name": "s", "uid": "su"}, "spec": {
            "priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 10, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "Group", "group": {"name": "system:authenticated"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}]}});
        flow.configure(&[schema], &[level]);
        flow
    }

    fn digest(user: &User) -> Digest<'_> {
        let target = Target::Resource { group: "", resource: "pods", subresource: "", namespace: "a" };
        Digest { user, verb: "get", target }
    }

    #[tokio::test]
    async fn seats_are_bounded_and_given_back() {
        let flow = flow(2, json!({"type": "Reject"}));
        let user = User::new("u", ["g"]);
        let (class, first) = flow.enter(&digest(&user), 1).await;
        assert_eq!((&*class.schema_uid, &*class.level_uid), ("su", "lu"));
        let second = flow.enter(&digest(&user), 1).await.1;
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(flow.enter(&digest(&user), 1).await.1.err().map(|s| s.code), Some(429));
        drop(first);
        assert!(flow.enter(&digest(&user), 1).await.1.is_ok());
        let masters = User::loopback();
        let all: Vec<Seats> = futures::future::join_all(
            (0..5).map(|_| async { flow.enter(&digest(&masters), 1).await.1.expect("masters are exempt") }),
        )
        .await;
        assert_eq!(all.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_and_give_up() {
        let flow =
            Arc::new(flow(1, json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}})));
        let user = User::new("u", ["g"]);
        let held = flow.enter(&digest(&user), 1).await.1.expect("free");
        let waiting =
            |flow: Arc<Flow>, user: Arc<User>| tokio::spawn(async move { flow.enter(&digest(&user), 1).await.1 });
        let (a, b) = (waiting(flow.clone(), user.clone()), waiting(flow.clone(), user.clone()));
        tokio::task::yield_now().await;
        assert!(flow.enter(&digest(&user), 1).await.1.is_err(), "the queue is full");
        drop(held);
        let first = a.await.expect("no panic");
        assert!(first.is_ok());
        // The second waits longer than anybody has to.
        assert_eq!(b.await.expect("no panic").err().map(|s| s.code), Some(429));
        drop(first);
        assert!(flow.enter(&digest(&user), 1).await.1.is_ok());
        let mut page = Page::default();
        flow.write_metrics(&mut page);
        for line in [
            "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"queue-full\"} 1",
            "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"time-out\"} 1",
            "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"s\",priority_level=\"l\"} 0",
            "apiserver_flowcontrol_request_wait_duration_seconds_count{execute=\"true\",flow_schema=\"s\",priority_level=\"l\"} 3",
        ] {
            assert!(page.0.contains(line), "{line} in {}", page.0);
        }
    }

    #[test]
    fn widths() {
        for (objects, limit, want) in [(0, 0, 1), (100, 0, 1), (101, 0, 2), (100_000, 0, 10), (100_000, 500, 5)] {
            assert_eq!(list_width(objects, limit), want);
        }
    }
}
