//! GET of a collection.
//!
//! Reads: the watch cache, or the store at a revision for pages after the first. Invariant: all pages of one list show
//! one state, the one that the list's resourceVersion names.

use std::sync::Arc;

use meta::{Status, Value, json};
use store::{RangeRequest, StoreError, prefix_end};

use crate::accept::Format;
use crate::body::Response;
use crate::cache::Snapshot;
use crate::call::Call;
use crate::custom;
use crate::feed::after;
use crate::filter::Filter;
use crate::listing::{ListOptions, Match, Token, Version};
use crate::object::Object;
use crate::protobuf::ListMessage;
use crate::reply;
use crate::storage::store_error;
use crate::turns;
use crate::view::{ListPieces, View};

/// Keys read at a time from the store.
const PAGE_KEYS: usize = 500;
const MESSAGES_AT_ONCE: usize = 64;
/// Lists of so much take turns.
const LARGE_BYTES: usize = 1 << 20;

/// One page of a list.
struct Page {
    objects: Vec<Arc<Object>>,
    revision: u64,
    /// The key to go on after.
    next: Option<String>,
    remaining: Option<usize>,
}

pub async fn list(call: &Call) -> Result<Response, Status> {
    // Compat: what is wrong with a selector is told first.
    let filter = Filter::parse(&call.served, &call.path, &call.query)?;
    let options = ListOptions::parse(&call.query, false)?;
    let page = match page(call, &options, &filter).await? {
        Ok(page) => page,
        Err(inconsistent) => return Ok(reply::expired_list(call, &inconsistent)),
    };
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(after) = page.next {
        // Going on without a revision stays so: the next page shows whatever is there then.
        let open = options.token.as_ref().is_some_and(|t| t.revision.is_none());
        let revision = if open { None } else { Some(page.revision) };
        metadata.set(&["continue"], Token { revision, after }.encode());
        if let Some(remaining) = page.remaining {
            metadata.set(&["remainingItemCount"], remaining);
        }
    }
    let objects = custom::present_matching(&call.shared, &call.served, &filter, page.objects).await?;
    Ok(answer(call, &metadata, objects).await)
}

/// A list of these objects in the form the client asked for.
pub async fn answer(call: &Call, metadata: &Value, objects: Vec<Arc<Object>>) -> Response {
    let mut bytes = 0;
    let large = objects.iter().any(|object| {
        bytes += object.len_bytes();
        bytes >= LARGE_BYTES
    });
    let turn = if large { Some(turns::take().await) } else { None };
    let mut response = write(call, metadata, objects).await;
    response.body_mut().hold_turn(turn);
    response
}

async fn write(call: &Call, metadata: &Value, objects: Vec<Arc<Object>>) -> Response {
    let view = View::new(&call.served, &call.accept, &call.query);
    if call.accept.format != Format::Protobuf {
        return reply::pieces(call, ListPieces::new(view, &call.served, metadata, objects));
    }
    let mut items = Vec::with_capacity(objects.len());
    for object in &objects {
        // The first list encodes every object: it lets others work in between.
        if items.len() % MESSAGES_AT_ONCE == MESSAGES_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        items.push(view.message(object));
    }
    let [api_version, _, kind] = view.kinds(&call.served);
    reply::list_message(call, ListMessage::new(api_version, kind, metadata, items))
}

/// The inner error is a token that goes on inconsistently, for one whose revision is gone.
async fn page(call: &Call, options: &ListOptions, filter: &Filter) -> Result<Result<Page, Token>, Status> {
    let storage = &call.shared.storage;
    if let Some(token) = &options.token {
        return match token.revision {
            None => {
                storage.fresh().await?;
                Ok(Ok(from_cache(call, filter, &token.after, options.limit)))
            }
            Some(revision) => match page_at(call, filter, revision, &token.after, options.limit).await {
                Err(StoreError::Compacted { .. }) => Ok(Err(Token { revision: None, after: token.after.clone() })),
                other => other.map(Ok).map_err(|e| store_error(&e)),
            },
        };
    }
    match (options.version, options.version_match) {
        (Version::At(revision), Some(Match::Exact)) => {
            storage.feed.reach(revision).await?;
            let page = page_at(call, filter, revision, "", options.limit).await;
            return page.map(Ok).map_err(|e| store_error(&e));
        }
        (Version::At(revision), _) => storage.feed.reach(revision).await?,
        (Version::Any, _) => {}
        (Version::Newest, _) => storage.fresh().await?,
    }
    // Compat: a list of any version ignores the limit, as upstream's watch cache does.
    let limit = if options.version == Version::Any { 0 } else { options.limit };
    Ok(Ok(from_cache(call, filter, "", limit)))
}

fn from_cache(call: &Call, filter: &Filter, after: &str, limit: usize) -> Page {
    // Before the cache is read: everything up to here is in it.
    let applied = call.shared.storage.feed.applied();
    let cache = &call.served.cache;
    if let Some(key) = &filter.key {
        let rv = cache.rv();
        let found = cache.get(key).filter(|o| filter.matches(o) && o.key.as_str() > after);
        let revision = applied.max(rv).max(found.as_ref().map_or(0, |o| o.rv));
        return Page { objects: found.into_iter().collect(), revision, next: None, remaining: None };
    }
    let all = filter.takes_all();
    let page = cache.snapshot(&filter.prefix, after, limit, all, |o| all || filter.matches(o));
    page_of(page, all, applied)
}

async fn page_at(call: &Call, filter: &Filter, revision: u64, from: &str, limit: usize) -> Result<Page, StoreError> {
    match unchanged(call, filter, revision, from, limit) {
        Some(page) => Ok(page),
        None => from_store(call, filter, revision, from, limit).await,
    }
}

/// The page of a list at `revision`, if nothing has changed since: then the cache shows it without reading the store.
fn unchanged(call: &Call, filter: &Filter, revision: u64, after: &str, limit: usize) -> Option<Page> {
    let applied = call.shared.storage.feed.applied();
    if filter.key.is_some() || applied < revision {
        return None;
    }
    let all = filter.takes_all();
    let page = call.served.cache.snapshot(&filter.prefix, after, limit, all, |o| all || filter.matches(o));
    (page.since <= revision).then(|| Page { revision, ..page_of(page, all, applied) })
}

fn page_of(page: Snapshot, all: bool, applied: u64) -> Page {
    let next = if page.more { page.objects.last().map(|o| o.key.to_string()) } else { None };
    Page { next, remaining: all.then_some(page.remaining), revision: applied.max(page.rv), objects: page.objects }
}

async fn from_store(call: &Call, filter: &Filter, revision: u64, from: &str, limit: usize) -> Result<Page, StoreError> {
    let served = &call.served;
    let prefix = served.store_key(&filter.prefix);
    let end = prefix_end(&prefix);
    let mut start = if from.is_empty() { prefix.clone() } else { after(&served.store_key(from)) };
    let mut objects: Vec<Arc<Object>> = Vec::new();
    let skip = served.prefix.len();
    loop {
        let want = if limit == 0 || !filter.takes_all() { PAGE_KEYS } else { PAGE_KEYS.min(limit - objects.len()) };
        let request = RangeRequest { start, end: end.clone(), limit: want, revision, ..RangeRequest::default() };
        let page = call.shared.storage.store.range(request).await?;
        let last = page.kvs.last().map(|kv| kv.key.clone());
        let read = page.kvs.len();
        for (i, kv) in page.kvs.into_iter().enumerate() {
            let Some(key) = kv.key.get(skip..).and_then(|k| std::str::from_utf8(k).ok()) else { continue };
            let Some(object) = Object::read(key, kv.value, kv.mod_revision) else { continue };
            if !filter.matches(&object) {
                continue;
            }
            objects.push(Arc::new(object));
            if limit > 0 && objects.len() == limit {
                let more = page.more || i + 1 < read;
                let next = more.then(|| objects[limit - 1].key.to_string());
                let left = page.count.saturating_sub(i + 1);
                let remaining = (filter.takes_all() && more).then_some(left);
                return Ok(Page { objects, revision, next, remaining });
            }
        }
        match last {
            Some(last) if page.more => start = after(&last),
            _ => return Ok(Page { objects, revision, next: None, remaining: None }),
        }
    }
}
