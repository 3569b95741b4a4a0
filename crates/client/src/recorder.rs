//! Records core/v1 Events about objects without holding anybody up: repeats are counted, floods are damped.
//! Reads nothing. Writes: Event. Invariant: `event` never blocks; the queue and the memory of past events are bounded, and
//! what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{is_already_exists, is_code, is_not_found};

/// Events waiting to be written.
const QUEUE_MAX: usize = 1000;
/// Events remembered to be counted up instead of written anew.
const KNOWN_MAX: usize = 4096;
/// Different messages for the same reason within `SIMILAR_WINDOW_S` before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW_S: i64 = 600;
/// Events one object may have at once, and then one per `REFILL_S`.
const BURST: f64 = 25.0;
const REFILL_S: f64 = 300.0;
/// Attempts to write one event, a second apart at first, doubling.
const ATTEMPTS: u32 = 4;

/// The reference events use for an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference { resource_version: object.meta().resource_version.clone(), ..object.object_ref(&()) }
}

#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    kind: String,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Cheap to clone; its task ends once all clones are gone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl Recorder {
    /// `component` is the event's source, as `replicaset-controller`; `host` is the node it runs on, or empty.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_all(client, component.to_string(), host.to_string(), notes));
        Recorder { queue }
    }

    /// Queues an event; `kind` is `Normal` or `Warning`. Dropped if the queue is full.
    pub fn event(&self, about: &ObjectReference, kind: &str, reason: &str, message: impl Into<String>) {
        let note = Note {
            about: about.clone(),
            kind: kind.to_string(),
            reason: reason.to_string(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if let Err(error) = self.queue.try_send(note) {
            tracing::debug!(%error, reason, "dropped an event");
        }
    }
}

async fn write_all(client: Client, component: String, host: String, mut notes: mpsc::Receiver<Note>) {
    let mut correlator = Correlator::default();
    while let Some(note) = notes.recv().await {
        let Some(write) = correlator.plan(note) else { continue };
        let mut pause = Duration::from_secs(1);
        for attempt in 1..=ATTEMPTS {
            match send(&client, &component, &host, &write, &mut correlator).await {
                Ok(()) => break,
                // the server understood and refused: the namespace is gone or going, or the event is not acceptable
                Err(error) if matches!(&error, kube::Error::Api(status) if status.code < 500 && status.code != 429) => {
                    tracing::debug!(%error, reason = write.note.reason, "the API server refused an event");
                    break;
                }
                Err(error) => tracing::debug!(%error, attempt, "cannot write an event"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

async fn send(
    client: &Client,
    component: &str,
    host: &str,
    write: &Write,
    correlator: &mut Correlator,
) -> Result<(), kube::Error> {
    let namespace = write.note.about.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    if write.count > 1 {
        let patch = json!({"count": write.count, "lastTimestamp": Time(write.note.at), "message": write.note.message});
        match events.patch(&write.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            // expired meanwhile: begin anew
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut event = new_event(write, namespace, component, host);
    match events.create(&PostParams::default(), &event).await {
        Err(error) if is_already_exists(&error) => {
            let name = correlator.rename(write);
            event.metadata.name = Some(name);
            events.create(&PostParams::default(), &event).await.map(|_| ())
        }
        Err(error) if is_code(&error, 404) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn new_event(write: &Write, namespace: &str, component: &str, host: &str) -> Event {
    let note = &write.note;
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_string());
    Event {
        metadata: ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: note.about.clone(),
        type_: Some(note.kind.clone()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        count: Some(write.count),
        first_timestamp: Some(Time(write.first)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: filled(component), host: filled(host) }),
        reporting_component: filled(component),
        reporting_instance: filled(host),
        ..Event::default()
    }
}

/// Same object, type and reason.
type SimilarKey = (String, String, String);
/// `SimilarKey` and the message (or the mark of combined ones).
type SameKey = (SimilarKey, String);

#[derive(Debug, Clone)]
struct Known {
    name: String,
    count: i32,
    first: Timestamp,
}

#[derive(Debug)]
struct Write {
    same: SameKey,
    note: Note,
    name: String,
    count: i32,
    first: Timestamp,
}

/// Decides what becomes of a note: a new event, a higher count of a known one, or nothing.
#[derive(Default)]
struct Correlator {
    known: HashMap<SameKey, Known>,
    known_order: VecDeque<SameKey>,
    similar: HashMap<SimilarKey, (Timestamp, Vec<String>)>,
    similar_order: VecDeque<SimilarKey>,
    /// Tokens left, and when they were counted.
    budgets: HashMap<String, (f64, Timestamp)>,
    budgets_order: VecDeque<String>,
}

impl Correlator {
    fn plan(&mut self, mut note: Note) -> Option<Write> {
        let object = object_key(&note.about);
        let similar = (object.clone(), note.kind.clone(), note.reason.clone());
        let combined = self.combines(&similar, &note);
        if combined {
            note.message = format!("(combined from similar events): {}", note.message);
        }
        if !self.affords(object, note.at) {
            return None;
        }
        let same = (similar, if combined { String::from("(combined)") } else { note.message.clone() });
        let known = match self.known.get_mut(&same) {
            Some(known) => {
                known.count = known.count.saturating_add(1);
                known.clone()
            }
            None => {
                let known = Known { name: event_name(&note.about, note.at), count: 1, first: note.at };
                remember(&mut self.known, &mut self.known_order, same.clone(), known.clone());
                known
            }
        };
        Some(Write { same, note, name: known.name, count: known.count, first: known.first })
    }

    /// True once the reason was given with too many different messages of late.
    fn combines(&mut self, similar: &SimilarKey, note: &Note) -> bool {
        if !self.similar.contains_key(similar) {
            remember(&mut self.similar, &mut self.similar_order, similar.clone(), (note.at, Vec::new()));
        }
        let Some((last, messages)) = self.similar.get_mut(similar) else { return false };
        if note.at.as_second() - last.as_second() > SIMILAR_WINDOW_S {
            messages.clear();
        }
        *last = note.at;
        if !messages.contains(&note.message) && messages.len() < SIMILAR_MAX {
            messages.push(note.message.clone());
        }
        messages.len() >= SIMILAR_MAX
    }

    fn affords(&mut self, object: String, now: Timestamp) -> bool {
        if !self.budgets.contains_key(&object) {
            remember(&mut self.budgets, &mut self.budgets_order, object.clone(), (BURST, now));
        }
        let Some((tokens, at)) = self.budgets.get_mut(&object) else { return false };
        let passed_s = now.duration_since(*at).as_secs_f64().max(0.0);
        *tokens = (*tokens + passed_s / REFILL_S).min(BURST);
        *at = now;
        let affords = *tokens >= 1.0;
        if affords {
            *tokens -= 1.0;
        }
        affords
    }

    /// Gives the event of a write another name, for one that was taken.
    fn rename(&mut self, write: &Write) -> String {
        let name = event_name(&write.note.about, Timestamp::now());
        if let Some(known) = self.known.get_mut(&write.same) {
            known.name.clone_from(&name);
        }
        name
    }
}

/// Inserts and forgets the oldest beyond `KNOWN_MAX`.
fn remember<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, order: &mut VecDeque<K>, key: K, value: V) {
    map.insert(key.clone(), value);
    order.push_back(key);
    while order.len() > KNOWN_MAX {
        if let Some(oldest) = order.pop_front() {
            map.remove(&oldest);
        }
    }
}

fn object_key(about: &ObjectReference) -> String {
    let field = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        field(&about.api_version),
        field(&about.kind),
        field(&about.namespace),
        field(&about.name),
        field(&about.uid),
        field(&about.field_path),
    ]
    .join("|")
}

/// As upstream: the object's name and the time in hexadecimal nanoseconds.
fn event_name(about: &ObjectReference, at: Timestamp) -> String {
    format!("{}.{:x}", about.name.as_deref().unwrap_or("unknown"), at.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn note(at_s: i64, reason: &str, message: &str) -> Note {
        Note {
            about: ObjectReference {
                name: Some("web".into()),
                namespace: Some("ns".into()),
                kind: Some("Pod".into()),
                ..ObjectReference::default()
            },
            kind: "Normal".into(),
            reason: reason.into(),
            message: message.into(),
            at: Timestamp::from_second(at_s).unwrap(),
        }
    }

    fn show(write: Option<Write>) -> String {
        match write {
            None => "dropped\n".into(),
            Some(write) => {
                format!("{} x{} since {}: {}\n", write.name, write.count, write.first.as_second(), write.note.message)
            }
        }
    }

    #[test]
    fn repeats_are_counted() {
        let mut correlator = Correlator::default();
        let mut out = String::new();
        for (at, reason, message) in [(1, "Pulled", "a"), (2, "Pulled", "a"), (3, "Failed", "a"), (4, "Pulled", "a")] {
            out.push_str(&show(correlator.plan(note(at, reason, message))));
        }
        expect![[r#"
            web.3b9aca00 x1 since 1: a
            web.3b9aca00 x2 since 1: a
            web.b2d05e00 x1 since 3: a
            web.3b9aca00 x3 since 1: a
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn similar_ones_are_combined_and_floods_dropped() {
        let mut correlator = Correlator::default();
        let out: Vec<String> =
            (0..30).map(|at| show(correlator.plan(note(at, "Pulled", &format!("image {at}"))))).collect();
        expect![[r#"
            web.218711a00 x1 since 9: (combined from similar events): image 9
            web.218711a00 x16 since 9: (combined from similar events): image 24
            dropped
        "#]]
        .assert_eq(&[out[9].clone(), out[24].clone(), out[25].clone()].concat());
        assert_ne!(show(correlator.plan(note(400, "Pulled", "later"))), "dropped\n");
    }
}
