//! Keeps a pod out of the queue while `spec.schedulingGates` is not empty.
//! Invariant: a gated pod is never tried.

use crate::event::Event;
use crate::framework::{Plugin, Reason, plugin};
use crate::pod::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    plugin!("SchedulingGates": PreEnqueue);

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Reason> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for scheduling gates: [{}]", pod.gates.join(" ")).into())
    }

    fn hint(&self, _: &Event<'_>, _: &PodInfo) -> bool {
        false // only a change of the pod itself opens a gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_info;

    #[test]
    fn gates_hold_a_pod_back() {
        let gated = pod_info(r#"{"spec":{"containers":[],"schedulingGates":[{"name":"a"},{"name":"b"}]}}"#);
        assert_eq!(SchedulingGates.pre_enqueue(&gated), Err("waiting for scheduling gates: [a b]".into()));
        assert_eq!(SchedulingGates.pre_enqueue(&pod_info(r#"{"spec":{"containers":[]}}"#)), Ok(()));
    }
}
