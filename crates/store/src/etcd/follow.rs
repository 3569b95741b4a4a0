//! One watch of etcd: fetches events for a [`Watch`](crate::Watch), across lost connections and members.
//!
//! Reads a stream of its own. Invariants: everything up to `seen` has been handed over, in order and once; a revision is handed
//! over whole; the task ends with its watch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connect::Link;
use super::proto::watch_client::WatchClient;
use super::proto::watch_request::RequestUnion;
use super::proto::{self, WatchCreateRequest, WatchProgressRequest, WatchResponse};
use super::{ANSWER_BYTES, FIRST_PAUSE, LONGEST_PAUSE, Shared, TRY, request, words};
use crate::request::KeyRange;
use crate::watch::{Hub, Watcher};
use crate::{StoreError, WatchRequest};

/// A member that is itself behind says nothing of use: it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long etcd has to say that a watch begins too early.
const TOLD: Duration = Duration::from_secs(2);
/// From this key to this end are all keys.
const ALL: Bytes = Bytes::from_static(b"\0");

pub(super) struct Follower {
    etcd: Arc<Shared>,
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    request: WatchRequest,
    /// In etcd's keys.
    range: KeyRange,
    seen: u64,
    /// Somebody waits to hear that this revision has been reached.
    wanted: Option<u64>,
}

enum End {
    /// Nobody listens any more.
    Dropped,
    Failed(StoreError),
    /// To be gone on with.
    Lost(String),
}

struct Stream {
    ask: mpsc::Sender<proto::WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(link: &Link, create: WatchCreateRequest) -> Result<Stream, tonic::Status> {
        let (ask, asked) = mpsc::channel(2);
        let _ = ask.try_send(proto::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let mut client = WatchClient::new(link.channel.clone()).max_decoding_message_size(ANSWER_BYTES);
        let answers = timeout(TRY, client.watch(request(ReceiverStream::new(asked)))).await;
        let answers = answers.map_err(|_| tonic::Status::unavailable("no answer in time"))??.into_inner();
        Ok(Stream { ask, answers })
    }

    fn ask_progress(&self) {
        let message = RequestUnion::ProgressRequest(WatchProgressRequest {});
        // When two wait to be sent already, one more would tell no more.
        let _ = self.ask.try_send(proto::WatchRequest { request_union: Some(message) });
    }
}

impl Follower {
    pub(super) fn new(
        etcd: Arc<Shared>,
        hub: Arc<Hub>,
        watcher: Arc<Watcher>,
        request: WatchRequest,
        seen: u64,
    ) -> Self {
        let range = KeyRange::new(etcd.prefix.outward(request.start.clone()), etcd.prefix.outward(request.end.clone()));
        Follower { etcd, hub, watcher, request, range, seen, wanted: None }
    }

    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.seen;
            match self.follow().await {
                End::Dropped => return,
                End::Failed(error) => return self.hub.end(&error),
                // Once an outage is enough.
                End::Lost(cause) if pause == FIRST_PAUSE => {
                    tracing::warn!("the watch of etcd stopped after revision {} and will go on: {cause}", self.seen);
                }
                End::Lost(cause) => tracing::debug!("the watch of etcd still waits: {cause}"),
            }
            if self.seen > before {
                pause = FIRST_PAUSE;
            }
            if self.rest(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// True when nobody listens any more.
    async fn rest(&mut self, pause: Duration) -> bool {
        let watcher = self.watcher.clone();
        let dropped = async {
            loop {
                watcher.source().notified().await;
                if self.asked() {
                    return;
                }
            }
        };
        timeout(pause, dropped).await.is_ok()
    }

    /// Somebody called: asks for progress, or has gone (true).
    fn asked(&mut self) -> bool {
        self.wanted = Some(self.etcd.newest.load(Ordering::Acquire).max(self.seen));
        self.hub.watchers() == 0
    }

    async fn follow(&mut self) -> End {
        let link = match self.etcd.servers.link().await {
            Ok(link) => link,
            Err(error) => return End::Lost(error.to_string()),
        };
        let end = self.follow_on(&link).await;
        if let End::Lost(_) = end {
            self.etcd.servers.leave(&link).await;
        }
        end
    }

    async fn follow_on(&mut self, link: &Link) -> End {
        // Where answers about progress are not to be trusted, every revision is watched, and its event tells. etcd refuses to
        // watch an empty range.
        let all = !link.tells_progress || self.range.bounds().is_none();
        // One revision more than wanted: then etcd says `Compacted` where a change could be missing.
        let mut create = words::watch(&self.request, self.seen.max(1), &self.etcd.prefix);
        if all {
            create = WatchCreateRequest { key: ALL, range_end: ALL, progress_notify: false, ..create };
        }
        let mut stream = match Stream::open(link, create).await {
            Ok(stream) => stream,
            Err(status) => return End::Lost(status.message().to_string()),
        };
        let watcher = self.watcher.clone();
        let mut parts = Vec::new();
        loop {
            self.settle();
            let waits = self.wanted.is_some() && !all;
            tokio::select! {
                answer = stream.answers.message() => {
                    let end = match answer {
                        Ok(Some(answer)) => self.take(answer, &mut parts, all),
                        Ok(None) => Some(End::Lost("etcd ended the stream".into())),
                        Err(status) => Some(End::Lost(status.message().to_string())),
                    };
                    if let Some(end) = end {
                        return end;
                    }
                }
                () = watcher.source().notified() => {
                    if self.asked() {
                        return End::Dropped;
                    }
                    if !all {
                        stream.ask_progress();
                    }
                }
                () = sleep(ASK_EVERY), if waits => stream.ask_progress(),
            }
        }
    }

    fn settle(&mut self) {
        if self.wanted.is_some_and(|wanted| wanted <= self.seen) {
            self.wanted = None;
            self.watcher.say_progress();
        }
    }

    /// Hands over what came. `parts` are of an answer that came in fragments.
    fn take(&mut self, answer: WatchResponse, parts: &mut Vec<proto::Event>, all: bool) -> Option<End> {
        if answer.compact_revision > 0 {
            return Some(End::Failed(StoreError::Compacted { at: words::unsigned(answer.compact_revision) }));
        }
        if answer.canceled {
            return Some(End::Lost(answer.cancel_reason));
        }
        parts.extend(answer.events);
        if answer.created || answer.fragment {
            return None;
        }
        let told = if all { 0 } else { words::unsigned(answer.header.map_or(0, |h| h.revision)) };
        let revision = |event: &proto::Event| event.kv.as_ref().map_or(0, |kv| words::unsigned(kv.mod_revision));
        let reached = parts.iter().map(revision).max().unwrap_or(told);
        let ours = |event: &proto::Event| event.kv.as_ref().is_some_and(|kv| self.range.contains(&kv.key));
        parts.retain(|event| revision(event) > self.seen && ours(event));
        let mut events: Vec<_> = parts.drain(..).filter_map(|e| words::event(e, &self.etcd.prefix)).collect();
        events.sort_by(|a, b| (a.version.mod_revision, &a.key).cmp(&(b.version.mod_revision, &b.key)));
        if reached > self.seen {
            self.seen = reached;
            self.etcd.newest.fetch_max(reached, Ordering::AcqRel);
            let none = events.is_empty();
            self.hub.publish(events, reached);
            if none {
                // It tells how far we are.
                self.watcher.say_progress();
            }
        }
        None
    }
}

/// The revision before which history is forgotten: only watches are told it.
pub(super) async fn compacted(etcd: &Shared) -> Option<u64> {
    let link = etcd.servers.link().await.ok()?;
    let create = WatchCreateRequest { key: ALL, start_revision: 1, ..WatchCreateRequest::default() };
    let mut stream = Stream::open(&link, create).await.ok()?;
    let told = async {
        while let Ok(Some(answer)) = stream.answers.message().await {
            if answer.compact_revision > 0 {
                return Some(words::unsigned(answer.compact_revision));
            }
        }
        None
    };
    timeout(TOLD, told).await.ok().flatten()
}
