//! Which container instance a request is about. Pure; error texts are upstream's, since kubectl shows them as they are.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pods::ContainerRef;

/// An HTTP status and the text that goes with it.
pub type Problem = (u16, String);

/// The instance whose log is wanted. `instances` are newest first.
pub fn for_logs<'a>(
    pod: &Pod,
    instances: &'a [ContainerRef],
    container: &str,
    previous: bool,
) -> Result<&'a ContainerRef, Problem> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if !has_container(pod, container) {
        return Err((404, format!("container \"{container}\" not found in pod \"{name}\"")));
    }
    let mut own = instances.iter().filter(|instance| instance.name == container);
    if previous {
        let missing = || (400, format!("previous terminated container \"{container}\" in pod \"{name}\" not found"));
        // Before a crashed container comes up again, its newest instance is the previous one.
        let newest = own.next().ok_or_else(missing)?;
        let waiting = status(pod, container).and_then(|status| status.state.as_ref()?.waiting.as_ref()).is_some();
        return if waiting && !newest.running { Ok(newest) } else { own.next().ok_or_else(missing) };
    }
    own.find(|instance| instance.running || instance.log_path.exists())
        .ok_or_else(|| (400, why_no_logs(pod, container)))
}

fn why_no_logs(pod: &Pod, container: &str) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let subject = format!("container \"{container}\" in pod \"{name}\"");
    let Some(state) = status(pod, container).and_then(|status| status.state.as_ref()) else {
        return format!("{subject} is not available");
    };
    if state.terminated.is_some() {
        return format!("{subject} is terminated");
    }
    match state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull") => format!("{subject} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{subject} is waiting to start: trying and failing to pull image"),
        Some(reason) => format!("{subject} is waiting to start: {reason}"),
        None => format!("{subject} is waiting to start - no logs yet"),
    }
}

/// The running instance to exec into or attach to.
pub fn for_streams<'a>(pod: &Pod, instances: &'a [ContainerRef], container: &str) -> Result<&'a ContainerRef, Problem> {
    let missing = || (404, format!("container not found (\"{container}\")"));
    if !has_container(pod, container) {
        return Err(missing());
    }
    instances.iter().find(|instance| instance.name == container && instance.running).ok_or_else(missing)
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ephemeral = spec.ephemeral_containers.iter().flatten().any(|container| container.name == name);
    ephemeral
        || spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|container| container.name == name)
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.chain(status.ephemeral_container_statuses.iter().flatten()).find(|status| status.name == container)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(state: serde_json::Value) -> Pod {
        let status =
            json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"containerStatuses": [status]},
        }))
        .unwrap()
    }

    fn instance(id: &str, running: bool, has_log: bool) -> ContainerRef {
        let log_path = if has_log { "/dev/null" } else { "/no/such/file" };
        ContainerRef { id: id.into(), name: "c".into(), attempt: 0, running, log_path: log_path.into() }
    }

    #[test]
    fn which_log() {
        let running = json!({"running": {}});
        let crashed = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let pulling = json!({"waiting": {"reason": "ImagePullBackOff"}});
        let (a, b) = (instance("a", false, true), instance("b", true, true));
        let none = instance("n", false, false);
        let bad = |text: &str| Err::<&str, Problem>((400, text.to_owned()));
        let table = [
            (&running, vec![b.clone(), a.clone()], "c", false, Ok("b")),
            (&running, vec![b.clone(), a.clone()], "c", true, Ok("a")),
            (&running, vec![b.clone()], "c", true, bad("previous terminated container \"c\" in pod \"p\" not found")),
            (&crashed, vec![a.clone()], "c", false, Ok("a")),
            (&crashed, vec![a.clone()], "c", true, Ok("a")),
            (&crashed, vec![none.clone(), a.clone()], "c", false, Ok("a")),
            (
                &crashed,
                vec![none],
                "c",
                false,
                bad("container \"c\" in pod \"p\" is waiting to start: CrashLoopBackOff"),
            ),
            (
                &pulling,
                vec![],
                "c",
                false,
                bad("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (&running, vec![b], "x", false, Err((404, "container \"x\" not found in pod \"p\"".to_owned()))),
        ];
        for (state, instances, container, previous, expected) in table {
            let found = for_logs(&pod(state.clone()), &instances, container, previous);
            assert_eq!(found.map(|instance| instance.id.as_str()), expected, "{state} {container} {previous}");
        }
    }

    #[test]
    fn which_process() {
        let pod = pod(json!({"running": {}}));
        let instances = [instance("b", true, true), instance("a", false, true)];
        assert_eq!(for_streams(&pod, &instances, "c").unwrap().id, "b");
        assert_eq!(for_streams(&pod, &instances[1..], "c"), Err((404, "container not found (\"c\")".to_owned())));
        assert_eq!(for_streams(&pod, &instances, "x"), Err((404, "container not found (\"x\")".to_owned())));
    }
}
