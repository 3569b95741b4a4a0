//! HorizontalPodAutoscaler.

use super::pod_spec;
use super::prelude::*;
use meta::quantity::Quantity;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Reference", ".spec.scaleTargetRef").by(|h| {
            let target = &h["spec"]["scaleTargetRef"];
            format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into()
        }),
        Column::text("Targets", ".spec.metrics").by(targets),
        Column::text("MinPods", "").or("spec.minReplicas", "<unset>"),
        Column::text("MaxPods", ".spec.maxReplicas").by(|h| int(h, &["spec", "maxReplicas"]).into()),
        Column::text("Replicas", ".status.currentReplicas").by(|h| int(h, &["status", "currentReplicas"]).into()),
        AGE,
    ],
    defaults,
    prepare_create: |h| new_object(h, json!({"currentMetrics": null, "desiredReplicas": 0})),
    prepare_update: keep_status_count_spec,
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
    if !spec["behavior"].is_null() {
        for (direction, up) in [("scaleUp", true), ("scaleDown", false)] {
            rule_defaults(spec.slot(&["behavior", direction]), up);
        }
    }
}

/// What scaling does when nothing is said: up by four pods or to twice as many at once, down as far as it may.
fn rule_defaults(rules: &mut Value, up: bool) {
    let policy = |ty: &str, value: i64| json!({"type": (ty), "value": value, "periodSeconds": 15});
    fill::unset(rules, "selectPolicy", "Max");
    if up {
        fill::unset(rules, "stabilizationWindowSeconds", 0);
    }
    if rules["policies"].is_null() {
        let mut policies = vec![policy("Percent", 100)];
        if up {
            policies.insert(0, policy("Pods", 4));
        }
        rules.set(&["policies"], policies);
    }
}

const TARGET: &[Rule] = &[
    ("kind", Required("")),
    ("kind", Name(names::path_segment)),
    ("name", Required("")),
    ("name", Name(names::path_segment)),
];

fn validate(h: &Value, errors: &mut Errors) {
    let (spec, path) = (&h["spec"], Path::new("spec"));
    let (min, max) = (h.int_at(&["spec", "minReplicas"]).unwrap_or(1), int(h, &["spec", "maxReplicas"]));
    if min < 0 {
        errors.push(Error::invalid(&path.child("minReplicas"), min, "must be greater than or equal to 0"));
    }
    if max < min {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&path.child("maxReplicas"), max, detail));
    }
    let (target, at) = (&spec["scaleTargetRef"], path.child("scaleTargetRef"));
    check_at(target, &at, TARGET, errors);
    let (version, at) = (text(target, &["apiVersion"]), at.child("apiVersion"));
    let detail = match version.matches('/').count() {
        0 if text(target, &["kind"]) != "ReplicationController" => {
            Some("apiVersion must specify API group".to_string())
        }
        2.. => Some(format!("unexpected GroupVersion string: {version}")),
        _ => None,
    };
    errors.extend(detail.map(|detail| Error::invalid(&at, version, detail)));
    let metrics = spec.array_at(&["metrics"]);
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(metric, &path.child("metrics").index(i), errors);
    }
    for direction in ["scaleUp", "scaleDown"].into_iter().filter(|d| !spec["behavior"][*d].is_null()) {
        validate_scaling(&spec["behavior"][direction], &path.child("behavior").child(direction), errors);
    }
    if min == 0 && !metrics.iter().any(|m| ["Object", "External"].contains(&text(m, &["type"]))) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(&path.child("metrics"), detail));
    }
    match max {
        0 => errors.push(Error::required(&path.child("maxReplicas"), "")),
        ..0 => errors.push(Error::invalid(&path.child("maxReplicas"), max, "must be greater than or equal to 1")),
        _ => {}
    }
}

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

fn validate_metric(metric: &Value, path: &Path, errors: &mut Errors) {
    let ty = text(metric, &["type"]);
    if ty.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric source type"));
    }
    let known = TYPES.contains(&ty);
    if !known {
        errors.push(Error::not_supported(&path.child("type"), ty, TYPES));
    }
    // Compat: the first source of these that is there is looked at, whatever the type is.
    let member = |ty: &str| ty[..1].to_lowercase() + &ty[1..];
    let given: Vec<&str> = SOURCES.into_iter().filter(|ty| !metric[member(ty).as_str()].is_null()).collect();
    if let Some(first) = given.first() {
        validate_source(&metric[member(first).as_str()], first, &path.child(&member(first)), errors);
    }
    if known && !given.contains(&ty) {
        let detail = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(&member(ty)), detail));
    }
    let others = TYPES.iter().filter(|other| given.len() > 1 && **other != ty && given.contains(other));
    let detail = "must populate the given metric source only";
    errors.extend(others.map(|other| Error::forbidden(&path.child(&member(other)), detail)));
}

/// In the order in which they are looked at.
const SOURCES: [&str; 5] = ["Object", "External", "Pods", "Resource", "ContainerResource"];

fn validate_source(source: &Value, ty: &str, at: &Path, errors: &mut Errors) {
    if ty == "Object" {
        for field in ["kind", "name"] {
            let (value, at) = (text(source, &["describedObject", field]), at.child("describedObject").child(field));
            match value {
                "" => errors.push(Error::required(&at, "")),
                value => errors.extend(names::path_segment(value).into_iter().map(|m| Error::invalid(&at, value, m))),
            }
        }
    }
    match ty {
        "Resource" | "ContainerResource" => {
            let name = text(source, &["name"]);
            if name.is_empty() {
                errors.push(Error::required(&at.child("name"), "must specify a resource name"));
            } else if ty == "ContainerResource" {
                pod_spec::validate_container_resource_name(name, &at.child("name"), errors);
            }
            if ty == "ContainerResource" {
                let rules =
                    [("container", Required("must specify a container")), ("container", Name(names::dns1123_label))];
                check_at(source, at, &rules, errors);
            }
        }
        _ => {
            let (name, name_at) = (text(source, &["metric", "name"]), at.child("metric.name"));
            if name.is_empty() {
                errors.push(Error::required(&name_at, "must specify a metric name"));
            }
            errors.extend(names::path_segment(name).into_iter().map(|m| Error::invalid(&name_at, name, m)));
        }
    }
    validate_target(&source["target"], ty, &at.child("target"), errors);
}

fn validate_target(target: &Value, of: &str, path: &Path, errors: &mut Errors) {
    let ty = text(target, &["type"]);
    if ty.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&ty) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&path.child("type"), ty, detail));
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = target.str_at(&[field])
            && Quantity::parse(amount).is_ok_and(|quantity| quantity.sign() <= 0)
        {
            errors.push(Error::invalid(&path.child(field), amount, "must be positive"));
        }
    }
    if let Some(n) = target.int_at(&["averageUtilization"]).filter(|n| *n < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), n, "must be greater than 0"));
    }
    let has = |field: &str| !target[field].is_null();
    let mut missing = |field: &str, detail: &str| errors.push(Error::required(&path.child(field), detail));
    match of {
        "Resource" | "ContainerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                missing("averageUtilization", "must set either a target raw value or a target utilization");
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                errors.push(Error::forbidden(&path.child("averageValue"), detail));
            }
            _ => {}
        },
        "Pods" if !has("averageValue") => missing("averageValue", "must specify a positive target averageValue"),
        "Object" if !has("value") && !has("averageValue") => {
            missing("averageValue", "must set either a target value or averageValue");
        }
        "External" => match (has("value"), has("averageValue")) {
            (false, false) => missing("averageValue", "must set either a target value for metric or a per-pod target"),
            (true, true) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.push(Error::forbidden(&path.child("value"), detail));
            }
            _ => {}
        },
        _ => {}
    }
}

const POLICY_PERIOD_MAX_SECONDS: i64 = 1800;
const WINDOW_MAX_SECONDS: i64 = 3600;

fn validate_scaling(rules: &Value, path: &Path, errors: &mut Errors) {
    if let Some(n) = rules.int_at(&["stabilizationWindowSeconds"]) {
        let at = path.child("stabilizationWindowSeconds");
        match n {
            ..0 => errors.push(Error::invalid(&at, n, "must be greater than or equal to zero")),
            n if n > WINDOW_MAX_SECONDS => {
                errors.push(Error::invalid(&at, n, format!("must be less than or equal to {WINDOW_MAX_SECONDS}")));
            }
            _ => {}
        }
    }
    check_at(rules, path, &[("selectPolicy", GivenOneOf(&["Disabled", "Max", "Min"]))], errors);
    check_at(rules, path, &[("policies", Required("must specify at least one Policy"))], errors);
    for (i, policy) in rules.array_at(&["policies"]).iter().enumerate() {
        let at = path.child("policies").index(i);
        check_at(policy, &at, &[("type", AnyOneOf(&["Percent", "Pods"]))], errors);
        for field in ["value", "periodSeconds"] {
            let n = int(policy, &[field]);
            if n <= 0 {
                errors.push(Error::invalid(&at.child(field), n, "must be greater than zero"));
            } else if field == "periodSeconds" && n > POLICY_PERIOD_MAX_SECONDS {
                let detail = format!("must be less than or equal to {POLICY_PERIOD_MAX_SECONDS}");
                errors.push(Error::invalid(&at.child(field), n, detail));
            }
        }
    }
    check_at(rules, path, &[("tolerance", Amount)], errors);
}
