//! The store's words in etcd's, and back; what etcd's refusals mean. Pure.
//!
//! Invariant: keys outside are below [`ROOT`], keys in etcd below the prefix of the options; all other keys are the same.

use std::error::Error;

use bytes::Bytes;
use tonic::Code;

use super::connect::Spent;
use super::proto::{self, compare, request_op, response_op};
use crate::index::{Event, ValueRef, Version};
use crate::{Compare, KeyValue, Op, OpResult, Relation, StoreError, Target, Txn, WatchRequest};

/// Where the caller keeps everything.
const ROOT: &str = "/registry";

/// Where etcd keeps it.
#[derive(Debug, Clone)]
pub(super) struct Prefix(Option<String>);

impl Prefix {
    /// As upstream reads `--etcd-prefix`: always below `/`.
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Prefix((prefix != ROOT).then_some(prefix))
    }

    pub(super) fn outward(&self, key: Bytes) -> Bytes {
        self.replace(key, true)
    }

    pub(super) fn inward(&self, key: Bytes) -> Bytes {
        self.replace(key, false)
    }

    fn replace(&self, key: Bytes, outward: bool) -> Bytes {
        let Some(prefix) = &self.0 else { return key };
        let (from, to) = if outward { (ROOT, prefix.as_str()) } else { (prefix.as_str(), ROOT) };
        match key.strip_prefix(from.as_bytes()) {
            Some(rest) => [to.as_bytes(), rest].concat().into(),
            None => key,
        }
    }
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn key_value(kv: proto::KeyValue, prefix: &Prefix) -> KeyValue {
    KeyValue {
        key: prefix.inward(kv.key),
        value: kv.value,
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
        lease: kv.lease,
    }
}

pub(super) fn txn(txn: Txn, prefix: &Prefix) -> proto::TxnRequest {
    let ops = |ops: Vec<Op>| ops.into_iter().map(|o| op(o, prefix)).collect();
    proto::TxnRequest {
        compare: txn.compares.into_iter().map(|c| compare(c, prefix)).collect(),
        success: ops(txn.success),
        failure: ops(txn.failure),
    }
}

fn op(op: Op, prefix: &Prefix) -> proto::RequestOp {
    use request_op::Request;
    let none = Bytes::new();
    let request = match op {
        Op::Put { key, value, lease } => {
            Request::RequestPut(proto::PutRequest { key: prefix.outward(key), value, lease })
        }
        Op::Delete { key } => {
            Request::RequestDeleteRange(proto::DeleteRangeRequest { key: prefix.outward(key), range_end: none })
        }
        Op::DeleteRange { start, end } => Request::RequestDeleteRange(proto::DeleteRangeRequest {
            key: prefix.outward(start),
            range_end: prefix.outward(end),
        }),
        Op::Get { key } => {
            Request::RequestRange(proto::RangeRequest { key: prefix.outward(key), ..Default::default() })
        }
    };
    proto::RequestOp { request: Some(request) }
}

fn compare(compare: Compare, prefix: &Prefix) -> proto::Compare {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    let result = |relation| match relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    let (target, result, union) = match compare.target {
        Target::ModRevision(n) => (CompareTarget::Mod, result(compare.relation), TargetUnion::ModRevision(signed(n))),
        Target::CreateRevision(n) => {
            (CompareTarget::Create, result(compare.relation), TargetUnion::CreateRevision(signed(n)))
        }
        Target::Version(n) => (CompareTarget::Version, result(compare.relation), TargetUnion::Version(signed(n))),
        Target::Lease(n) => (CompareTarget::Lease, result(compare.relation), TargetUnion::Lease(n)),
        Target::Value(value) => (CompareTarget::Value, result(compare.relation), TargetUnion::Value(value)),
        // A key that is not there has the creation revision 0, and no key has one below.
        Target::Exists(wanted) => {
            let holds = |exists: bool| compare.relation.holds(exists.cmp(&wanted));
            let (result, than) = match (holds(false), holds(true)) {
                (false, true) => (CompareResult::Greater, 0),
                (true, false) => (CompareResult::Equal, 0),
                (true, true) => (CompareResult::Greater, -1),
                (false, false) => (CompareResult::Less, 0),
            };
            (CompareTarget::Create, result, TargetUnion::CreateRevision(than))
        }
    };
    proto::Compare {
        result: result.into(),
        target: target.into(),
        key: prefix.outward(compare.key),
        target_union: Some(union),
    }
}

pub(super) fn result(response: proto::ResponseOp, prefix: &Prefix) -> OpResult {
    use response_op::Response;
    match response.response {
        Some(Response::ResponseRange(range)) => {
            OpResult::Got(range.kvs.into_iter().next().map(|kv| key_value(kv, prefix)))
        }
        Some(Response::ResponseDeleteRange(deleted)) => {
            OpResult::Deleted(usize::try_from(deleted.deleted).unwrap_or(0))
        }
        Some(Response::ResponsePut(_)) | None => OpResult::Put,
    }
}

pub(super) fn watch(request: &WatchRequest, start_revision: u64, prefix: &Prefix) -> proto::WatchCreateRequest {
    proto::WatchCreateRequest {
        key: prefix.outward(request.start.clone()),
        range_end: prefix.outward(request.end.clone()),
        start_revision: signed(start_revision),
        progress_notify: true,
        prev_kv: request.prev_kv,
        fragment: true,
    }
}

pub(super) fn event(event: proto::Event, prefix: &Prefix) -> Option<Event> {
    let version = |kv: proto::KeyValue| Version {
        mod_revision: unsigned(kv.mod_revision),
        create_revision: unsigned(kv.create_revision),
        version: unsigned(kv.version),
        lease: kv.lease,
        value: ValueRef::memory(kv.value),
    };
    let deleted = event.r#type() == proto::event::EventType::Delete;
    let mut kv = event.kv?;
    let key = prefix.inward(std::mem::take(&mut kv.key));
    let now = if deleted { Version::tombstone(unsigned(kv.mod_revision)) } else { version(kv) };
    Some(Event { key, version: now, prev: event.prev_kv.map(version) })
}

/// What a failed call means.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// etcd understood and says no.
    Refused(StoreError),
    /// It was not done; another server or a later attempt may do it.
    NotDone(String),
    /// Nobody knows.
    Lost(String),
}

/// Reads a failure. Numbers that etcd does not tell are 0 in the error.
pub(super) fn failure(status: &tonic::Status) -> Failure {
    let text = status.message();
    let refused = |error| Failure::Refused(error);
    // Source: etcd's api/v3rpc/rpctypes, whose texts are the interface.
    match text.strip_prefix("etcdserver: ").unwrap_or(text) {
        "mvcc: required revision has been compacted" => return refused(StoreError::Compacted { at: 0 }),
        "mvcc: required revision is a future revision" => {
            return refused(StoreError::FutureRevision { requested: 0, current: 0 });
        }
        "mvcc: database space exceeded" => return refused(StoreError::Quota),
        "requested lease not found" => return refused(StoreError::LeaseNotFound { id: 0 }),
        "lease already exists" => return refused(StoreError::LeaseExists { id: 0 }),
        "request is too large" => return refused(StoreError::RequestTooLarge { bytes: 0 }),
        "duplicate key given in txn request" => {
            return refused(StoreError::invalid("a key is written twice in one transaction; do it once"));
        }
        "key is not provided" => return refused(StoreError::invalid("a key is empty; name one")),
        "too many operations in txn request" => {
            return refused(StoreError::invalid("a transaction has too many steps for etcd's --max-txn-ops"));
        }
        "corrupt cluster" => return refused(StoreError::corrupt("etcd raised its alarm CORRUPT")),
        "no leader" | "too many requests" | "not capable" => return Failure::NotDone(text.into()),
        _ => {}
    }
    let mut text = text.to_string();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        if error.is::<Spent>() {
            return Failure::NotDone(text);
        }
        source = error.source();
    }
    match status.code() {
        Code::ResourceExhausted => refused(StoreError::RequestTooLarge { bytes: 0 }),
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound => refused(StoreError::Refused { cause: text }),
        _ => Failure::Lost(if text.is_empty() { status.code().to_string() } else { text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_below_the_prefix() {
        let cases: &[(&str, &str, &str)] = &[
            ("/registry", "/registry/pods/a", "/registry/pods/a"),
            ("cluster-2/", "/registry/pods/a", "/cluster-2/pods/a"),
            ("/cluster-2", "/registry0", "/cluster-20"),
            ("/cluster-2", "compact_rev_key", "compact_rev_key"),
            ("/cluster-2", "\0", "\0"),
        ];
        for (prefix, key, expected) in cases {
            let prefix = Prefix::new(prefix);
            let out = prefix.outward(Bytes::from(*key));
            assert_eq!((out.as_ref(), prefix.inward(out.clone()).as_ref()), (expected.as_bytes(), key.as_bytes()));
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let lost = Failure::Lost("transport error".into());
        for (status, expected) in [
            (tonic::Status::unavailable("etcdserver: no leader"), Failure::NotDone("etcdserver: no leader".into())),
            (
                tonic::Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
                Failure::Refused(StoreError::Quota),
            ),
            (tonic::Status::unavailable("transport error"), lost),
            (tonic::Status::unknown(""), Failure::Lost("Unknown error".into())),
            (
                tonic::Status::resource_exhausted("grpc: received message larger than max"),
                Failure::Refused(StoreError::RequestTooLarge { bytes: 0 }),
            ),
        ] {
            assert_eq!(failure(&status), expected, "{status}");
        }
    }
}
