//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable.
//!
//! Changes: new and updated pods. Invariant: tolerations that the pod brings are left alone.

use meta::{Status, Value, json};

use super::{Operation, Review};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub fn mutate(review: &Review<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.operation != Operation::Delete && review.subresource.is_empty() && review.is("", "pods") {
        apply(pod);
    }
    Ok(())
}

fn apply(pod: &mut Value) {
    for taint in TAINTS {
        let tolerated = pod.array_at(&["spec", "tolerations"]).iter().any(|t| {
            let key = t.str_at(&["key"]).unwrap_or_default();
            let effect = t.str_at(&["effect"]).unwrap_or_default();
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            let toleration =
                json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            pod.slot(&["spec", "tolerations"]).make_array().push(toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_tolerations_win() {
        for (tolerations, count) in [
            (json!([]), 2),
            (json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": "x", "effect": "NoExecute"}]), 3),
        ] {
            let mut pod = json!({"spec": {"containers": []}});
            pod.set(&["spec", "tolerations"], tolerations);
            apply(&mut pod);
            assert_eq!(pod.array_at(&["spec", "tolerations"]).len(), count, "{pod}");
        }
    }
}
