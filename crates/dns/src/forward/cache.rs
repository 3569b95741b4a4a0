//! Answers of other resolvers, for as long as they say, at most `MAX_TTL`. Time is given, so the rules are pure.
//!
//! Invariant: never more than the given number of entries: two generations of half of it each; a new one drops the oldest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

/// Pods see a change outside within this time.
const MAX_TTL: Duration = Duration::from_secs(30);
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// What a resolver said.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl Reply {
    pub fn failure() -> Self {
        Self { code: ResponseCode::ServFail, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }

    pub fn from_message(message: Message) -> Self {
        let code = message.metadata.response_code;
        Self { code, answers: message.answers, authorities: message.authorities, additionals: message.additionals }
    }

    // None: not to be kept.
    fn life(&self) -> Option<Duration> {
        let seconds = |ttl: u32| Duration::from_secs(u64::from(ttl));
        let life = match (self.code, self.answers.is_empty()) {
            (ResponseCode::NoError, false) => self.answers.iter().map(|record| seconds(record.ttl)).min()?.min(MAX_TTL),
            (ResponseCode::NoError | ResponseCode::NXDomain, _) => {
                let soa = self.authorities.iter().find_map(|record| match &record.data {
                    RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
                    _ => None,
                });
                seconds(soa?).min(MAX_NEGATIVE_TTL)
            }
            _ => return None,
        };
        (!life.is_zero()).then_some(life)
    }

    fn aged(&self, age: Duration) -> Self {
        let mut reply = self.clone();
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in reply.answers.iter_mut().chain(&mut reply.authorities).chain(&mut reply.additionals) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        reply
    }
}

type Key = (Name, RecordType);
type Generation = HashMap<Key, Entry>;

#[derive(Clone)]
struct Entry {
    reply: Arc<Reply>,
    stored: Instant,
    life: Duration,
}

pub struct Cache {
    half: usize,
    generations: Mutex<(Generation, Generation)>,
}

impl Cache {
    pub fn new(entries: usize) -> Self {
        Self { half: entries.div_ceil(2), generations: Mutex::default() }
    }

    pub fn get(&self, query: &Query, now: Instant) -> Option<Arc<Reply>> {
        let key = key(query);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *generations;
        let entry = match young.get(&key) {
            Some(entry) => entry.clone(),
            // Used again: it moves on to the next generation.
            None => old.remove(&key).inspect(|entry| {
                if young.len() < self.half {
                    young.insert(key.clone(), entry.clone());
                }
            })?,
        };
        let age = now.saturating_duration_since(entry.stored);
        if age >= entry.life {
            young.remove(&key);
            return None;
        }
        Some(if age.as_secs() == 0 { entry.reply } else { Arc::new(entry.reply.aged(age)) })
    }

    pub fn put(&self, query: &Query, reply: Arc<Reply>, now: Instant) {
        let Some(life) = reply.life().filter(|_| self.half > 0) else { return };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.0.len() >= self.half {
            generations.1 = std::mem::take(&mut generations.0);
        }
        generations.0.insert(key(query), Entry { reply, stored: now, life });
    }
}

fn key(query: &Query) -> Key {
    (query.name().to_lowercase(), query.query_type())
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::rr::rdata::{A, SOA};

    use super::*;

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn reply(ttl: u32) -> Arc<Reply> {
        let record = Record::from_rdata(Name::from_ascii("a.").unwrap(), ttl, RData::A(A::new(1, 2, 3, 4)));
        Arc::new(Reply { code: ResponseCode::NoError, answers: vec![record], ..Reply::failure() })
    }

    #[test]
    fn answers_age_and_die() {
        let cache = Cache::new(10);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        cache.put(&query("A."), reply(20), start);
        assert_eq!(cache.get(&query("a."), after(0)), Some(reply(20)));
        assert_eq!(cache.get(&query("a."), after(7)), Some(reply(13)));
        assert_eq!(cache.get(&query("a."), after(20)), None);
        cache.put(&query("a."), reply(9999), start);
        assert!(cache.get(&query("a."), after(29)).is_some());
        assert_eq!(cache.get(&query("a."), after(30)), None);
    }

    #[test]
    fn only_what_says_how_long_is_kept() {
        let soa = |minimum| {
            let name = Name::from_ascii("a.").unwrap();
            Record::from_rdata(name.clone(), 60, RData::SOA(SOA::new(name.clone(), name, 1, 1, 1, 1, minimum)))
        };
        let missing = |authorities| Reply { code: ResponseCode::NXDomain, authorities, ..Reply::failure() };
        let table = [
            (Reply::failure(), None),
            (missing(vec![]), None),
            (missing(vec![soa(4)]), Some(4)),
            (missing(vec![soa(3600)]), Some(10)),
            (Reply { code: ResponseCode::NoError, ..missing(vec![soa(5)]) }, Some(5)),
            (Reply { code: ResponseCode::Refused, ..missing(vec![soa(5)]) }, None),
            ((*reply(0)).clone(), None),
        ];
        for (reply, seconds) in table {
            assert_eq!(reply.life(), seconds.map(Duration::from_secs), "{reply:?}");
        }
    }

    #[test]
    fn the_bound_holds_and_used_entries_stay() {
        let cache = Cache::new(8);
        let now = Instant::now();
        cache.put(&query("kept."), reply(30), now);
        for number in 0..100 {
            cache.put(&query(&format!("n{number}.")), reply(30), now);
            assert!(cache.get(&query("kept."), now).is_some(), "{number}");
            let generations = cache.generations.lock().unwrap();
            assert!(generations.0.len() + generations.1.len() <= 8);
        }
    }
}
