//! The cells of an object's row in a table, worked out once for each version of the object.
//!
//! Ages change while the object does not: they are left open and written when the row is sent. Bound: cells that take
//! more than [`MAX_BYTES`] are not kept.

use api::kinds::Kind;
use api::kinds::columns::{AGE_CLOSE, AGE_OPEN, DUE, LATER, ago, due};
use meta::Value;
use meta::time::Timestamp;

/// Rows of nearly all objects take less than 300 bytes; those of events carry a message.
const MAX_BYTES: usize = 1024;

/// Cells as JSON with the ages left out.
#[derive(Debug)]
pub struct Cells {
    json: Box<[u8]>,
    ages: Box<[Age]>,
}

#[derive(Debug)]
struct Age {
    /// Where it goes.
    at: u32,
    /// The millisecond since 1970 that it counts from, or to.
    of_ms: i64,
    /// How it is told.
    told: fn(Timestamp, Timestamp) -> String,
}

impl Cells {
    /// Cells of a document, by the kind's columns; `None` when they are too large to keep. The document must not
    /// hold the marks of ages itself.
    pub fn new(document: &Value, kind: &Kind) -> Option<Cells> {
        let marked = Value::Array(kind.cells(document, LATER)).to_vec();
        if marked.len() > MAX_BYTES {
            return None;
        }
        let marked = std::str::from_utf8(&marked).ok()?;
        let (open, close) = (escaped(AGE_OPEN), escaped(AGE_CLOSE));
        let mut json = String::with_capacity(marked.len());
        let mut ages = Vec::new();
        let mut rest = marked;
        while let Some((before, after)) = rest.split_once(open.as_str()) {
            let (age, after) = after.split_once(close.as_str())?;
            json.push_str(before);
            let (of_ms, told): (_, fn(Timestamp, Timestamp) -> String) = match age.strip_prefix(DUE) {
                Some(of_ms) => (of_ms, due),
                None => (age, ago),
            };
            ages.push(Age { at: u32::try_from(json.len()).ok()?, of_ms: of_ms.parse().ok()?, told });
            rest = after;
        }
        json.push_str(rest);
        Some(Cells { json: json.into_bytes().into(), ages: ages.into() })
    }

    /// Appends the cells as they are at `now`.
    pub fn write(&self, now: Timestamp, out: &mut Vec<u8>) {
        let mut from = 0;
        for age in &self.ages {
            let at = age.at as usize;
            out.extend_from_slice(&self.json[from..at]);
            let of = Timestamp::from_millisecond(age.of_ms).unwrap_or(now);
            out.extend_from_slice((age.told)(of, now).as_bytes());
            from = at;
        }
        out.extend_from_slice(&self.json[from..]);
    }
}

/// A control character as it stands in JSON.
fn escaped(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// Whether stored bytes hold what could be taken for the mark of an age.
pub fn holds_marks(json: &[u8]) -> bool {
    json.windows(6).any(|w| w[0] == b'\\' && w[..5] == *b"\\u000" && matches!(w[5], b'1' | b'2'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::{json, time};

    #[test]
    fn kept_cells_are_those_of_the_kind() {
        let now = time::parse("2026-01-01T01:00:00Z").expect("a time");
        let created = "2026-01-01T00:15:00Z";
        let restarted = json!({"metadata": {"name": "p", "creationTimestamp": created},
            "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running", "containerStatuses": [{"restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:58:00Z"}}}]}});
        let job = json!({"metadata": {"name": "j", "creationTimestamp": created}, "status": {"startTime": created}});
        let event =
            json!({"metadata": {"name": "e"}, "firstTimestamp": created, "lastTimestamp": null, "message": "\"m\""});
        let expected = |at: &str| {
            json!({"status": {"targetResponders": [{"name": "a", "state": "Active"}],
                "responders": [{"name": "a", "startTime": created, "expectedCompletionTime": at}]}})
        };
        for (group, kind, document) in [
            ("", "Pod", restarted),
            ("batch", "Job", job),
            ("", "Event", event),
            ("", "Node", json!({})),
            ("lifecycle.k8s.io", "Eviction", expected("2026-01-01T00:20:00Z")),
            ("lifecycle.k8s.io", "Eviction", expected("2026-01-01T01:20:00Z")),
        ] {
            let columns = api::kinds::of(group, kind);
            let mut written = Vec::new();
            Cells::new(&document, columns).expect("small enough").write(now, &mut written);
            let want = Value::Array(columns.cells(&document, now)).to_vec();
            assert_eq!(String::from_utf8(written), String::from_utf8(want), "{kind}");
        }
        let long = json!({"metadata": {"name": "e"}, "message": "x".repeat(MAX_BYTES)});
        assert!(Cells::new(&long, api::kinds::of("", "Event")).is_none());
    }

    #[test]
    fn marks_are_found() {
        for (text, want) in [("a\\u0001b", true), ("\\u0002", true), ("\\u0003\\n", false), ("u0001", false)] {
            assert_eq!(holds_marks(text.as_bytes()), want, "{text}");
        }
    }
}
