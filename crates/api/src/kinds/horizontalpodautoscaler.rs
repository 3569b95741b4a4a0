//! HorizontalPodAutoscaler.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled.").by(|h| {
            let target = &h["spec"]["scaleTargetRef"];
            format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into()
        }),
        Column::text("Targets", "The metrics that decide, with their present and wanted values.").by(targets),
        Column::text("MinPods", "At least so many pods.").or("spec.minReplicas", "<unset>"),
        Column::text("MaxPods", "At most so many pods.").by(|h| int(h, &["spec", "maxReplicas"]).into()),
        Column::text("Replicas", "How many pods there are.").by(|h| int(h, &["status", "currentReplicas"]).into()),
        AGE,
    ],
    defaults,
    prepare_create: |h| h.set(&["status"], json!({"currentReplicas": 0, "desiredReplicas": 0})),
    rules: &[
        ("spec.maxReplicas", Positive),
        ("spec.scaleTargetRef.kind", Required("")),
        ("spec.scaleTargetRef.name", Required("")),
    ],
    validate,
    ..Kind::PLAIN
};

const SHOWN_MAX: usize = 2;

fn targets(h: &Value) -> Cell {
    let metrics = h.array_at(&["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".into();
    }
    let current = h.array_at(&["status", "currentMetrics"]);
    let mut shown: Vec<String> =
        metrics.iter().enumerate().map(|(i, m)| target(m, current.get(i).unwrap_or(&Value::Null))).collect();
    let more = shown.len().saturating_sub(SHOWN_MAX);
    shown.truncate(SHOWN_MAX);
    if more > 0 { format!("{} + {more} more...", shown.join(", ")).into() } else { shown.join(", ").into() }
}

fn target(metric: &Value, current: &Value) -> String {
    let member = match text(metric, &["type"]) {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let (wanted, now) = (&metric[member]["target"], &current[member]["current"]);
    let prefix = match member {
        "resource" | "containerResource" => format!("{}: ", text(&metric[member], &["name"])),
        _ => String::new(),
    };
    if let Some(percent) = wanted.int_at(&["averageUtilization"]) {
        let now = now.int_at(&["averageUtilization"]).map_or("<unknown>".to_string(), |n| format!("{n}%"));
        return format!("{prefix}{now}/{percent}%");
    }
    let average = !wanted["averageValue"].is_null();
    let field = if average { "averageValue" } else { "value" };
    let now = match text(now, &[field]) {
        "" => "<unknown>",
        value => value,
    };
    let suffix = if average && member != "pods" && prefix.is_empty() { " (avg)" } else { "" };
    format!("{prefix}{now}/{}{suffix}", text(wanted, &[field]))
}

fn defaults(h: &mut Value) {
    let spec = h.slot(&["spec"]);
    spec.set_default(&["minReplicas"], 1);
    // The first version has one percentage instead of metrics.
    if spec["targetCPUUtilizationPercentage"].is_null() && spec.array_at(&["metrics"]).is_empty() {
        let target = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        spec.set(&["metrics"], vec![target]);
    }
}

fn validate(h: &Value, errors: &mut Errors) {
    let (min, max) = (h.int_at(&["spec", "minReplicas"]).unwrap_or(1), int(h, &["spec", "maxReplicas"]));
    if min < 1 {
        let detail = "must be greater than or equal to 1";
        errors.push(Error::invalid(&Path::new("spec.minReplicas"), min, detail));
    }
    if max < min {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&Path::new("spec.maxReplicas"), max, detail));
    }
}
