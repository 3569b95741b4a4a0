//! Getting a container's image into the runtime: pull policy, credentials, back-off, events.
//!
//! Reads the runtime's images and the pod's pull secrets; writes events Pulling, Pulled, Failed, BackOff. Invariant: an
//! image that failed is not pulled again before its back-off, and only so many pulls run at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cri::v1::{Image, ImageSpec, PodSandboxConfig};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use tokio::sync::Semaphore;

use crate::backoff::Backoff;
use crate::events::Events;
use crate::security::ImageUser;
use crate::spec::{self, Slot};
use crate::status::WaitReason;
use crate::{credentials, env};

/// Pull waits start at this and double.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// An image the runtime has.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    /// What the runtime calls it.
    pub id: String,
    /// Who it runs as.
    pub user: ImageUser,
}

/// Pulls images for all pods of the node.
pub struct Images {
    cri: cri::Client,
    sources: env::Sources,
    events: Events,
    pulls: Semaphore,
    backoff: Mutex<Backoff>,
}

impl Images {
    /// At most `parallel` pulls at once.
    pub fn new(cri: cri::Client, sources: env::Sources, events: Events, parallel: usize) -> Images {
        let backoff = Mutex::new(Backoff::new(FIRST_WAIT, LONGEST_WAIT));
        Images { cri, sources, events, pulls: Semaphore::new(parallel.max(1)), backoff }
    }

    /// Makes sure the runtime has the container's image, or says why it has not.
    pub async fn ensure(&self, pod: &Pod, slot: &Slot<'_>, sandbox: &PodSandboxConfig) -> Result<Ready, WaitReason> {
        let name = slot.container.image.clone().unwrap_or_default();
        if let Some(problem) = malformed(&name) {
            let message = format!(
                "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {problem}"
            );
            self.events.container(pod, slot, "Warning", "InspectFailed", &message);
            return Err(wait("InvalidImageName", message));
        }
        let spec = ImageSpec { image: name.clone(), user_specified_image: name.clone(), ..ImageSpec::default() };
        let present = self.cri.image_status(spec.clone()).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            self.events.container(pod, slot, "Warning", "InspectFailed", &message);
            wait("ImageInspectError", message)
        })?;
        match (policy(slot, &name), present) {
            ("IfNotPresent" | "Never", Some(image)) => {
                let message =
                    format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
                self.events.container(pod, slot, "Normal", "Pulled", &message);
                Ok(ready(&image))
            }
            ("Never", None) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                self.events.container(pod, slot, "Warning", "ErrImageNeverPull", &message);
                Err(wait("ErrImageNeverPull", message))
            }
            _ => self.pull(pod, slot, spec, sandbox).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        slot: &Slot<'_>,
        image: ImageSpec,
        sandbox: &PodSandboxConfig,
    ) -> Result<Ready, WaitReason> {
        let name = image.image.clone();
        let key = format!("{}_{name}", spec::uid(pod));
        if let Some(failure) = self.failed_recently(&key) {
            let message = format!("Back-off pulling image \"{name}\"");
            self.events.container(pod, slot, "Normal", "BackOff", &message);
            return Err(wait("ImagePullBackOff", format!("{message}: {failure}")));
        }
        self.events.container(pod, slot, "Normal", "Pulling", &format!("Pulling image \"{name}\""));
        let queued = Instant::now();
        let permit = self.pulls.acquire().await;
        let begun = Instant::now();
        let result = self.pull_with_any_credential(pod, image.clone(), sandbox).await;
        drop(permit);
        if let Err(error) = result {
            let message = format!("Failed to pull image \"{name}\": {error}");
            self.events.container(pod, slot, "Warning", "Failed", &message);
            self.remember(&key, &format!("ErrImagePull: {error}"));
            return Err(wait("ErrImagePull", error.to_string()));
        }
        self.forget(&key);
        let pulled = self.cri.image_status(image).await.ok().flatten();
        let Some(pulled) = pulled else {
            return Err(wait("ImageInspectError", format!("Failed to inspect image \"{name}\" after it was pulled")));
        };
        let message = format!(
            "Successfully pulled image \"{name}\" in {} ({} including waiting). Image size: {} bytes.",
            go_millis(begun.elapsed()),
            go_millis(queued.elapsed()),
            pulled.size
        );
        self.events.container(pod, slot, "Normal", "Pulled", &message);
        Ok(ready(&pulled))
    }

    /// Tries the pod's credentials for the image, best first; without any, anonymously.
    async fn pull_with_any_credential(
        &self,
        pod: &Pod,
        image: ImageSpec,
        sandbox: &PodSandboxConfig,
    ) -> cri::Result<()> {
        let secrets = self.pull_secrets(pod).await;
        let secrets: Vec<&Secret> = secrets.iter().map(|secret| &**secret).collect();
        let mut auths: Vec<Option<_>> = credentials::matching(&secrets, &image.image).into_iter().map(Some).collect();
        if auths.is_empty() {
            auths.push(None);
        }
        let mut last = Ok(());
        for auth in auths {
            last = self.cri.image_pull(image.clone(), auth, Some(sandbox.clone())).await.map(drop);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn pull_secrets(&self, pod: &Pod) -> Vec<std::sync::Arc<Secret>> {
        let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let wanted = env::References {
            secrets: names.map(|reference| reference.name.clone()).collect(),
            ..env::References::default()
        };
        if wanted.secrets.is_empty() {
            return Vec::new();
        }
        match self.sources.objects(spec::namespace(pod), &wanted).await {
            Ok(objects) => {
                for missing in wanted.secrets.iter().filter(|name| !objects.secrets.contains_key(*name)) {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
                    );
                    self.events.pod(pod, "Warning", "FailedToRetrieveImagePullSecret", &message);
                }
                objects.secrets.into_values().collect()
            }
            Err(error) => {
                tracing::warn!(pod = %spec::described(pod), %error, "pull secrets not read, pulling without");
                Vec::new()
            }
        }
    }

    /// The last failure of a pull that must not be tried again yet.
    fn failed_recently(&self, key: &str) -> Option<String> {
        let backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        backoff.waiting_since_update(key, Timestamp::now())
    }

    fn remember(&self, key: &str, failure: &str) {
        let mut backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        backoff.next(key, Timestamp::now());
        backoff.note(key, failure);
    }

    fn forget(&self, key: &str) {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).reset(key);
    }

    /// How long until the pull may be tried again.
    pub fn wait_left(&self, pod: &Pod, image: &str) -> Option<jiff::SignedDuration> {
        let backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        backoff.left_since_update(&format!("{}_{image}", spec::uid(pod)), Timestamp::now())
    }
}

fn wait(reason: &str, message: String) -> WaitReason {
    WaitReason { reason: reason.to_string(), message }
}

fn ready(image: &Image) -> Ready {
    Ready {
        id: image.id.clone(),
        user: ImageUser { uid: image.uid.as_ref().map(|uid| uid.value), name: image.username.clone() },
    }
}

/// The pull policy as stored; for objects no API server defaulted, by tag.
fn policy<'a>(slot: &'a Slot<'_>, image: &str) -> &'a str {
    match slot.container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ => {
            let last = image.rsplit('/').next().unwrap_or_default();
            let untagged = !last.contains(':') && !last.contains('@');
            if untagged || last.ends_with(":latest") { "Always" } else { "IfNotPresent" }
        }
    }
}

/// What is wrong with an image name, in the words users know.
fn malformed(image: &str) -> Option<String> {
    let name = image.split('@').next().unwrap_or_default();
    let path = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    };
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-/:[]".contains(letter);
    if path.is_empty() || !path.chars().all(allowed) || path.contains("//") || path.ends_with('/') {
        return Some("invalid reference format".to_string());
    }
    let (host, rest) = path.split_once('/').unwrap_or(("", path));
    let is_host = host.contains('.') || host.contains(':') || host == "localhost";
    let repository = if is_host { rest } else { path };
    if repository.chars().any(|letter| letter.is_ascii_uppercase()) {
        let shown = if path.contains('/') { repository.to_string() } else { format!("library/{repository}") };
        return Some(format!("invalid reference format: repository name ({shown}) must be lowercase"));
    }
    None
}

/// A duration as Go prints it, cut to milliseconds.
fn go_millis(duration: Duration) -> String {
    meta::time::go_duration(duration.as_millis() as i64 * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (millis, want) in [(5, "5ms"), (1234, "1.234s"), (1500, "1.5s"), (2000, "2s"), (61_000, "1m1s")] {
            assert_eq!(go_millis(Duration::from_millis(millis)), want);
        }
    }

    #[test]
    fn image_names() {
        for (name, want) in [
            ("busybox", None),
            ("127.0.0.1:5000/a/b:v1", None),
            ("r.io/a@sha256:00", None),
            ("", Some("invalid reference format")),
            ("a b", Some("invalid reference format")),
            ("Busybox", Some("invalid reference format: repository name (library/Busybox) must be lowercase")),
        ] {
            assert_eq!(malformed(name).as_deref(), want, "{name}");
        }
    }
}
