//! Making sandboxes and containers: everything a pod's containers need is resolved here and handed to the runtime.
//!
//! Reads the pod, its volumes, environment and image; writes log directories, hosts and termination files, events.
//! Invariant: a failure leaves nothing behind that planning again would not find.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use cri::v1::{Mount, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::observed::{Observed, State};
use crate::pods::PodIps;
use crate::spec::{self, Slot};
use crate::status::WaitReason;
use crate::volumes::MountedVolumes;
use crate::worker::{Next, Worker};
use crate::{container_config, dns_config, env, hooks, hosts_file, sandbox_config, security};

impl Worker {
    pub(crate) async fn create_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> Result<(), Next> {
        let agent = self.agent.clone();
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            agent.events.pod(pod, "Normal", "SandboxChanged", message);
        }
        if let Some(lack) = unsupported(pod) {
            return Err(self.sandbox_failed(pod, &lack));
        }
        let (config, dns_missing) = self.sandbox_config(pod, attempt);
        if dns_missing {
            let message = format!(
                "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" \
                 policy. Falling back to \"Default\" policy.",
                spec::described(pod)
            );
            agent.events.pod(pod, "Warning", "MissingClusterDNS", &message);
        }
        if let Err(error) = std::fs::create_dir_all(&config.log_directory) {
            return Err(self.sandbox_failed(pod, &format!("create log directory {}: {error}", config.log_directory)));
        }
        let handler = match self.runtime_handler(pod).await {
            Ok(handler) => handler,
            Err(error) => return Err(self.sandbox_failed(pod, &error)),
        };
        match agent.turns.take(agent.cri.sandbox_run(config, &handler)).await {
            Ok(id) => {
                tracing::debug!(pod = %spec::described(pod), id, "sandbox runs");
                Ok(())
            }
            Err(error) => Err(self.sandbox_failed(pod, &error.to_string())),
        }
    }

    fn sandbox_failed(&mut self, pod: &Pod, error: &str) -> Next {
        let message = format!("Failed to create pod sandbox: {error}");
        self.agent.events.pod(pod, "Warning", "FailedCreatePodSandBox", &message);
        self.retry("make a sandbox", &error)
    }

    /// The runtime's name for the pod's RuntimeClass.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(class) = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()) else {
            return Ok(String::new());
        };
        let classes: kube::Api<k8s_openapi::api::node::v1::RuntimeClass> = kube::Api::all(self.agent.client.clone());
        match classes.get(&class).await {
            Ok(found) => Ok(found.handler),
            Err(error) if client::is_not_found(&error) => {
                Err(format!("failed to get sandbox runtime: RuntimeClass \"{class}\" not found"))
            }
            Err(error) => Err(format!("failed to get sandbox runtime: {}", client::message(&error))),
        }
    }

    /// The sandbox's configuration, and whether cluster DNS is missing.
    pub(crate) fn sandbox_config(&self, pod: &Pod, attempt: u32) -> (PodSandboxConfig, bool) {
        let config = &self.agent.config;
        let host = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        let cluster = dns_config::ClusterDns { servers: &config.cluster_dns, domain: &config.cluster_domain };
        let (dns, missing) = dns_config::plan(pod, &cluster, &dns_config::parse(&host));
        let inputs = sandbox_config::Inputs {
            owner: &config.owner,
            attempt,
            dns,
            cluster_domain: &config.cluster_domain,
            log_dir: &config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod)),
            cgroup_parent: self.agent.cgroups.pod_parent(pod),
        };
        (sandbox_config::plan(pod, inputs), missing)
    }

    /// Makes and starts one container; the error is why it waits.
    pub(crate) async fn start_container(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        mounted: &MountedVolumes,
        name: &str,
        attempt: u32,
    ) -> Result<(), WaitReason> {
        let agent = self.agent.clone();
        let Some(slot) = spec::find(pod, name) else { return Ok(()) };
        let Some(sandbox) = observed.sandbox() else { return Ok(()) };
        let (sandbox_config, _) = self.sandbox_config(pod, sandbox.attempt);
        let image = agent.images.ensure(pod, &slot, &sandbox_config).await.inspect_err(|reason| {
            agent.events.container(pod, &slot, "Warning", "Failed", &format!("Error: {}", reason.reason));
        })?;
        let ips = PodIps {
            pod: if spec::host_network(pod) { agent.registry.node_ips().to_vec() } else { sandbox.ips.clone() },
            host: agent.registry.node_ips().to_vec(),
        };
        let inputs = self.resolve(pod, &slot, observed, mounted, &ips, image, attempt).await;
        let inputs = inputs.map_err(|error| self.failed(pod, &slot, "CreateContainerConfigError", &error))?;
        let config = container_config::plan(pod, &slot, inputs);
        let id = match agent.cri.container_create(&sandbox.id, config, sandbox_config).await {
            Ok(id) => id,
            Err(error) => return Err(self.failed(pod, &slot, "CreateContainerError", &error.message)),
        };
        agent.events.container(pod, &slot, "Normal", "Created", "Container created");
        if let Err(error) = agent.cri.container_start(&id).await {
            return Err(self.failed(pod, &slot, "RunContainerError", &error.message));
        }
        agent.events.container(pod, &slot, "Normal", "Started", "Container started");
        self.post_start(pod, &slot, &id, &ips).await
    }

    fn failed(&self, pod: &Pod, slot: &Slot<'_>, reason: &str, error: &str) -> WaitReason {
        self.agent.events.container(pod, slot, "Warning", "Failed", &format!("Error: {error}"));
        WaitReason { reason: reason.to_string(), message: error.to_string() }
    }

    async fn post_start(&mut self, pod: &Pod, slot: &Slot<'_>, id: &str, ips: &PodIps) -> Result<(), WaitReason> {
        let hook = slot.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let agent = self.agent.clone();
        let ip = ips.pod.first().map(String::as_str).unwrap_or_default();
        let ran = hooks::run(&agent.cri, &slot.container, id, hook, ip, hooks::POST_START_LIMIT).await;
        let Err(error) = ran else { return Ok(()) };
        tracing::warn!(pod = %spec::described(pod), container = slot.name(), %error, "postStart hook failed");
        agent.events.container(pod, slot, "Warning", "FailedPostStartHook", "PostStartHook failed");
        let message = "FailedPostStartHook";
        agent.events.container(pod, slot, "Normal", "Killing", message);
        let grace = std::time::Duration::from_secs(spec::grace_seconds(pod).max(2) as u64);
        if let Err(error) = agent.cri.container_stop(id, grace).await {
            tracing::warn!(pod = %spec::described(pod), container = slot.name(), %error, "not stopped after its hook failed");
        }
        Err(WaitReason { reason: "PostStartHookError".to_string(), message: error })
    }

    #[allow(clippy::too_many_arguments)]
    async fn resolve<'a>(
        &'a self,
        pod: &Arc<Pod>,
        slot: &Slot<'_>,
        observed: &Observed,
        mounted: &MountedVolumes,
        ips: &PodIps,
        image: crate::images::Ready,
        attempt: u32,
    ) -> Result<container_config::Inputs<'a>, String> {
        let agent = &self.agent;
        let target = match slot.target {
            Some(name) => Some(target_id(observed, name)?),
            None => None,
        };
        let seccomp_dir = agent.config.data_dir.join("seccomp");
        let security = security::for_container(pod, slot, &image.user, target.as_deref(), &seccomp_dir)?;
        let env = env::container_env(pod, &slot.container, ips, &agent.allocatable, &agent.sources)
            .await
            .map_err(|error| error.to_string())?;
        let mut mounts = mounted.mounts_for(&slot.container, &env).await.map_err(|error| error.to_string())?;
        self.own_mounts(pod, &slot.container, ips, &mut mounts).map_err(|error| error.to_string())?;
        let log_dir = agent.config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        std::fs::create_dir_all(log_dir.join(slot.name())).map_err(|error| error.to_string())?;
        Ok(container_config::Inputs {
            owner: &agent.config.owner,
            attempt,
            env,
            mounts,
            image_id: image.id,
            security,
            limits: agent.limits,
        })
    }

    /// The hosts file and the termination message file, where no volume is mounted over them.
    fn own_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        ips: &PodIps,
        mounts: &mut Vec<Mount>,
    ) -> std::io::Result<()> {
        let config = &self.agent.config;
        let dir = config.pod_dir(spec::uid(pod));
        let bind = |host: PathBuf, at: &str| Mount {
            container_path: at.to_string(),
            host_path: host.display().to_string(),
            ..Mount::default()
        };
        if !mounts.iter().any(|mount| mount.container_path.trim_end_matches('/') == "/etc/hosts") {
            let path = hosts_file::write(pod, &ips.pod, &config.cluster_domain, &dir)?;
            mounts.push(bind(path, "/etc/hosts"));
        }
        let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !message_path.is_empty() {
            let dir = dir.join("containers").join(&container.name);
            std::fs::create_dir_all(&dir)?;
            let path = dir.join(format!("{:08x}", rand::random::<u32>()));
            std::fs::write(&path, "")?;
            // whoever the container runs as may write it
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
            mounts.push(bind(path, message_path));
        }
        Ok(())
    }
}

/// What the pod asks for and this kubelet cannot do yet: better no pod than one without it.
fn unsupported(pod: &Pod) -> Option<String> {
    let spec = spec::spec(pod);
    if spec.host_users == Some(false) {
        return Some("user namespaces (hostUsers: false) are not supported yet; remove hostUsers".to_string());
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("dynamic resource allocation (resourceClaims) is not supported yet".to_string());
    }
    let block = |slot: &Slot<'_>| slot.container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty());
    let found = spec::containers(pod).into_iter().find(block)?;
    Some(format!("raw block volumes (volumeDevices of container {}) are not supported yet", found.name()))
}

/// The running instance an ephemeral container joins.
fn target_id(observed: &Observed, name: &str) -> Result<String, String> {
    let found = observed.newest(name).filter(|instance| instance.state == State::Running);
    found.map(|instance| instance.id.clone()).ok_or_else(|| format!("unable to find target container {name}"))
}
