//! The two built-in resources that are served in a version other than the stored one.
//!
//! Events of `events.k8s.io/v1` are stored as core ones; autoscalers of `autoscaling/v1` are stored as `v2`.
//! Invariant: what one version cannot say survives in the other's annotations or fields, as upstream does it.

use api::resource::Resource;
use meta::{Value, json};

/// Changes documents in place between a version and the stored form.
pub struct Conversion {
    pub from_stored: fn(&mut Value),
    pub to_stored: fn(&mut Value),
}

static EVENTS: Conversion = Conversion { from_stored: event_from_core, to_stored: event_to_core };
static AUTOSCALERS: Conversion = Conversion { from_stored: autoscaler_to_v1, to_stored: autoscaler_from_v1 };

/// The conversion that a resource needs; `None` when it is stored as it is served.
pub fn between(info: &Resource) -> Option<&'static Conversion> {
    match (&*info.group, &*info.version, &*info.plural) {
        ("events.k8s.io", "v1", "events") => Some(&EVENTS),
        ("autoscaling", "v1", "horizontalpodautoscalers") => Some(&AUTOSCALERS),
        _ => None,
    }
}

/// Names of the event's fields: in core, and in `events.k8s.io`.
const EVENT_FIELDS: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
    // In core this name is taken by nothing else; it is the same in both.
    ("reportingInstance", "reportingInstance"),
];

fn rename(document: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>, api_version: &str) {
    document.set(&["apiVersion"], api_version);
    for (from, to) in pairs {
        if from != to
            && let Some(value) = document.remove(&[from])
        {
            document.set(&[to], value);
        }
    }
}

fn event_from_core(document: &mut Value) {
    rename(document, EVENT_FIELDS.into_iter(), "events.k8s.io/v1");
    for member in ["reportingController", "reportingInstance"] {
        if document.str_at(&[member]) == Some("") {
            document.remove(&[member]);
        }
    }
}

fn event_to_core(document: &mut Value) {
    rename(document, EVENT_FIELDS.into_iter().map(|(core, new)| (new, core)), "v1");
}

/// Compat: what v1 cannot say is kept in these annotations (autoscaling/v1 conversion).
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu(metric: &Value) -> bool {
    metric.str_at(&["type"]) == Some("Resource") && metric.str_at(&["resource", "name"]) == Some("cpu")
}

fn annotate(document: &mut Value, key: &str, value: &Value) {
    document.set(&["metadata", "annotations", key], value.to_string());
}

/// Takes an annotation out and parses it.
fn unannotate(document: &mut Value, key: &str) -> Option<Value> {
    let text = document.remove(&["metadata", "annotations", key])?;
    if document.at(&["metadata", "annotations"]).is_some_and(Value::is_empty) {
        document.remove(&["metadata", "annotations"]);
    }
    meta::parse(text.as_str()?.as_bytes()).ok()
}

fn autoscaler_to_v1(document: &mut Value) {
    document.set(&["apiVersion"], "autoscaling/v1");
    let metrics = document.remove(&["spec", "metrics"]).unwrap_or_default();
    let mut others = Vec::new();
    for metric in metrics.as_array().into_iter().flatten() {
        match metric.int_at(&["resource", "target", "averageUtilization"]) {
            Some(percent) if is_cpu(metric) => document.set(&["spec", "targetCPUUtilizationPercentage"], percent),
            _ => others.push(metric.clone()),
        }
    }
    if !others.is_empty() {
        annotate(document, METRICS, &others.into());
    }
    if let Some(behavior) = document.remove(&["spec", "behavior"]) {
        annotate(document, BEHAVIOR, &behavior);
    }
    if let Some(current) = document.remove(&["status", "currentMetrics"]).filter(|m| !m.is_empty()) {
        let cpu = current.as_array().into_iter().flatten().find(|m| is_cpu(m));
        if let Some(percent) = cpu.and_then(|m| m.int_at(&["resource", "current", "averageUtilization"])) {
            document.set(&["status", "currentCPUUtilizationPercentage"], percent);
        }
        annotate(document, CURRENT_METRICS, &current);
    }
    if document.get("status").is_some_and(|status| !status.is_null()) {
        document.set_default(&["status", "currentReplicas"], 0);
    }
    if let Some(conditions) = document.remove(&["status", "conditions"]).filter(|c| !c.is_empty()) {
        annotate(document, CONDITIONS, &conditions);
    }
}

fn autoscaler_from_v1(document: &mut Value) {
    document.set(&["apiVersion"], "autoscaling/v2");
    let mut metrics = Vec::new();
    if let Some(percent) = document.remove(&["spec", "targetCPUUtilizationPercentage"]).filter(|p| !p.is_null()) {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}));
        metrics[0].set(&["resource", "target", "averageUtilization"], percent);
    }
    if let Some(Value::Array(others)) = unannotate(document, METRICS) {
        metrics.extend(others);
    }
    if !metrics.is_empty() {
        document.set(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = unannotate(document, BEHAVIOR) {
        document.set(&["spec", "behavior"], behavior);
    }
    document.remove(&["status", "currentCPUUtilizationPercentage"]);
    if let Some(current) = unannotate(document, CURRENT_METRICS) {
        document.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = unannotate(document, CONDITIONS) {
        document.set(&["status", "conditions"], conditions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "m", "count": 2,
            "involvedObject": {"name": "x"}, "reportingComponent": "c", "type": "Normal"});
        let mut other = event.clone();
        event_from_core(&mut other);
        assert_eq!(
            other,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "m",
                "deprecatedCount": 2, "regarding": {"name": "x"}, "reportingController": "c", "type": "Normal"})
        );
        event_to_core(&mut other);
        assert_eq!(other, event);

        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"behavior": {"a": 1}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods"}]}});
        let mut v1 = v2.clone();
        autoscaler_to_v1(&mut v1);
        assert_eq!(v1["spec"], json!({"targetCPUUtilizationPercentage": 50}));
        autoscaler_from_v1(&mut v1);
        assert_eq!(v1, v2);
    }
}
