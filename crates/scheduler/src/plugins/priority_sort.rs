//! Orders the queue: higher priority first, then the longer waiting.
//! Invariant: exactly one QueueSort plugin per profile.

use crate::framework::{Plugin, plugin};
use crate::pod::PodInfo;

pub struct PrioritySort;

impl Plugin for PrioritySort {
    plugin!("PrioritySort": QueueSort);

    fn sort_key(&self, pod: &PodInfo) -> i64 {
        i64::from(pod.priority)
    }
}
