//! LimitRanger: gives containers the default requests and limits of their namespace, and holds pods and claims to its
//! minima, maxima and ratios.
//!
//! Reads: limit ranges. Changes: new pods. Invariant: what a pod or a claim asks for itself is never changed, only refused.

use api::quota::{Amounts, amounts, pod_sum};
use meta::quantity::{Format, Quantity};
use meta::{Status, Value};

use super::{Operation, Review};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub fn mutate(review: &Review<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.operation == Operation::Create && review.subresource.is_empty() && review.is("", "pods") {
        for range in ranges(review) {
            set_defaults(pod, &range);
        }
    }
    Ok(())
}

pub fn validate(review: &Review<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let pod = review.is("", "pods") && review.operation == Operation::Create;
    let check = || {
        let object = new.filter(|_| review.subresource.is_empty())?;
        if !pod && !review.is("", "persistentvolumeclaims") {
            return None;
        }
        ranges(review).iter().find_map(|range| {
            let wrong = if pod { pod_against(object, range) } else { claim_against(object, range) };
            match &wrong[..] {
                [] => None,
                [only] => Some(review.forbidden(only)),
                several => Some(review.forbidden(format!("[{}]", several.join(", ")))),
            }
        })
    };
    check().map_or(Ok(()), Err)
}

fn ranges(review: &Review<'_>) -> Vec<Value> {
    let Some(served) = review.shared.registry.stored("", "limitranges") else { return Vec::new() };
    let prefix = served.key(&review.namespace, "");
    served.cache.snapshot(&prefix, "", 0, false, |_| true).objects.iter().map(|object| object.document()).collect()
}

fn limits<'a>(range: &'a Value, ty: &'a str) -> impl Iterator<Item = &'a Value> {
    range.array_at(&["spec", "limits"]).iter().filter(move |limit| limit.str_at(&["type"]) == Some(ty))
}

/// The containers' defaults, and the annotation that says what was set.
fn set_defaults(pod: &mut Value, range: &Value) {
    let mut said = Vec::new();
    for (member, word) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.at_mut(&["spec", member]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.str_at(&["name"]).unwrap_or_default().to_string();
            for (source, list, what) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
                let mut set = Vec::new();
                for limit in limits(range, "Container") {
                    for (resource, amount) in limit.get(source).and_then(Value::as_object).iter().flat_map(|m| m.iter())
                    {
                        if container.at(&["resources", list, resource]).is_none() {
                            container.set(&["resources", list, resource], amount);
                            set.push(resource.to_string());
                        }
                    }
                }
                if !set.is_empty() {
                    set.sort();
                    said.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() {
        pod.set(&["metadata", "annotations", ANNOTATION], format!("LimitRanger plugin set: {}", said.join("; ")));
    }
}

fn pod_against(pod: &Value, range: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let of = |container: &Value, list: &str| amounts(&container["resources"][list]);
    for limit in limits(range, "Container") {
        for container in ["containers", "initContainers"].iter().flat_map(|member| pod.array_at(&["spec", member])) {
            compare(limit, "Container", &of(container, "requests"), &of(container, "limits"), &mut wrong);
        }
    }
    for limit in limits(range, "Pod") {
        let sum = |list| pod_sum(pod, list, |container| of(container, list));
        compare(limit, "Pod", &sum("requests"), &sum("limits"), &mut wrong);
    }
    wrong
}

fn claim_against(claim: &Value, range: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = amounts(&claim["spec"]["resources"]["requests"]);
    for limit in limits(range, "PersistentVolumeClaim") {
        for (which, word, too_much) in [("min", "minimum", false), ("max", "maximum", true)] {
            for (name, bound) in amounts(&limit[which]) {
                let usage = format!("{word} {name} usage per PersistentVolumeClaim is {bound}");
                match asked.get(&name) {
                    None => wrong.push(format!("{usage}.  No request is specified")),
                    Some(own) if *own != bound && (*own > bound) == too_much => {
                        wrong.push(format!("{usage}, but request is {own}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    wrong
}

/// One container or pod against one limit: minima, maxima, ratios.
fn compare(limit: &Value, ty: &str, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (name, min) in amounts(&limit["min"]) {
        let usage = format!("minimum {name} usage per {ty} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => wrong.push(format!("{usage}.  No request is specified")),
            (Some(own), _) if *own < min => wrong.push(format!("{usage}, but request is {own}")),
            (_, Some(own)) if *own < min => wrong.push(format!("{usage}, but limit is {own}")),
            _ => {}
        }
    }
    for (name, max) in amounts(&limit["max"]) {
        let usage = format!("maximum {name} usage per {ty} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => wrong.push(format!("{usage}.  No limit is specified")),
            (_, Some(own)) if *own > max => wrong.push(format!("{usage}, but limit is {own}")),
            (Some(own), _) if *own > max => wrong.push(format!("{usage}, but request is {own}")),
            _ => {}
        }
    }
    let zero = Quantity::zero(Format::DecimalSI);
    for (name, max) in amounts(&limit["maxLimitRequestRatio"]) {
        let usage = format!("{name} max limit to request ratio per {ty} is {max}");
        let given = |list: &Amounts| list.get(&name).copied().filter(|own| *own != zero);
        match (given(requests), given(limits)) {
            (None, _) => wrong.push(format!("{usage}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{usage}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > max.as_f64() {
                    wrong.push(format!("{usage}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn defaults_are_set_where_nothing_is_asked() {
        let range = json!({"spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}},
            {"type": "Pod", "max": {"cpu": "2"}},
        ]}});
        golden::check!("limit_defaults.txt", |pod| {
            let mut pod = meta::parse(pod.as_bytes()).expect("JSON");
            set_defaults(&mut pod, &range);
            pod.to_string()
        });
    }

    #[test]
    fn what_is_refused() {
        let plain = json!({"resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}}});
        golden::check!("limit_ranges.txt", |case| {
            let (what, limit) = case.split_once(' ').expect("an object and a limit");
            let mut range = json!({"spec": {"limits": [{}]}});
            range.set(&["spec", "limits"], vec![meta::parse(limit.as_bytes()).expect("JSON")]);
            let mut pod = json!({"spec": {"containers": [plain.clone()]}});
            if what == "two" {
                pod =
                    json!({"spec": {"containers": [plain.clone(), plain.clone()], "initContainers": [plain.clone()]}});
            }
            let claim = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
            let wrong = if what == "claim" { claim_against(&claim, &range) } else { pod_against(&pod, &range) };
            wrong.join("\n")
        });
    }
}
