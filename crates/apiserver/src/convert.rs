//! Built-in resources that are served in a version other than the stored one.
//!
//! Events of `events.k8s.io/v1` are stored as core ones; autoscalers of `autoscaling/v1` as `v2`; versions that are not
//! settled as the settled one, from which nearly all differ in name alone. Invariant: what one version cannot say survives
//! in the other's annotations or fields, as upstream does it.

use api::resource::Resource;
use meta::{Value, json};

/// Changes documents in place between a version and the stored form.
pub struct Conversion {
    served: String,
    stored: String,
    /// `None` when the two versions differ in name alone.
    change: Option<Change>,
}

struct Change {
    from_stored: fn(&mut Value),
    to_stored: fn(&mut Value),
}

impl Conversion {
    /// The fields of both versions are the same ones, as far as managers own them: what differs between versions of
    /// `resource.k8s.io` lies in lists that are owned as one.
    pub fn keeps_fields(&self) -> bool {
        self.change.is_none() || self.served.starts_with("resource.k8s.io/")
    }

    pub fn to_served(&self, document: &mut Value) {
        if let Some(change) = &self.change {
            (change.from_stored)(document);
        }
        document.set(&["apiVersion"], self.served.as_str());
    }

    pub fn to_stored(&self, document: &mut Value) {
        if let Some(change) = &self.change {
            (change.to_stored)(document);
        }
        document.set(&["apiVersion"], self.stored.as_str());
    }
}

/// The conversion that a built-in resource needs; `None` when it is stored as it is served.
pub fn between(info: &Resource) -> Option<Conversion> {
    if info.is_storage() || info.type_name.is_empty() {
        return None;
    }
    let change = |from_stored, to_stored| Some(Change { from_stored, to_stored });
    let change = match (&*info.group, &*info.version, &*info.plural) {
        ("events.k8s.io", "v1", "events") => change(event_from_core, event_to_core),
        ("autoscaling", "v1", "horizontalpodautoscalers") => change(autoscaler_to_v1, autoscaler_from_v1),
        ("resource.k8s.io", "v1beta1", "resourceclaims") => change(claim_to_v1beta1, claim_from_v1beta1),
        ("resource.k8s.io", "v1beta1", "resourceclaimtemplates") => change(template_to_v1beta1, template_from_v1beta1),
        ("resource.k8s.io", "v1beta1", "resourceslices") => change(slice_to_v1beta1, slice_from_v1beta1),
        _ => None,
    };
    Some(Conversion { served: info.api_version(), stored: info.storage.to_string(), change })
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

fn rename(document: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    for (from, to) in pairs {
        if from != to
            && let Some(value) = document.remove(&[from])
        {
            document.set(&[to], value);
        }
    }
}

fn event_from_core(document: &mut Value) {
    rename(document, EVENT_FIELDS.into_iter());
    for member in ["reportingController", "reportingInstance"] {
        if document.str_at(&[member]) == Some("") {
            document.remove(&[member]);
        }
    }
}

fn event_to_core(document: &mut Value) {
    rename(document, EVENT_FIELDS.into_iter().map(|(core, new)| (new, core)));
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

/// Of `DeviceRequest`: what `v1` has in `exactly`, and `resource.k8s.io/v1beta1` in the request itself.
const EXACT: [&str; 8] = [
    "adminAccess", "allocationMode", "capacity", "count", "derivedAttributes", "deviceClassName", "selectors",
    "tolerations",
];

fn each(document: &mut Value, path: &[&str], change: fn(&mut Value)) {
    if let Some(Value::Array(items)) = document.at_mut(path) {
        items.iter_mut().filter(|item| item.as_object().is_some()).for_each(change);
    }
}

fn request_to_v1beta1(request: &mut Value) {
    if let Some(Value::Object(exactly)) = request.remove(&["exactly"]) {
        exactly.into_iter().for_each(|(name, value)| request.set(&[&name], value));
    }
    request.set_default(&["deviceClassName"], "");
}

fn request_from_v1beta1(request: &mut Value) {
    let mut exactly = Value::default();
    for name in EXACT {
        let value = request.remove(&[name]).filter(|v| !v.is_null() && !v.is_empty() && v.as_i64() != Some(0));
        if let Some(value) = value {
            exactly.set(&[name], value);
        }
    }
    if !exactly.is_null() {
        exactly.set_default(&["deviceClassName"], "");
        request.set(&["exactly"], exactly);
    }
}

fn claim_to_v1beta1(document: &mut Value) {
    each(document, &["spec", "devices", "requests"], request_to_v1beta1);
}

fn claim_from_v1beta1(document: &mut Value) {
    each(document, &["spec", "devices", "requests"], request_from_v1beta1);
}

fn template_to_v1beta1(document: &mut Value) {
    each(document, &["spec", "spec", "devices", "requests"], request_to_v1beta1);
}

fn template_from_v1beta1(document: &mut Value) {
    each(document, &["spec", "spec", "devices", "requests"], request_from_v1beta1);
}

fn slice_to_v1beta1(document: &mut Value) {
    each(document, &["spec", "devices"], |device| {
        let name = device.remove(&["name"]).unwrap_or_default();
        let basic = std::mem::replace(device, json!({"name": name}));
        device.set(&["basic"], basic);
    });
}

fn slice_from_v1beta1(document: &mut Value) {
    each(document, &["spec", "devices"], |device| {
        if let Some(Value::Object(basic)) = device.remove(&["basic"]) {
            basic.into_iter().for_each(|(name, value)| device.set(&[&name], value));
        }
    });
    // Compat: these are pointers in v1 alone.
    let spec = &document["spec"];
    let unset = [
        ("nodeName", spec.str_at(&["nodeName"]) == Some("")),
        ("allNodes", spec.bool_at(&["allNodes"]) == Some(false)),
    ];
    unset.iter().filter(|(_, unset)| *unset).for_each(|(name, _)| drop(document.remove(&["spec", name])));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversion(group: &str, version: &str, plural: &str) -> Conversion {
        let all = api::resource::all_with_previews();
        let info = all.iter().find(|r| r.group == group && r.version == version && r.plural == plural);
        between(info.expect("a resource")).expect("another version is stored")
    }

    #[test]
    fn there_and_back() {
        for (group, version, plural, stored, want) in [
            (
                "events.k8s.io",
                "v1",
                "events",
                json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "m", "count": 2,
                    "involvedObject": {"name": "x"}, "reportingComponent": "c", "type": "Normal"}),
                json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "m",
                    "deprecatedCount": 2, "regarding": {"name": "x"}, "reportingController": "c", "type": "Normal"}),
            ),
            (
                "resource.k8s.io",
                "v1beta2",
                "deviceclasses",
                json!({"apiVersion": "resource.k8s.io/v1", "spec": {}}),
                json!({"apiVersion": "resource.k8s.io/v1beta2", "spec": {}}),
            ),
            (
                "resource.k8s.io",
                "v1beta1",
                "resourceclaims",
                json!({"apiVersion": "resource.k8s.io/v1", "spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "c", "count": 1}},
                    {"name": "b", "firstAvailable": [{"name": "x"}]}]}}}),
                json!({"apiVersion": "resource.k8s.io/v1beta1", "spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "c", "count": 1},
                    {"name": "b", "deviceClassName": "", "firstAvailable": [{"name": "x"}]}]}}}),
            ),
            (
                "resource.k8s.io",
                "v1beta1",
                "resourceslices",
                json!({"apiVersion": "resource.k8s.io/v1", "spec": {"devices": [{"name": "a", "capacity": {}}]}}),
                json!({"apiVersion": "resource.k8s.io/v1beta1", "spec": {"devices": [{"name": "a", "basic": {"capacity": {}}}]}}),
            ),
        ] {
            let conversion = conversion(group, version, plural);
            let mut document = stored.clone();
            conversion.to_served(&mut document);
            assert_eq!(document, want);
            conversion.to_stored(&mut document);
            assert_eq!(document, stored);
        }
    }

    #[test]
    fn what_v1_autoscalers_cannot_say_is_kept() {
        let conversion = conversion("autoscaling", "v1", "horizontalpodautoscalers");
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"behavior": {"a": 1}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods"}]}});
        let mut v1 = v2.clone();
        conversion.to_served(&mut v1);
        assert_eq!(v1["spec"], json!({"targetCPUUtilizationPercentage": 50}));
        conversion.to_stored(&mut v1);
        assert_eq!(v1, v2);
    }
}
