//! Everything that is not the cluster's: asked of other resolvers, and remembered for a while.
//!
//! Reads resolv.conf (again when it changes) and talks UDP, then TCP when an answer was cut. Invariant: at most
//! `MAX_IN_FLIGHT` questions are under way, and at most the configured number of answers is kept.

mod cache;
mod exchange;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_server::proto::op::{Query, ResponseCode};
use tokio::sync::Semaphore;

use crate::resolv_conf;
use cache::Cache;
pub use cache::Reply;

/// Questions under way; further ones get SERVFAIL at once rather than wait for ever.
const MAX_IN_FLIGHT: usize = 1024;
/// How often all servers are tried.
const ROUNDS: usize = 2;
/// How often resolv.conf is looked at.
const RECHECK: Duration = Duration::from_secs(5);

/// The servers to ask.
pub enum Upstreams {
    Fixed(Vec<SocketAddr>),
    File { path: PathBuf, own: Vec<SocketAddr>, read: Mutex<FileState> },
}

#[derive(Default)]
pub struct FileState {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Upstreams::Fixed(servers)
    }

    /// `own` addresses are left out, so that nothing is ever asked of ourselves.
    pub fn file(path: PathBuf, own: Vec<SocketAddr>) -> Self {
        Upstreams::File { path, own, read: Mutex::default() }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let (path, own, read) = match self {
            Upstreams::Fixed(servers) => return servers.clone(),
            Upstreams::File { path, own, read } => (path, own, read),
        };
        let mut state = read.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.is_some_and(|at| at.elapsed() < RECHECK) {
            return state.servers.clone();
        }
        state.checked = Some(Instant::now());
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified != state.modified {
            state.modified = modified;
            state.servers = match std::fs::read_to_string(path) {
                Ok(text) => resolv_conf::parse(&text),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "names outside the cluster cannot be resolved");
                    Vec::new()
                }
            };
            state.servers.retain(|server| !own.contains(server));
        }
        state.servers.clone()
    }
}

pub struct Forwarder {
    upstreams: Upstreams,
    cache: Cache,
    slots: Semaphore,
}

impl Forwarder {
    pub fn new(upstreams: Upstreams, cache_entries: usize) -> Self {
        Self { upstreams, cache: Cache::new(cache_entries), slots: Semaphore::new(MAX_IN_FLIGHT) }
    }

    /// What other resolvers say; SERVFAIL when none answers.
    pub async fn resolve(&self, query: &Query) -> Arc<Reply> {
        let now = Instant::now();
        if let Some(known) = self.cache.get(query, now) {
            return known;
        }
        let Ok(_slot) = self.slots.try_acquire() else {
            tracing::warn!("too many names are being resolved at once");
            return Arc::new(Reply::failure());
        };
        let mut last = None;
        for server in (0..ROUNDS).flat_map(|_| self.upstreams.servers()) {
            match exchange::ask(server, query).await {
                Ok(message) => {
                    let reply = Arc::new(Reply::from_message(message));
                    // Another server may know better than one that is broken or refuses.
                    if !matches!(reply.code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp) {
                        self.cache.put(query, reply.clone(), now);
                        return reply;
                    }
                    last = Some(reply);
                }
                Err(error) => tracing::debug!(%server, name = %query.name(), %error, "resolver"),
            }
        }
        last.unwrap_or_else(|| Arc::new(Reply::failure()))
    }
}
