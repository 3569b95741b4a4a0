//! One request for a resource, as the verbs see it.
//!
//! Invariant: by the time a `Call` exists its user is known and allowed, and its resource is served.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use meta::{GroupResource, Status};

use crate::accept::Accept;
use crate::audit::Entry;
use crate::registry::Served;
use crate::request::{Query, ResourcePath, Verb};
use crate::shared::Shared;
use crate::user::User;

/// Warnings sent with one answer.
const MAX_WARNINGS: usize = 32;

pub struct Call {
    pub shared: Arc<Shared>,
    pub user: Arc<User>,
    pub verb: Verb,
    pub path: ResourcePath,
    pub query: Query,
    pub headers: HeaderMap,
    pub accept: Accept,
    pub served: Arc<Served>,
    /// The version of the resource that is stored; the same as `served` for nearly all.
    pub target: Arc<Served>,
    /// The client is on this machine, where compressing costs more than it saves.
    pub is_near: bool,
    /// Where the request is written down, when there is an audit log.
    pub audit: Option<Arc<Entry>>,
    warnings: Mutex<Vec<String>>,
    /// How long queues and webhooks took, in nanoseconds.
    elsewhere: AtomicU64,
}

impl Call {
    #[allow(clippy::too_many_arguments)] // once, by the request path
    pub fn new(
        shared: Arc<Shared>,
        user: Arc<User>,
        verb: Verb,
        path: ResourcePath,
        query: Query,
        headers: HeaderMap,
        accept: Accept,
        served: Arc<Served>,
        is_near: bool,
    ) -> Call {
        let target = shared.registry.target(&served);
        let (warnings, elsewhere, audit) = Default::default();
        Call { shared, user, verb, path, query, headers, accept, served, target, is_near, audit, warnings, elsewhere }
    }

    /// The key of the object that the path names.
    pub fn key(&self) -> String {
        self.target.key(&self.path.namespace, &self.path.name)
    }

    pub fn gr(&self) -> &GroupResource {
        &self.served.gr
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.served.gr, &self.path.name)
    }

    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Time that the request spent where this server does not make it faster.
    pub fn note_elsewhere(&self, took: Duration) {
        self.elsewhere.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn elsewhere(&self) -> Duration {
        Duration::from_nanos(self.elsewhere.load(Ordering::Relaxed))
    }

    /// Adds an annotation to the request's audit event.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        if let Some(entry) = &self.audit {
            entry.annotate(key, value);
        }
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who writes, for managed fields: the first word of the user agent where nothing else is said.
    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}
