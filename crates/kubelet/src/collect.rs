//! Collecting garbage: dead containers beyond the last of each name, dead sandboxes, images nobody uses on a full disk.
//!
//! Reads the runtime and the pods' cells; removes through CRI. Invariant: what runs, the last dead instance of a container
//! (its logs and exit code are wanted), and pinned images stay.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::agent::Agent;
use crate::node_facts;
use crate::observed::{Observed, State};

/// The instances to remove: of each container all dead ones but the newest.
pub fn surplus(observed: &Observed) -> Vec<(String, std::path::PathBuf)> {
    let mut kept = HashSet::new();
    let dead = observed.instances.iter().filter(|instance| instance.state == State::Exited);
    dead.filter(|instance| !kept.insert(&instance.name))
        .map(|instance| (instance.id.clone(), instance.log_path.clone()))
        .collect()
}

/// Removes dead containers and dead sandboxes of pods that live on.
pub async fn containers(agent: &Agent) {
    for cell in agent.registry.cells() {
        let observed = cell.observed();
        for (id, log) in surplus(&observed) {
            match agent.cri.container_remove(&id).await {
                Ok(()) => remove_logs(&log),
                Err(error) => tracing::debug!(id, %error, "dead container not removed"),
            }
        }
        let used: HashSet<&str> = observed.instances.iter().map(|instance| instance.sandbox_id.as_str()).collect();
        let old = observed.sandboxes.iter().skip(1).filter(|old| !old.ready && !used.contains(old.id.as_str()));
        for sandbox in old {
            if let Err(error) = agent.cri.sandbox_remove(&sandbox.id).await {
                tracing::debug!(id = sandbox.id, %error, "dead sandbox not removed");
            }
        }
    }
}

/// Removes a container's log file and what was rotated from it.
fn remove_logs(log: &Path) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let own = entry
            .file_name()
            .to_str()
            .is_some_and(|other| other == name || other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
        if own && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "old log not removed");
        }
    }
}

/// Which images to remove, least recently used first, until `bytes` are free. Pure.
pub fn plan_images(
    images: &[cri::v1::Image],
    used: &HashSet<String>,
    last_used: &HashMap<String, Instant>,
    min_age: std::time::Duration,
    now: Instant,
    bytes: i64,
) -> Vec<String> {
    let in_use = |image: &cri::v1::Image| {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain(std::iter::once(&image.id));
        names.into_iter().any(|name| used.contains(name))
    };
    let mut free: Vec<_> = images
        .iter()
        .filter(|image| !image.pinned && !in_use(image))
        .filter_map(|image| Some((last_used.get(&image.id)?, image)))
        .filter(|(at, _)| now.duration_since(**at) >= min_age)
        .collect();
    free.sort_by_key(|(at, _)| **at);
    let mut left = bytes;
    let mut chosen = Vec::new();
    for (_, image) in free {
        if left <= 0 {
            break;
        }
        left -= image.size as i64;
        chosen.push(image.id.clone());
    }
    chosen
}

/// Removes unused images when their disk is too full. Remembers between calls when images were last used.
#[derive(Default)]
pub struct ImageCollector {
    last_used: HashMap<String, Instant>,
}

impl ImageCollector {
    /// Looks at the disk and removes what is needed.
    pub async fn run(&mut self, agent: &Arc<Agent>) -> cri::Result<()> {
        let images = agent.cri.image_list().await?;
        let used = used_images(agent).await?;
        let now = Instant::now();
        self.last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in &images {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain(std::iter::once(&image.id));
            let in_use = names.into_iter().any(|name| used.contains(name));
            let at = self.last_used.entry(image.id.clone()).or_insert(now);
            if in_use {
                *at = now;
            }
        }
        let info = agent.cri.image_fs_info().await?;
        let mount = info.image_filesystems.first().and_then(|fs| fs.fs_id.as_ref()).map(|id| id.mountpoint.clone());
        let Some(disk) = mount.and_then(|mount| node_facts::disk(Path::new(&mount))) else { return Ok(()) };
        if disk.total_bytes == 0 {
            return Ok(());
        }
        let used_percent = 100 - disk.available_bytes * 100 / disk.total_bytes;
        if used_percent < i64::from(agent.config.image_gc_high_percent) {
            return Ok(());
        }
        let wanted =
            disk.total_bytes / 100 * (100 - i64::from(agent.config.image_gc_low_percent)) - disk.available_bytes;
        let chosen = plan_images(&images, &used, &self.last_used, agent.config.image_gc_min_age, now, wanted);
        if chosen.is_empty() {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found 0 bytes eligible to free."
            );
            agent.events.node("Warning", "FreeDiskSpaceFailed", &message);
        }
        for id in chosen {
            tracing::info!(id, used_percent, "removing an unused image, the disk is too full");
            agent.cri.image_remove(&id).await?;
        }
        Ok(())
    }
}

/// Names and ids of images that containers use, all owners', and the sandbox image.
async fn used_images(agent: &Agent) -> cri::Result<HashSet<String>> {
    let containers = agent.cri.container_list(Default::default()).await?;
    let mut used: HashSet<String> = HashSet::new();
    for container in containers {
        used.insert(container.image_ref);
        used.insert(container.image.map(|spec| spec.image).unwrap_or_default());
    }
    // containerd before 1.7 does not pin its sandbox image, but names it in its configuration
    let info = agent.cri.status(true).await?.info;
    let config = info.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    if let Some(name) = config.as_ref().and_then(|config| config["sandboxImage"].as_str()) {
        used.insert(name.to_string());
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Instance;
    use std::time::Duration;

    #[test]
    fn the_last_dead_instance_stays() {
        let instance =
            |id: &str, name: &str, state| Instance { id: id.into(), name: name.into(), state, ..Instance::default() };
        let observed = Observed {
            instances: vec![
                instance("c3", "c", State::Running),
                instance("c2", "c", State::Exited),
                instance("c1", "c", State::Exited),
                instance("d1", "d", State::Exited),
            ],
            ..Observed::default()
        };
        let ids: Vec<String> = surplus(&observed).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["c1"]);
    }

    #[test]
    fn old_unused_images_go_first() {
        let image = |id: &str, pinned| cri::v1::Image { id: id.into(), size: 10, pinned, ..Default::default() };
        let images = [image("new", false), image("old", false), image("used", false), image("pinned", true)];
        let now = Instant::now() + Duration::from_secs(1000);
        let last: HashMap<String, Instant> = images
            .iter()
            .zip([100, 900, 950, 950])
            .map(|(image, age)| (image.id.clone(), now - Duration::from_secs(age)))
            .collect();
        let used = HashSet::from(["used".to_string()]);
        let plan = |bytes| plan_images(&images, &used, &last, Duration::from_secs(120), now, bytes);
        assert_eq!(plan(5), ["old"]);
        assert_eq!(plan(100), ["old"]);
    }
}
