//! Watches: what changes, as it changes.
//!
//! Reads: the watch cache; the store's history for a start that the cache no longer reaches. Invariants: a watcher gets
//! every change of what it asked for once and in order; one that is too slow for the cache's ring is ended, and its
//! client goes on from the last version that it saw.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use meta::{Status, Value, json};
use rand::Rng;
use store::{EventKind, StoreError, WatchRequest, prefix_end};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{Format, PROTOBUF_STREAM};
use crate::body::{Body, BoxError, Response};
use crate::call::Call;
use crate::custom;
use crate::event::{self, Event, EventType};
use crate::feed::Feed;
use crate::filter::Filter;
use crate::listing::{ListOptions, Version};
use crate::metrics::Series;
use crate::object::Object;
use crate::registry::Served;
use crate::request::Verb;
use crate::shared::Shared;
use crate::storage::{Storage, store_error};
use crate::view::View;
use crate::{protobuf, reply};

/// Events taken from the ring at a time.
const BATCH: usize = 256;
/// The client's own words for how long a watch may last are cut to this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A bookmark comes this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub async fn watch(call: &Call) -> Result<Response, Status> {
    let filter = Filter::parse(&call.target, &call.path, &call.query)?;
    let options = ListOptions::parse(&call.query, true)?;
    let view = View::new(&call.served, &call.accept, &call.query);
    let watcher = match Watcher::start(call, &options, filter, view).await {
        // Compat: a start that history no longer reaches is an event of the stream, not an error of the request.
        Err(status) if status.code == 410 => return Ok(stream_of(call, Body::from(error_line(call, &status)))),
        started => started?,
    };
    let body = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        watcher.counter.count.fetch_add(std::mem::take(&mut watcher.events), Ordering::Relaxed);
        Some((Ok::<Bytes, BoxError>(chunk), watcher))
    });
    Ok(stream_of(call, Body::stream(body)))
}

fn error_line(call: &Call, status: &Status) -> Vec<u8> {
    document_line(call.accept.format, "ERROR", status.to_value())
}

/// An event with an object that is made for it.
fn document_line(format: Format, kind: &str, object: Value) -> Vec<u8> {
    if format == Format::Protobuf
        && let Some(frame) = protobuf::frame(kind, &object)
    {
        return frame;
    }
    let mut line = json!({"type": kind});
    line.set(&["object"], object);
    let mut out = line.to_vec();
    out.push(b'\n');
    out
}

fn stream_of(call: &Call, body: Body) -> Response {
    let content_type = if call.accept.format == Format::Protobuf { PROTOBUF_STREAM } else { reply::JSON };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// One watch under way.
struct Watcher {
    served: Arc<Served>,
    target: Arc<Served>,
    feed: Arc<Feed>,
    filter: Filter,
    view: View,
    format: Format,
    /// Written before anything else: the initial objects or the history before the ring.
    first: std::vec::IntoIter<First>,
    /// After `first`, the bookmark that ends the initial events.
    mark_initial: Option<u64>,
    cursor: u64,
    changes: tokio::sync::watch::Receiver<u64>,
    /// Everything up to here has been sent.
    sent: u64,
    bookmark_every: Option<Duration>,
    next_bookmark: Instant,
    end: Instant,
    /// The last bookmark before the end was sent.
    ending: bool,
    finished: bool,
    headers_sent: bool,
    shutdown: CancellationToken,
    /// The definition of the custom resource was replaced.
    ended: CancellationToken,
    shared: Arc<Shared>,
    batch: Vec<Arc<Event>>,
    /// Events in the chunk, and those of all watches.
    events: u64,
    counter: Arc<Series>,
}

enum First {
    Object(Arc<Object>),
    Event(Arc<Event>),
}

impl Watcher {
    async fn start(call: &Call, options: &ListOptions, filter: Filter, view: View) -> Result<Watcher, Status> {
        let storage = &call.shared.storage;
        let target = call.target.clone();
        let initial = match (options.version, options.send_initial_events) {
            (_, Some(send)) => send,
            (Version::Newest | Version::Any, None) => true,
            (Version::At(_), None) => false,
        };
        match options.version {
            Version::Newest => storage.fresh().await?,
            Version::At(revision) if initial => storage.feed.reach(revision).await?,
            _ => {}
        }
        // Before the cache is read: everything up to here is in it.
        let applied = storage.feed.applied();
        let mut first = Vec::new();
        let mut sent = applied;
        let cursor = match options.version {
            _ if initial => {
                let found = target.cache.snapshot(&filter.prefix, "", 0, false, |o| filter.matches(o));
                sent = applied.max(found.rv);
                first = found.objects.into_iter().map(First::Object).collect();
                found.cursor
            }
            Version::At(revision) => {
                sent = revision;
                match target.cache.cursor_after(revision) {
                    (Some(cursor), _) => cursor,
                    (None, _) => {
                        let (cursor, until) = target.cache.end();
                        let until = until.max(applied);
                        let history = history(storage, &target, &filter, revision, until).await?;
                        first = history.into_iter().map(First::Event).collect();
                        sent = until.max(revision);
                        cursor
                    }
                }
            }
            Version::Newest | Version::Any => target.cache.end().0,
        };
        let now = Instant::now();
        let limits = &call.shared.config.limits;
        let lasts = match options.timeout_seconds {
            Some(seconds) => Duration::from_secs(seconds).min(LONGEST),
            None => limits.watch_min.mul_f64(1.0 + rand::rng().random::<f64>()),
        };
        let bookmark_every = options.bookmarks.then_some(limits.bookmark);
        let mark_initial = (options.send_initial_events == Some(true) && options.bookmarks).then_some(sent);
        Ok(Watcher {
            served: call.served.clone(),
            changes: target.cache.changes(),
            target,
            feed: storage.feed.clone(),
            filter,
            view,
            format: call.accept.format,
            first: first.into_iter(),
            mark_initial,
            cursor,
            sent,
            bookmark_every,
            next_bookmark: now + bookmark_every.unwrap_or(LONGEST),
            end: now + lasts,
            ending: false,
            finished: false,
            headers_sent: false,
            shutdown: call.shared.shutdown.clone(),
            ended: call.served.custom.as_ref().map(|c| c.ended.clone()).unwrap_or_default(),
            shared: call.shared.clone(),
            batch: Vec::new(),
            events: 0,
            counter: call.shared.metrics.watch_events.of(Verb::Watch, &call.served),
        })
    }

    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.finished {
            return None;
        }
        let initial = if self.served.custom.is_some() { self.initial_custom().await } else { self.initial() };
        if initial.is_some() {
            return initial;
        }
        loop {
            // Seen before the ring is read, so that a change in between wakes us again.
            let until = *self.changes.borrow_and_update();
            let applied = self.feed.applied();
            self.batch.clear();
            if self.target.cache.read_from(&mut self.cursor, until, BATCH, &mut self.batch).is_err() {
                tracing::debug!("a watch of {} was too slow and is ended", self.target.gr);
                self.finished = true;
                return None;
            }
            match self.batch.last() {
                Some(last) => self.sent = self.sent.max(last.rv),
                None => self.sent = self.sent.max(applied),
            }
            let encoded = if self.served.custom.is_some() {
                let batch = std::mem::take(&mut self.batch);
                let bytes = self.encode_custom(&batch).await;
                self.batch = batch;
                bytes
            } else {
                self.encode_batch()
            };
            if encoded.is_some() {
                return encoded;
            }
            if !self.batch.is_empty() {
                continue;
            }
            if let Some(bytes) = self.wait().await {
                return bytes;
            }
        }
    }

    /// Sleeps until something is to be done; `Some` when that is not to read the ring.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        let wake = self.next_bookmark.min(self.end);
        let early_end =
            if self.ending || self.bookmark_every.is_none() { wake } else { wake.min(self.end - LAST_BOOKMARK) };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                self.finished = true;
                return Some(None);
            }
            () = self.ended.cancelled() => {
                self.finished = true;
                return Some(None);
            }
            changed = self.changes.changed() => {
                self.finished |= changed.is_err();
                return if changed.is_err() { Some(None) } else { None };
            }
            () = tokio::time::sleep_until(early_end) => {}
        }
        let now = Instant::now();
        if now >= self.end {
            self.finished = true;
            return Some(None);
        }
        let every = self.bookmark_every?;
        self.ending |= now >= self.end - LAST_BOOKMARK;
        self.next_bookmark = now + every;
        // Everything applied so far was read and sent, if the ring's end was reached before.
        let (end, _) = self.target.cache.end();
        if end != self.cursor {
            return None;
        }
        Some(Some(self.bookmark(self.sent, false)))
    }

    fn initial(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < crate::body::CHUNK_BYTES {
            match self.first.next() {
                Some(First::Object(object)) => self.line(EventType::Added, &object, &mut out),
                Some(First::Event(event)) => self.event(&event, &mut out),
                None => {
                    if let Some(revision) = self.mark_initial.take() {
                        out.extend_from_slice(&self.bookmark(revision, true));
                    }
                    break;
                }
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn seen(&self, event: &Event) -> Option<(EventType, Arc<Object>)> {
        let kind = event.seen_by(|o| self.filter.matches(o))?;
        Some((kind, event.object(kind)?.clone()))
    }

    async fn initial_custom(&mut self) -> Option<Bytes> {
        let mut bytes = None;
        while bytes.is_none() && self.first.len() > 0 {
            let as_event = |first| match first {
                First::Object(object) => Arc::new(Event::new(object.rv, None, Some(object))),
                First::Event(event) => event,
            };
            let events: Vec<Arc<Event>> = self.first.by_ref().take(BATCH).map(as_event).collect();
            bytes = self.encode_custom(&events).await;
        }
        if self.first.len() == 0
            && !self.finished
            && let Some(revision) = self.mark_initial.take()
        {
            let mark = self.bookmark(revision, true);
            bytes = Some([bytes.unwrap_or_default(), mark].concat().into());
        }
        bytes
    }

    /// What is seen of changes of custom objects, as the version that is watched shows them.
    async fn shown(&self, events: &[Arc<Event>]) -> Result<Vec<(EventType, Arc<Object>)>, Status> {
        if !self.filter.needs_shown() {
            let (kinds, objects): (Vec<_>, Vec<_>) = events.iter().filter_map(|event| self.seen(event)).unzip();
            let objects = custom::present_all(&self.shared, &self.served, objects).await?;
            return Ok(kinds.into_iter().zip(objects).collect());
        }
        let states = || events.iter().flat_map(|event| [&event.old, &event.new]);
        let matches = |state: &Option<Arc<Object>>| state.as_ref().is_some_and(|object| self.filter.matches(object));
        let objects = states().filter(|state| matches(state)).flatten().cloned().collect();
        let mut shown = custom::present_all(&self.shared, &self.served, objects).await?.into_iter();
        let mut next = |state: &Option<Arc<Object>>| {
            let object = if matches(state) { shown.next() } else { None };
            object.filter(|object| self.filter.matches_shown(object))
        };
        let seen = events.iter().filter_map(|event| {
            let (old, new) = (next(&event.old), next(&event.new));
            let event = Event::new(event.rv, old, new);
            let kind = event.seen_by(|_| true)?;
            Some((kind, event.object(kind)?.clone()))
        });
        Ok(seen.collect())
    }

    /// Lines of custom objects, in the version that is watched. What cannot be converted ends the watch.
    async fn encode_custom(&mut self, events: &[Arc<Event>]) -> Option<Bytes> {
        let mut out = Vec::new();
        match self.shown(events).await {
            Ok(seen) => seen.into_iter().for_each(|(kind, object)| self.line(kind, &object, &mut out)),
            Err(status) => {
                self.finished = true;
                out = document_line(self.format, "ERROR", status.to_value());
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn encode_batch(&mut self) -> Option<Bytes> {
        let batch = std::mem::take(&mut self.batch);
        let out = if self.view.is_whole() {
            let seen = |event| Some((event, Event::seen_by(event, |o| self.filter.matches(o))?));
            let seen: Vec<(&Event, EventType)> = batch.iter().filter_map(|event| seen(&**event)).collect();
            let lines: Vec<Bytes> = seen.into_iter().map(|(event, kind)| self.shared(event, kind)).collect();
            match lines.as_slice() {
                // The shared line itself, without a copy.
                [line] => line.clone(),
                lines => lines.concat().into(),
            }
        } else {
            let mut out = Vec::new();
            batch.iter().for_each(|event| self.event(event, &mut out));
            out.into()
        };
        self.batch = batch;
        (!out.is_empty()).then_some(out)
    }

    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        let Some(kind) = event.seen_by(|o| self.filter.matches(o)) else { return };
        if self.view.is_whole() {
            out.extend_from_slice(&self.shared(event, kind));
        } else if let Some(object) = event.object(kind) {
            let object = object.clone();
            self.line(kind, &object, out);
        }
    }

    /// The bytes that all watchers of whole objects in this format get.
    fn shared(&mut self, event: &Event, kind: EventType) -> Bytes {
        self.events += 1;
        match self.format {
            Format::Protobuf => event.frame(kind, &self.served),
            _ => event.line(kind),
        }
    }

    fn line(&mut self, kind: EventType, object: &Object, out: &mut Vec<u8>) {
        self.events += 1;
        if self.format == Format::Protobuf {
            let [api_version, object_kind, _] = self.view.kinds(&self.served);
            out.extend_from_slice(&event::frame(kind, api_version, object_kind, &self.view.message(object)));
            return;
        }
        event::open(out, kind);
        self.view.write_single(object, !self.headers_sent, out);
        self.headers_sent = true;
        out.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata.set(&["annotations", INITIAL_EVENTS_END], "true");
        }
        let mut object = match self.view {
            View::Row { meta, .. } => {
                json!({"kind": "Table", "apiVersion": meta, "columnDefinitions": null, "rows": []})
            }
            _ => {
                let [api_version, kind, _] = self.view.kinds(&self.served);
                json!({"kind": kind, "apiVersion": api_version})
            }
        };
        object.set(&["metadata"], metadata);
        document_line(self.format, "BOOKMARK", object).into()
    }
}

/// The changes after `after` up to and with `until`, from the store.
async fn history(
    storage: &Storage,
    target: &Arc<Served>,
    filter: &Filter,
    after: u64,
    until: u64,
) -> Result<Vec<Arc<Event>>, Status> {
    let start = target.store_key(&filter.prefix);
    let request = WatchRequest { end: prefix_end(&start), start, from_revision: after + 1, prev_kv: true };
    let gone = |error: &StoreError| match error {
        StoreError::Compacted { at } => Status::expired(format!("too old resource version: {after} ({at})")),
        other => store_error(other),
    };
    let mut watch = storage.store.watch(request).await.map_err(|e| gone(&e))?;
    let progress = watch.progress_requester();
    let mut events = Vec::new();
    progress.request();
    while let Some(batch) = watch.next().await {
        let batch = batch.map_err(|e| gone(&e))?;
        for event in batch.events {
            if event.kv.mod_revision > until {
                return Ok(events);
            }
            let Some(key) = event.kv.key.get(target.prefix.len()..).and_then(|k| std::str::from_utf8(k).ok()) else {
                continue;
            };
            let rv = event.kv.mod_revision;
            let old = event.prev.and_then(|kv| Object::read(key, kv.value, kv.mod_revision)).map(Arc::new);
            let new = match event.kind {
                EventKind::Put => Object::read(key, event.kv.value, rv).map(Arc::new),
                EventKind::Delete => None,
            };
            events.push(Arc::new(Event::new(rv, old, new)));
        }
        if batch.revision >= until {
            break;
        }
        progress.request();
    }
    Ok(events)
}
