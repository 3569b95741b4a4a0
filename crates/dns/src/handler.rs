//! From a request on the wire to an answer on the wire: decides who answers, follows aliases, adds what belongs in a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::watch;

use crate::answer::{self, Outcome, Settings, Zone};
use crate::forward::{Forwarder, Reply};

/// Aliases followed for one question.
const MAX_ALIASES: usize = 8;
/// What we send in one UDP packet at most, whatever the asker would take. Source: DNS Flag Day 2020.
const MAX_UDP_BYTES: u16 = 1232;

pub struct Handler {
    settings: Settings,
    zone: Arc<dyn Zone>,
    forwarder: Forwarder,
    ready: watch::Receiver<bool>,
    /// Turns the order of addresses, so that clients that take the first one spread.
    turn: AtomicUsize,
    serial: u32,
}

/// A reply before it is written.
#[derive(Debug)]
struct Said {
    reply: Reply,
    authoritative: bool,
}

impl Said {
    fn code(code: ResponseCode) -> Self {
        Said { reply: Reply { code, ..Reply::failure() }, authoritative: false }
    }
}

impl Handler {
    pub fn new(settings: Settings, zone: Arc<dyn Zone>, forwarder: Forwarder, ready: watch::Receiver<bool>) -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let serial = u32::try_from(since_epoch.as_secs()).unwrap_or(1);
        Self { settings, zone, forwarder, ready, turn: AtomicUsize::new(0), serial }
    }

    async fn say(&self, query: &Query) -> Said {
        let mut before = Vec::new();
        let mut name = query.name().clone();
        for _ in 0..MAX_ALIASES {
            return match answer::answer(self.zone.as_ref(), &self.settings, &name, query.query_type()) {
                // A reverse name may be the cluster's too, which is only known once everything has been read.
                _ if !*self.ready.borrow() && self.may_be_ours(&name) => Said::code(ResponseCode::ServFail),
                Outcome::NotOurs => self.forward(&name, query, before).await,
                Outcome::Alias { answer, target } => {
                    before.push(*answer);
                    if query.query_type() == RecordType::CNAME {
                        return self.own(ResponseCode::NoError, before, Vec::new());
                    }
                    name = target;
                    continue;
                }
                Outcome::Found { mut answers, additionals } => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answers.len().max(1);
                    answers.rotate_left(turn);
                    before.extend(answers);
                    self.own(ResponseCode::NoError, before, additionals)
                }
                Outcome::Empty => self.nothing(ResponseCode::NoError, before),
                Outcome::Missing => self.nothing(ResponseCode::NXDomain, before),
            };
        }
        Said::code(ResponseCode::ServFail)
    }

    fn may_be_ours(&self, name: &Name) -> bool {
        self.settings.domain.zone_of(name) || name.to_lowercase().to_ascii().ends_with(".arpa.")
    }

    fn own(&self, code: ResponseCode, answers: Vec<Record>, additionals: Vec<Record>) -> Said {
        Said { reply: Reply { code, answers, authorities: Vec::new(), additionals }, authoritative: true }
    }

    fn nothing(&self, code: ResponseCode, answers: Vec<Record>) -> Said {
        let mut said = self.own(code, answers, Vec::new());
        said.reply.authorities = vec![answer::authority(&self.settings, self.serial)];
        said
    }

    async fn forward(&self, name: &Name, query: &Query, mut before: Vec<Record>) -> Said {
        let mut onward = query.clone();
        onward.set_name(name.clone());
        let reply = self.forwarder.resolve(&onward).await;
        if before.is_empty() {
            return Said { reply: (*reply).clone(), authoritative: false };
        }
        // The alias is ours and holds, even when what it points to cannot be found.
        before.extend(reply.answers.iter().cloned());
        Said { reply: Reply { answers: before, ..(*reply).clone() }, authoritative: false }
    }

    async fn respond(&self, request: &Request) -> Said {
        let Ok(info) = request.request_info() else { return Said::code(ResponseCode::FormErr) };
        let asks = request.metadata.message_type == MessageType::Query && request.metadata.op_code == OpCode::Query;
        match (info.query.query_class(), info.query.query_type()) {
            (DNSClass::IN | DNSClass::ANY, RecordType::AXFR | RecordType::IXFR) if asks => {
                Said::code(ResponseCode::Refused)
            }
            (DNSClass::IN | DNSClass::ANY, _) if asks => self.say(info.query.original()).await,
            _ => Said::code(ResponseCode::NotImp),
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let said = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = said.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = said.reply.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, MAX_UDP_BYTES)).set_version(0);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let reply = &said.reply;
        let message = builder.build(metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "dns answer");
                let mut failed = Metadata::response_from_request(&request.metadata);
                failed.response_code = ResponseCode::ServFail;
                Header { metadata: failed, counts: Default::default() }.into()
            }
        }
    }
}
