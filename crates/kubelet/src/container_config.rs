//! The configuration of one container for CRI. Pure.
//!
//! Reads the pod, the container, its resolved environment, mounts and image; invariant: names of log files and labels are
//! those [`crate::observed`] reads back.

use cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerSecurityContext,
    Mount, Signal,
};
use k8s_openapi::api::core::v1::Pod;

use crate::resources::{self, NodeLimits};
use crate::spec::Slot;
use crate::{Config, env, labels};

/// What is resolved before a container can be made.
pub struct Inputs<'a> {
    pub owner: &'a str,
    pub attempt: u32,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// The image's id in the runtime.
    pub image_id: String,
    pub security: LinuxContainerSecurityContext,
    pub limits: NodeLimits,
}

pub fn plan(pod: &Pod, slot: &Slot<'_>, inputs: Inputs<'_>) -> ContainerConfig {
    let container = &*slot.container;
    let expand = |words: &Option<Vec<String>>| env::expand(words.as_deref().unwrap_or_default(), &inputs.env);
    let (command, args) = (expand(&container.command), expand(&container.args));
    let requested = container.image.clone().unwrap_or_default();
    let stop_signal = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(ImageSpec { image: inputs.image_id, user_specified_image: requested, ..ImageSpec::default() }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs.env.into_iter().map(|(key, value)| KeyValue { key, value: value.into_bytes() }).collect(),
        mounts: inputs.mounts,
        labels: labels::for_container(pod, &container.name, inputs.owner),
        annotations: labels::container_annotations(pod, container, inputs.attempt),
        log_path: Config::container_log_name(&container.name, inputs.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::for_container(pod, container, &inputs.limits)),
            security_context: Some(inputs.security),
        }),
        stop_signal: stop_signal.map_or(0, signal),
        ..ContainerConfig::default()
    }
}

/// `SIGTERM`, `SIGRTMIN+3`, as CRI counts them; unknown names mean the image's own.
fn signal(name: &str) -> i32 {
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    Signal::from_str_name(&format!("SIGNAL_{name}")).unwrap_or(Signal::RuntimeDefault) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_cris_numbers() {
        assert_eq!(signal("SIGUSR1"), 29);
        assert_eq!(signal("SIGRTMIN+3"), 38);
        assert_eq!(signal("nonsense"), 0);
    }
}
