//! The store in etcd, 3.4 or later: the [`Store`] calls over gRPC, to one member at a time.
//!
//! Reads are repeated and writes are not, unless they surely were not done. Invariants: no call waits longer than [`TRY`] for
//! one member and [`OUTAGE`] for one that can be used; a write whose answer was lost says so ([`StoreError::Unknown`]).

mod connect;
mod follow;
mod words;

#[allow(clippy::all, missing_docs)]
mod proto {
    tonic::include_proto!("etcdserverpb");
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::request::KeyRange;
use crate::watch::{Bounds, Hub};
use crate::{
    Lease, Op, Options, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, Watch, WatchRequest,
};
use connect::{Link, Servers};
use proto::{kv_client::KvClient, lease_client::LeaseClient};
use words::{Failure, Prefix, failure, signed, unsigned};

/// How long one member may take for a call; etcd itself gives up after 7 s.
const TRY: Duration = Duration::from_secs(10);
/// How long a call waits for a member that can be used; calls that come later into the same outage do not wait.
pub(crate) const OUTAGE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The size of answers is the caller's business: it sets limits to its ranges.
const ANSWER_BYTES: usize = 1 << 30;

/// Where etcd is, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs of the members, such as `https://10.0.0.1:2379`.
    pub servers: Vec<String>,
    /// For https: whom to trust, and the certificate to show.
    pub tls: Option<Arc<ClientConfig>>,
    /// What stands in etcd for `/registry`.
    pub prefix: String,
    /// What a watcher may leave waiting before it is ended.
    pub watch_events: usize,
    pub watch_bytes: usize,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        let Options { watch_events, watch_bytes, .. } = Options::default();
        Self { servers: Vec::new(), tls: None, prefix: "/registry".into(), watch_events, watch_bytes }
    }
}

/// A store that others may use at the same time. It connects with the first call.
pub struct Etcd {
    shared: Arc<Shared>,
    bounds: Bounds,
}

struct Shared {
    servers: Servers,
    prefix: Prefix,
    /// The newest revision that any answer spoke of.
    newest: AtomicU64,
}

/// A request of a member that has no leader is to fail at once.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn kv(link: Link) -> KvClient<Channel> {
    KvClient::new(link.channel).max_decoding_message_size(ANSWER_BYTES)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
}

impl Shared {
    fn saw(&self, header: Option<proto::ResponseHeader>) -> u64 {
        let revision = unsigned(header.map_or(0, |h| h.revision));
        self.newest.fetch_max(revision, Ordering::AcqRel);
        revision
    }

    async fn call<T, F>(&self, kind: Kind, ask: impl Fn(Link) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let cause = match self.servers.link().await {
                Err(StoreError::Unavailable { cause }) => cause,
                Err(error) => return Err(error),
                Ok(link) => match timeout(TRY, ask(link.clone())).await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    answer => {
                        let failure = answer.map_or(Failure::Lost("no answer in time".into()), |r| {
                            r.map_or_else(|status| failure(&status), |_| Failure::Lost(String::new()))
                        });
                        if let Failure::Refused(error) = failure {
                            return Err(error);
                        }
                        self.servers.leave(&link).await;
                        match failure {
                            Failure::Lost(cause) if kind == Kind::Write => return Err(StoreError::Unknown { cause }),
                            Failure::Lost(cause) | Failure::NotDone(cause) => cause,
                            Failure::Refused(error) => return Err(error),
                        }
                    }
                },
            };
            if began.elapsed().max(self.servers.down_for()) > OUTAGE {
                return Err(StoreError::Unavailable { cause });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn range(&self, request: &RangeRequest) -> Result<proto::RangeResponse, StoreError> {
        let message = proto::RangeRequest {
            key: self.prefix.outward(request.start.clone()),
            range_end: self.prefix.outward(request.end.clone()),
            limit: i64::try_from(request.limit).unwrap_or(i64::MAX),
            revision: signed(request.revision),
            keys_only: request.keys_only,
            count_only: request.count_only,
        };
        let ask = |link| {
            let message = self::request(message.clone());
            async move { kv(link).range(message).await }
        };
        self.call(Kind::Read, ask).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        let request = RangeRequest { start: "compact_rev_key".into(), count_only: true, ..RangeRequest::default() };
        Ok(self.saw(self.range(&request).await?.header))
    }

    /// Puts numbers that etcd does not tell into an error about `revision`.
    async fn tell(&self, error: StoreError, revision: u64) -> StoreError {
        match error {
            StoreError::Compacted { .. } => {
                StoreError::Compacted { at: follow::compacted(self).await.unwrap_or(revision + 1) }
            }
            StoreError::FutureRevision { .. } => {
                let current = self.revision().await.unwrap_or(revision - 1);
                StoreError::FutureRevision { requested: revision, current }
            }
            error => error,
        }
    }
}

impl Etcd {
    pub fn new(options: EtcdOptions) -> Result<Arc<Etcd>, StoreError> {
        let shared = Shared {
            servers: Servers::new(&options.servers, options.tls)?,
            prefix: Prefix::new(&options.prefix),
            newest: AtomicU64::new(0),
        };
        let bounds = Bounds { events: options.watch_events, bytes: options.watch_bytes };
        Ok(Arc::new(Etcd { shared: Arc::new(shared), bounds }))
    }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let found = match self.shared.range(&request).await {
            Ok(found) => found,
            Err(error) => return Err(self.shared.tell(error, request.revision).await),
        };
        Ok(RangeResponse {
            revision: self.shared.saw(found.header),
            more: found.more,
            count: usize::try_from(found.count).unwrap_or(0),
            kvs: found.kvs.into_iter().map(|kv| words::key_value(kv, &self.shared.prefix)).collect(),
        })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let ops = || txn.success.iter().chain(&txn.failure);
        let lease =
            ops().find_map(|op| if let Op::Put { lease, .. } = op { (*lease != 0).then_some(*lease) } else { None });
        let bytes = ops().map(|op| if let Op::Put { key, value, .. } = op { key.len() + value.len() } else { 0 }).sum();
        let writes = ops().any(|op| !matches!(op, Op::Get { .. }));
        let message = words::txn(txn, &self.shared.prefix);
        let ask = |link| {
            let message = request(message.clone());
            async move { kv(link).txn(message).await }
        };
        let kind = if writes { Kind::Write } else { Kind::Read };
        let done = self.shared.call(kind, ask).await.map_err(|error| match error {
            StoreError::LeaseNotFound { .. } => StoreError::LeaseNotFound { id: lease.unwrap_or(0) },
            StoreError::RequestTooLarge { .. } => StoreError::RequestTooLarge { bytes },
            error => error,
        })?;
        Ok(TxnResponse {
            succeeded: done.succeeded,
            revision: self.shared.saw(done.header),
            results: done.responses.into_iter().map(|r| words::result(r, &self.shared.prefix)).collect(),
        })
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, StoreError> {
        let now = self.shared.revision().await?;
        let from = if request.from_revision == 0 { now + 1 } else { request.from_revision };
        // etcd would tell that history does not reach back so far only later, and lets the compacted revision itself pass.
        if from <= now {
            let revision = (from - 1).max(1);
            let before = RangeRequest { start: "\0".into(), count_only: true, revision, ..RangeRequest::default() };
            if let Err(error) = self.shared.range(&before).await {
                return Err(self.shared.tell(error, revision).await);
            }
        }
        // etcd begins at 1, where nothing has changed: no event would ever tell of it.
        let seen = now.min(from - 1).max(1);
        let hub = Arc::new(Hub::new(seen));
        let range = KeyRange::new(request.start.clone(), request.end.clone());
        let (mut watch, watcher) = hub.register_remote(range, request.prev_kv, self.bounds)?;
        watch.start(from, Vec::new());
        tokio::spawn(follow::Follower::new(self.shared.clone(), hub, watcher, request, seen).run());
        Ok(watch)
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let ask = |link| {
            let message = request(proto::CompactionRequest { revision: signed(revision) });
            async move { kv(link).compact(message).await }
        };
        match self.shared.call(Kind::Write, ask).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.shared.tell(error, revision).await),
        }
    }

    async fn lease_grant(&self, id: i64, ttl_s: u64) -> Result<Lease, StoreError> {
        if id < 0 || ttl_s == 0 {
            return Err(StoreError::invalid("a lease needs an id of at least 0 and a time of at least 1 s"));
        }
        let ask = |link: Link| {
            let message = request(proto::LeaseGrantRequest { ttl: signed(ttl_s), id });
            async move { LeaseClient::new(link.channel).lease_grant(message).await }
        };
        let granted = self.shared.call(Kind::Write, ask).await.map_err(|e| about_lease(e, id))?;
        Ok(Lease { id: granted.id, ttl_s: unsigned(granted.ttl) })
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, StoreError> {
        let ask = |link: Link| async move {
            let message = request(tokio_stream::once(proto::LeaseKeepAliveRequest { id }));
            let mut answers = LeaseClient::new(link.channel).lease_keep_alive(message).await?.into_inner();
            let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
            Ok(Response::new(answer))
        };
        // Doing it twice does no harm.
        match self.shared.call(Kind::Read, ask).await.map_err(|e| about_lease(e, id))? {
            kept if kept.ttl > 0 => Ok(Lease { id, ttl_s: unsigned(kept.ttl) }),
            _ => Err(StoreError::LeaseNotFound { id }),
        }
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        let ask = |link: Link| {
            let message = request(proto::LeaseRevokeRequest { id });
            async move { LeaseClient::new(link.channel).lease_revoke(message).await }
        };
        let revoked = self.shared.call(Kind::Write, ask).await.map_err(|e| about_lease(e, id))?;
        // Its keys went with it: whoever asks a watch for progress means that revision.
        self.shared.saw(revoked.header);
        Ok(())
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.shared.revision().await
    }
}

fn about_lease(error: StoreError, id: i64) -> StoreError {
    match error {
        StoreError::LeaseNotFound { .. } => StoreError::LeaseNotFound { id },
        StoreError::LeaseExists { .. } => StoreError::LeaseExists { id },
        error => error,
    }
}
