//! What the runtime has of a pod: its sandboxes and every instance of its containers, newest first.
//!
//! Reads CRI lists and statuses, the labels and annotations the kubelet put there, and termination messages from files.
//! Invariant: everything the kubelet must know after its own restart is found here.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use cri::v1::{ContainerState, PodSandboxState};
use jiff::Timestamp;

use crate::labels;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// CRI's id.
    pub id: String,
    /// 0 for the pod's first sandbox, then counting up.
    pub attempt: u32,
    pub ready: bool,
    /// Its addresses, the primary first; none with the node's network.
    pub ips: Vec<String>,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    #[default]
    Created,
    Running,
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// One instance of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// CRI's id.
    pub id: String,
    pub name: String,
    /// Restarts before this instance.
    pub attempt: u32,
    pub sandbox_id: String,
    pub state: State,
    /// What its spec hashed to when it was made.
    pub hash: String,
    /// When it was made.
    pub created_ns: i64,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub exit_code: i32,
    /// The runtime's word for its end (`Completed`, `Error`, `OOMKilled`).
    pub reason: String,
    /// The termination message, or the runtime's own.
    pub message: String,
    pub image: String,
    /// The image's digest reference.
    pub image_id: String,
    pub log_path: PathBuf,
    /// User and groups of its first process, where the runtime tells.
    pub user: Option<cri::v1::LinuxContainerUser>,
}

/// A pod as the runtime has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub instances: Vec<Instance>,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest instance of a container.
    pub fn newest(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// The instance before the newest.
    pub fn previous(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().filter(|instance| instance.name == name).nth(1)
    }

    /// The newest instance of a container in a sandbox.
    pub fn newest_in(&self, name: &str, sandbox_id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name && instance.sandbox_id == sandbox_id)
    }

    /// What [`fingerprints`] would say of it.
    pub fn fingerprint(&self) -> Vec<(String, i32)> {
        let sandbox_state = |ready| {
            if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
        };
        let container_state = |state| match state {
            State::Created => ContainerState::ContainerCreated,
            State::Running => ContainerState::ContainerRunning,
            State::Exited => ContainerState::ContainerExited,
            State::Unknown => ContainerState::ContainerUnknown,
        };
        let sandboxes = self.sandboxes.iter().map(|one| (one.id.clone(), sandbox_state(one.ready) as i32));
        let instances = self.instances.iter().map(|one| (one.id.clone(), container_state(one.state) as i32));
        let mut states: Vec<_> = sandboxes.chain(instances).collect();
        states.sort();
        states
    }

    /// Something still runs, or may.
    pub fn anything_alive(&self) -> bool {
        self.instances.iter().any(|instance| matches!(instance.state, State::Running | State::Unknown))
            || self.sandboxes.iter().any(|sandbox| sandbox.ready)
    }
}

/// Looks at a pod in the runtime. `ended` keeps what was read of ended instances, whose status never changes again.
pub async fn observe(
    cri: &cri::Client,
    owner: &str,
    uid: &str,
    ended: &mut HashMap<String, Instance>,
) -> cri::Result<Observed> {
    let selector = labels::pod_selector(owner, uid);
    let (sandboxes, containers) = tokio::try_join!(cri.sandbox_list(selector.clone()), cri.container_list(selector))?;
    let mut observed = Observed::default();
    for listed in sandboxes {
        let status = match cri.sandbox_status(&listed.id, false).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        observed.sandboxes.push(sandbox_of(&status));
    }
    ended.retain(|id, _| containers.iter().any(|listed| listed.id == *id));
    for listed in containers {
        if let Some(known) = ended.get(&listed.id) {
            observed.instances.push(known.clone());
            continue;
        }
        let status = match cri.container_status(&listed.id, false).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let instance = instance_of(&listed.pod_sandbox_id, &status);
        if instance.state == State::Exited {
            ended.insert(instance.id.clone(), instance.clone());
        }
        observed.instances.push(instance);
    }
    observed.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_ns)));
    observed.instances.sort_by_key(|instance| std::cmp::Reverse((instance.attempt, instance.created_ns)));
    Ok(observed)
}

fn sandbox_of(status: &cri::v1::PodSandboxStatus) -> Sandbox {
    let network = status.network.clone().unwrap_or_default();
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|more| more.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    Sandbox {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: status.state() == PodSandboxState::SandboxReady,
        ips,
        created_ns: status.created_at,
    }
}

fn instance_of(sandbox_id: &str, status: &cri::v1::ContainerStatus) -> Instance {
    let state = match status.state() {
        ContainerState::ContainerCreated => State::Created,
        ContainerState::ContainerRunning => State::Running,
        ContainerState::ContainerExited => State::Exited,
        ContainerState::ContainerUnknown => State::Unknown,
    };
    let metadata = status.metadata.clone().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
    let attempt = annotation(labels::RESTART_COUNT).and_then(|text| text.parse().ok()).unwrap_or(metadata.attempt);
    let mut message = status.message.clone();
    if state == State::Exited
        && let Some(text) = termination_message(status)
    {
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&text);
    }
    Instance {
        id: status.id.clone(),
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt,
        sandbox_id: sandbox_id.to_string(),
        state,
        hash: annotation(labels::HASH).unwrap_or_default().to_string(),
        created_ns: status.created_at,
        started: time(status.started_at),
        finished: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image: image_name(status),
        image_id: status.image_ref.clone(),
        log_path: PathBuf::from(&status.log_path),
        user: status.user.as_ref().and_then(|user| user.linux.clone()),
    }
}

/// The image's name as it is shown in a status.
fn image_name(status: &cri::v1::ContainerStatus) -> String {
    let spec = status.image.clone().unwrap_or_default();
    if spec.user_specified_image.is_empty() { spec.image } else { spec.user_specified_image }
}

/// CRI's nanoseconds, where zero means never.
pub fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()).flatten()
}

/// At most this much of a termination message is kept.
const MESSAGE_BYTES: usize = 4096;
/// Of a log that stands in for a termination message, at most this much is kept.
const LOG_BYTES: usize = 2048;
/// And at most so many lines.
const LOG_LINES: usize = 80;

/// What the container left in its termination message file, or at the end of its log when it asked for that.
fn termination_message(status: &cri::v1::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(labels::TERMINATION_PATH)?;
    let mount = status.mounts.iter().find(|mount| mount.container_path == *path);
    let text = mount.and_then(|mount| head(&mount.host_path, MESSAGE_BYTES)).unwrap_or_default();
    if !text.is_empty() {
        return Some(text);
    }
    let policy = status.annotations.get(labels::TERMINATION_POLICY).map(String::as_str);
    if policy != Some("FallbackToLogsOnError") || status.exit_code == 0 {
        return None;
    }
    tail_of_log(&status.log_path)
}

fn head(path: &str, limit: usize) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn tail_of_log(path: &str) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    // CRI's prefix of each line is about 40 bytes: read enough that the text alone fills the limit
    let window = (LOG_BYTES + LOG_LINES * 64) as u64;
    file.seek(SeekFrom::Start(size.saturating_sub(window))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if size > window {
        lines.remove(0);
    }
    let plain: Vec<String> = lines.iter().rev().take(LOG_LINES).rev().map(|line| without_prefix(line)).collect();
    let joined = plain.concat();
    let mut start = joined.len().saturating_sub(LOG_BYTES);
    while !joined.is_char_boundary(start) {
        start += 1;
    }
    Some(joined[start..].to_string())
}

/// A line of a CRI log (`TIME STREAM TAG TEXT`) without its prefix; a full line ends with a newline.
fn without_prefix(line: &str) -> String {
    let mut parts = line.splitn(4, ' ');
    let (tag, text) = (parts.nth(2).unwrap_or("F"), parts.next().unwrap_or_default());
    if tag.starts_with('P') { text.to_string() } else { format!("{text}\n") }
}

/// Every pod uid of this owner in the runtime, with a fingerprint of its state: changes of it are what wakes a worker.
pub async fn fingerprints(cri: &cri::Client, owner: &str) -> cri::Result<BTreeMap<String, Vec<(String, i32)>>> {
    let selector = labels::owner_selector(owner);
    let (sandboxes, containers) = tokio::try_join!(cri.sandbox_list(selector.clone()), cri.container_list(selector))?;
    let mut found: BTreeMap<String, Vec<(String, i32)>> = BTreeMap::new();
    let all = sandboxes
        .into_iter()
        .map(|sandbox| (sandbox.labels, sandbox.id, sandbox.state))
        .chain(containers.into_iter().map(|container| (container.labels, container.id, container.state)));
    for (mut labels, id, state) in all {
        if let Some(uid) = labels.remove(labels::POD_UID) {
            found.entry(uid).or_default().push((id, state));
        }
    }
    found.values_mut().for_each(|states| states.sort());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_lose_their_prefix() {
        assert_eq!(without_prefix("2024-01-01T00:00:00Z stdout F hello world"), "hello world\n");
        assert_eq!(without_prefix("2024-01-01T00:00:00Z stderr P half"), "half");
        assert_eq!(without_prefix("2024-01-01T00:00:00Z stdout F "), "\n");
    }
}
