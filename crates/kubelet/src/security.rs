//! Security contexts for CRI: users, groups, capabilities, namespaces, seccomp.
//!
//! Reads a pod's and a container's context and the image's user; pure. Invariant: `runAsNonRoot` never lets root through.

use cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::spec::{self, Slot};

/// Paths of /proc and /sys a container must not see, upstream's list.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths of /proc a container must not write, upstream's list.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// As a number, where the image says so.
    pub uid: Option<i64>,
    /// By name; empty if the image names none.
    pub name: String,
}

/// The pod's namespaces: which are its own, which the node's.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec::spec(pod);
    let node_or = |host: Option<bool>, own: NamespaceMode| {
        if host == Some(true) { NamespaceMode::Node as i32 } else { own as i32 }
    };
    let shared = spec.share_process_namespace == Some(true);
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, if shared { NamespaceMode::Pod } else { NamespaceMode::Container }),
        ..NamespaceOption::default()
    }
}

/// The sandbox's context. `seccomp_dir` holds localhost profiles.
pub fn for_sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let spec = spec::spec(pod);
    let context = spec.security_context.clone().unwrap_or_default();
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_user.and(context.run_as_group).map(|value| Int64Value { value }),
        supplemental_groups: groups(&context),
        supplemental_groups_policy: policy(&context),
        // a sandbox is privileged if any of its containers is
        privileged: spec::containers(pod).iter().any(|slot| privileged(&slot.container)),
        // the pause process needs nothing the default profile forbids
        seccomp: Some(profile(ProfileType::RuntimeDefault)),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// The container's context; an error is why it must not run. `target_id` is the CRI id an ephemeral container joins.
pub fn for_container(
    pod: &Pod,
    slot: &Slot<'_>,
    user: &ImageUser,
    target_id: Option<&str>,
    seccomp_dir: &std::path::Path,
) -> Result<LinuxContainerSecurityContext, String> {
    let container = &*slot.container;
    let pod_context = spec::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(pod_context.run_as_user);
    verify_non_root(pod, container, own.run_as_non_root.or(pod_context.run_as_non_root), run_as_user, user)?;
    let mut namespace_options = namespaces(pod);
    if let Some(target) = target_id {
        namespace_options.pid = NamespaceMode::Target as i32;
        namespace_options.target_id = target.to_string();
    }
    let masked = own.proc_mount.as_deref() != Some("Unmasked");
    let paths = |list: &[&str]| list.iter().filter(|_| masked).map(|path| path.to_string()).collect::<Vec<_>>();
    let seccomp_profile = own.seccomp_profile.as_ref().or(pod_context.seccomp_profile.as_ref());
    let app_armor = own.app_armor_profile.as_ref().or(pod_context.app_armor_profile.as_ref());
    let uid = run_as_user.or(user.uid);
    let privileged = own.privileged == Some(true);
    Ok(LinuxContainerSecurityContext {
        capabilities: Some(capabilities(&own)),
        privileged,
        namespace_options: Some(namespace_options),
        selinux_options: own.se_linux_options.as_ref().or(pod_context.se_linux_options.as_ref()).map(selinux),
        run_as_user: uid.map(|value| Int64Value { value }),
        run_as_group: own.run_as_group.or(pod_context.run_as_group).map(|value| Int64Value { value }),
        run_as_username: if uid.is_none() { user.name.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&pod_context),
        supplemental_groups_policy: policy(&pod_context),
        no_new_privs: no_new_privs(&own),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(seccomp_profile, privileged, seccomp_dir)),
        apparmor: app_armor.map(apparmor),
        ..LinuxContainerSecurityContext::default()
    })
}

fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.privileged) == Some(true)
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    non_root: Option<bool>,
    run_as_user: Option<i64>,
    user: &ImageUser,
) -> Result<(), String> {
    if non_root != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", spec::described(pod), container.name);
    match (run_as_user, user.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_)) => Ok(()),
        (None, None) if user.name.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            user.name
        )),
    }
}

fn no_new_privs(own: &SecurityContext) -> bool {
    let added = own.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_ref());
    let admin = added.is_some_and(|list| list.iter().any(|name| name == "SYS_ADMIN" || name == "CAP_SYS_ADMIN"));
    own.allow_privilege_escalation == Some(false) && own.privileged != Some(true) && !admin
}

fn capabilities(own: &SecurityContext) -> Capability {
    let list = own.capabilities.clone().unwrap_or_default();
    Capability {
        add_capabilities: list.add.unwrap_or_default(),
        drop_capabilities: list.drop.unwrap_or_default(),
        ..Capability::default()
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    context.supplemental_groups.iter().flatten().copied().chain(context.fs_group).collect()
}

fn policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict as i32,
        _ => SupplementalGroupsPolicy::Merge as i32,
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref: String::new() }
}

fn seccomp(wanted: Option<&SeccompProfile>, privileged: bool, dir: &std::path::Path) -> SecurityProfile {
    match wanted {
        _ if privileged => profile(ProfileType::Unconfined),
        Some(own) if own.type_ == "RuntimeDefault" => profile(ProfileType::RuntimeDefault),
        Some(own) if own.type_ == "Localhost" => SecurityProfile {
            profile_type: ProfileType::Localhost as i32,
            localhost_ref: dir.join(own.localhost_profile.as_deref().unwrap_or_default()).display().to_string(),
        },
        _ => profile(ProfileType::Unconfined),
    }
}

fn apparmor(wanted: &AppArmorProfile) -> SecurityProfile {
    match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault),
        "Localhost" => SecurityProfile {
            profile_type: ProfileType::Localhost as i32,
            localhost_ref: wanted.localhost_profile.clone().unwrap_or_default(),
        },
        _ => profile(ProfileType::Unconfined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context(spec: serde_json::Value, user: ImageUser) -> Result<LinuxContainerSecurityContext, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
                .expect("pod");
        let slot = spec::find(&pod, "c").expect("slot");
        for_container(&pod, &slot, &user, None, std::path::Path::new("/profiles"))
    }

    #[test]
    fn non_root_is_verified() {
        golden::check!("security_tests.txt", |case| {
            let case: serde_json::Value = serde_json::from_str(case).expect("JSON");
            let name = case["imageUser"].as_str().unwrap_or_default().to_string();
            let own = json!({"runAsNonRoot": true, "runAsUser": case["runAsUser"]});
            let image = ImageUser { uid: case["imageUser"].as_i64(), name };
            let got = context(json!({"containers": [{"name": "c", "securityContext": own}]}), image);
            got.err().unwrap_or_default()
        });
    }

    #[test]
    fn container_overrides_pod() {
        let spec = json!({"hostPID": true, "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 9, "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}}]});
        let got = context(spec, ImageUser::default()).expect("context");
        assert_eq!(got.run_as_user, Some(Int64Value { value: 9 }));
        assert_eq!(got.run_as_group, Some(Int64Value { value: 2 }));
        assert_eq!(got.supplemental_groups, [4, 3]);
        assert!(got.no_new_privs);
        assert_eq!(got.seccomp.expect("seccomp").localhost_ref, "/profiles/a.json");
        assert_eq!(got.namespace_options.expect("namespaces").pid, NamespaceMode::Node as i32);
        assert_eq!(got.capabilities.expect("capabilities").drop_capabilities, ["ALL"]);
    }
}
