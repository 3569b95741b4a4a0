//! Event, of `v1` and of `events.k8s.io/v1`: the two name the same fields differently.

use super::prelude::*;

/// The event of `v1`.
pub static KIND: Kind = OLD;

const OLD: Kind = Kind {
    columns: &[
        Column::text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
        Column::text("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
        Column::text("Reason", ".reason"),
        Column::text("Object", "The object that this event is about."),
        Column::text("Subobject", ".involvedObject.fieldPath").wide(),
        Column::text("Source", ".source").wide(),
        Column::text("Message", "A human-readable description of the status of this operation."),
        Column::text("First Seen", ".firstTimestamp").wide(),
        Column::text("Count", "The number of times this event has occurred.").wide(),
        NAME.wide(),
    ],
    row: Some(row),
    validate: |e, errors| validate(e, false, errors),
    // What an event is called is up to who records it.
    name_rule: names::path_segment,
    selectable,
    selectable_names: FIELDS.split_at(11).0,
    create_on_update: true,
    ..Kind::PLAIN
};

/// Those of `v1`, up to `type`, and from `reason` on those of the other.
const FIELDS: &[&str] = &[
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reportingComponent",
    "source", "reason", "type", "reportingController", "regarding.kind", "regarding.namespace", "regarding.name",
    "regarding.uid", "regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath",
];

/// The object that the event is about.
fn about(e: &Value) -> &Value {
    if e["involvedObject"].is_null() { &e["regarding"] } else { &e["involvedObject"] }
}

fn first<'a>(e: &'a Value, members: &[&str]) -> &'a str {
    members.iter().map(|m| text(e, &[m])).find(|t| !t.is_empty()).unwrap_or_default()
}

fn source(e: &Value) -> String {
    let source = if e["source"].is_null() { &e["deprecatedSource"] } else { &e["source"] };
    let component = first(source, &["component"]);
    let component =
        if component.is_empty() { first(e, &["reportingComponent", "reportingController"]) } else { component };
    let host = text(source, &["host"]);
    let host = if host.is_empty() { text(e, &["reportingInstance"]) } else { host };
    [component, host].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", ")
}

fn row(e: &Value, now: Timestamp) -> Vec<Cell> {
    let ago = |time: &str| since(Some(time), now);
    let first_seen = first(e, &["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]);
    let last = first(e, &["lastTimestamp", "deprecatedLastTimestamp"]);
    let mut last_seen = if last.is_empty() { first_seen } else { last };
    let mut count = int(e, &["count"]).max(int(e, &["deprecatedCount"]));
    if !e["series"].is_null() {
        last_seen = text(e, &["series", "lastObservedTime"]);
        count = int(e, &["series", "count"]);
    } else if count == 0 {
        count = 1;
    }
    let about = about(e);
    let kind = text(about, &["kind"]).to_lowercase();
    let target = match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        ago(last_seen).into(),
        text(e, &["type"]).into(),
        text(e, &["reason"]).into(),
        target.into(),
        text(about, &["fieldPath"]).into(),
        source(e).into(),
        first(e, &["message", "note"]).trim().into(),
        ago(first_seen).into(),
        count.into(),
        name(e),
    ]
}

fn selectable(e: &Value) -> Vec<(&'static str, String)> {
    let about = about(e);
    let reporter = first(e, &["reportingComponent", "reportingController"]);
    let value = |field: &'static str| match field {
        "reason" | "type" => text(e, &[field]),
        "reportingComponent" | "reportingController" => reporter,
        "source" => Some(text(e, &["source", "component"])).filter(|c| !c.is_empty()).unwrap_or(reporter),
        _ => field.split_once('.').map_or("", |(_, member)| text(about, &[member])),
    };
    FIELDS.iter().map(|field| (*field, value(field).to_string())).collect()
}

/// What is wrong with an event; `events.k8s.io/v1` asks for more, and is stored as `v1` is.
fn validate(e: &Value, modern: bool, errors: &mut Errors) {
    let (namespace, object) = (text(e, &["metadata", "namespace"]), text(e, &["involvedObject", "namespace"]));
    let blank = |field: &str, detail: String| Error::invalid(&Path::new(field), "", detail);
    match (e["eventTime"].is_null(), modern) {
        // Events about cluster-wide objects live in `default`, or where their reporter lives.
        (true, false) => {
            if !object.is_empty() && object != namespace {
                let at = Path::new("involvedObject.namespace");
                errors.push(Error::invalid(&at, object, "does not match event.namespace"));
            }
            return;
        }
        (true, true) => errors.push(Error::required(&Path::new("eventTime"), "")),
        (false, _) => validate_reporter(e, modern, errors),
    }
    let ty = text(e, &["type"]);
    if modern && !["Normal", "Warning"].contains(&ty) {
        errors.push(blank("type", format!("has invalid value: {ty}")));
    }
    if text(e, &["message"]).len() > 1024 {
        errors.push(blank("message", "can have at most 1024 characters".into()));
    }
    if !modern {
        return;
    }
    if !e["series"].is_null() {
        if int(e, &["series", "count"]) < 2 {
            errors.push(blank("series.count", "should be at least 2".into()));
        }
        check(e, &[("series.lastObservedTime", Required(""))], errors);
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        if !e[field].is_empty() && e[field].as_i64() != Some(0) {
            errors.push(blank(field, "needs to be unset".into()));
        }
    }
}

/// What an event with a time of its own says about who saw it.
fn validate_reporter(e: &Value, modern: bool, errors: &mut Errors) {
    let at = Path::new(if modern { "reportingController" } else { "reportingComponent" });
    let reporter = text(e, &["reportingComponent"]);
    if reporter.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    errors.extend(names::qualified_name(reporter).into_iter().map(|m| Error::invalid(&at, reporter, m)));
    for field in ["reportingInstance", "action", "reason"] {
        match text(e, &[field]).len() {
            0 => errors.push(Error::required(&Path::new(field), "")),
            129.. => errors.push(Error::invalid(&Path::new(field), "", "can have at most 128 characters")),
            _ => {}
        }
    }
}

/// What does not change in an event of `events.k8s.io/v1`.
const FIXED: [&str; 13] = [
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime",
    "action", "related", "reportingComponent", "reportingInstance",
];

const FIXED_TEXTS: [&str; 6] = ["reason", "message", "type", "action", "reportingComponent", "reportingInstance"];

/// The same event as `events.k8s.io/v1` serves it.
pub static NEW: Kind = Kind {
    selectable_names: FIELDS.split_at(9).1,
    name_rule: names::dns1123_subdomain,
    validate: |_, _| {},
    validate_create: |e| {
        let mut errors = Errors::new();
        validate(e, true, &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        // What may not change is told once.
        let mut kept = new.clone();
        ["type", "eventTime"].into_iter().for_each(|field| super::restore(&mut kept, old, field));
        validate(&kept, true, &mut errors);
        for field in FIXED.into_iter().filter(|field| new[*field] != old[*field]) {
            let named = if field == "reportingComponent" { "reportingController" } else { field };
            let shown =
                if new[field].is_null() && FIXED_TEXTS.contains(&field) { "".into() } else { new[field].clone() };
            errors.push(Error::invalid(&Path::new(named), shown, "field is immutable"));
        }
        errors
    },
    ..OLD
};

#[cfg(test)]
mod tests {
    use super::*;
    use meta::time;

    #[test]
    fn both_forms_print_alike() {
        let now = time::parse("2026-01-01T00:10:00Z").expect("a time");
        let old = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "message": " m \n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"});
        let want = r#"["60s","Warning","BackOff","pod/p","spec.containers{a}","kubelet, n","m","10m",3,"e"]"#;
        assert_eq!(Value::Array(row(&old, now)).to_string(), want);
        let new = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "note": "m",
            "regarding": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "reportingController": "kubelet", "reportingInstance": "n",
            "eventTime": "2026-01-01T00:00:00.000000Z", "series": {"count": 3, "lastObservedTime": "2026-01-01T00:09:00.000000Z"}});
        assert_eq!(Value::Array(row(&new, now)).to_string(), want);
    }
}
