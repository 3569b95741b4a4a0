//! Priority: turns the priority class of a pod or a group of pods into a number, and guards the classes.
//!
//! Reads: priority classes. Changes: new pods and groups. Invariant: the number in a stored pod is the one of its class at the time
//! it was created.

use futures::FutureExt;
use futures::future::BoxFuture;
use meta::{Status, Value};

use super::{Operation, Review};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";
/// What has a priority, and what messages call it.
const PRIORITIZED: [(&str, &str, &str); 3] =
    [("", "pods", "pod"), (GROUP, "podgroups", "pod group"), (GROUP, "compositepodgroups", "composite pod group")];
/// How a default class is stored.
const MARK: &str = "\"globalDefault\":true";
/// Classes with higher values belong to the system.
pub const HIGHEST_USER_VALUE: i64 = 1_000_000_000;

pub fn mutate<'a>(
    review: &'a mut Review<'_>,
    pod: &'a mut Value,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    async move {
        let Some((_, _, what)) = PRIORITIZED.iter().find(|(group, plural, _)| review.is(group, plural)) else {
            return Ok(());
        };
        if !review.subresource.is_empty() {
            return Ok(());
        }
        match review.operation {
            Operation::Create => resolve(review, pod, what).await,
            Operation::Update => {
                // What was resolved when the pod was created stays, also when the client leaves it out.
                if let Some(old) = old.filter(|_| *what == "pod") {
                    for member in ["priority", "preemptionPolicy"] {
                        if let Some(value) = old.at(&["spec", member]) {
                            pod.set_default(&["spec", member], value);
                        }
                    }
                }
                Ok(())
            }
            Operation::Delete | Operation::Connect => Ok(()),
        }
    }
    .boxed()
}

async fn resolve(review: &Review<'_>, pod: &mut Value, what: &str) -> Result<(), Status> {
    let asked = pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default().to_string();
    let class = match asked.as_str() {
        "" => default_class(review),
        name => {
            let found = review.shared.find(GROUP, CLASSES, "", name).await?;
            let found =
                found.ok_or_else(|| review.forbidden(format!("no PriorityClass with name {name} was found")))?;
            Some(found.document())
        }
    };
    let mut value = 0;
    let mut policy = "PreemptLowerPriority".to_string();
    if let Some(class) = class {
        value = class.int_at(&["value"]).unwrap_or(0);
        if let Some(own) = class.str_at(&["preemptionPolicy"]).filter(|p| !p.is_empty()) {
            policy = own.to_string();
        }
        pod.set(&["spec", "priorityClassName"], crate::metadata::name(&class));
    }
    if let Some(given) = pod.int_at(&["spec", "priority"]).filter(|given| *given != value) {
        return Err(review.forbidden(match what {
            "pod" => format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            ),
            _ => format!(
                "priority set in the {what} ({given}) must match the priority computed ({value}) based on the priority \
                 class set in the spec"
            ),
        }));
    }
    pod.set(&["spec", "priority"], value);
    if what != "pod" && !review.shared.config.feature_gates.is_on("PodGroupPreemptionPolicy") {
        return Ok(());
    }
    let given = pod.str_at(&["spec", "preemptionPolicy"]).filter(|given| what != "pod" || !given.is_empty());
    if let Some(given) = given.filter(|given| *given != policy) {
        return Err(review.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in {what} spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    pod.set(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// The class of pods that name none: of those marked so, the one of the lowest value.
fn default_class(review: &Review<'_>) -> Option<Value> {
    let served = review.shared.registry.stored(GROUP, CLASSES)?;
    let all = served.cache.snapshot("", "", 0, false, |_| true).objects;
    // Every new pod comes by here: only a class that can be the default is parsed.
    let marked = all.iter().filter(|o| o.holds(MARK));
    let defaults = marked.map(|o| o.document()).filter(|c| c.bool_at(&["globalDefault"]) == Some(true));
    defaults.min_by_key(|c| c.int_at(&["value"]).unwrap_or(0))
}

/// Only one class may be the default.
pub fn validate(review: &Review<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let check = || {
        let class = new.filter(|_| review.is(GROUP, CLASSES))?;
        if class.bool_at(&["globalDefault"]) != Some(true) {
            return None;
        }
        let other = default_class(review)?;
        let other = crate::metadata::name(&other);
        (other != crate::metadata::name(class)).then(|| {
            review.forbidden(format!("PriorityClass {other} is already marked as default. Only one default can exist"))
        })
    };
    check().map_or(Ok(()), Err)
}
