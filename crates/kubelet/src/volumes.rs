//! The volumes of this node's pods: set up before containers start, kept fresh while they run, taken down at the end.
//!
//! Reads ConfigMaps, Secrets and tokens from the API server; writes `DATA_DIR/pods/UID/{volumes,volume-subpaths,plugins}`
//! and mounts there. Invariant: `mount` may be called at every sync and only does what is missing or changed; nothing of a
//! pod is left after `unmount`, and nothing outside its directory is ever removed.

mod atomic;
mod empty_dir;
mod host_path;
mod mounts;
mod objects;
mod payload;
mod release;
mod sources;
#[cfg(test)]
mod testing;
mod token;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::pods::Allocatable;
use objects::{Key, Objects, Watched};
use payload::Payload;
use token::Tokens;

pub use mounts::{MountedVolumes, Ready};
pub use release::release_all;

/// How often tokens are looked at; the shortest a token may live is ten minutes.
const TOKEN_CHECK: Duration = Duration::from_secs(20);
/// Changes that come together are written together.
const SETTLE: Duration = Duration::from_millis(100);

/// What volumes need to know of the node.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub allocatable: Allocatable,
}

/// Why a volume is not there. Displays as what follows `MountVolume.SetUp failed for volume "x" : `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VolumeError {
    volume: String,
    message: String,
}

impl VolumeError {
    pub(crate) fn new(volume: impl Into<String>, message: impl Into<String>) -> Self {
        Self { volume: volume.into(), message: message.into() }
    }

    /// The name of the volume in the pod; empty when it is about all of them.
    pub fn volume(&self) -> &str {
        &self.volume
    }
}

/// The volumes of all pods of this node. Cheap to clone.
#[derive(Clone)]
pub struct Volumes(Arc<Inner>);

type Waker = Arc<dyn Fn(&str) + Send + Sync>;

struct Inner {
    settings: Settings,
    objects: Objects,
    tokens: Tokens,
    pods: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Work>>>>,
    waker: OnceLock<Waker>,
}

/// What is known of one pod's volumes. Locked while anything is done to them.
struct Work {
    pod: Arc<Pod>,
    uid: String,
    watched: BTreeMap<Key, Arc<Watched>>,
    /// Versions of what is watched, as they were when last written.
    seen: BTreeMap<Key, String>,
    ready: BTreeMap<String, Ready>,
    written: HashMap<String, Payload>,
    refresh_at: Option<Timestamp>,
    failed: bool,
}

impl Volumes {
    /// Starts the task that keeps volumes fresh; it ends with `shutdown`.
    pub fn new(settings: Settings, client: kube::Client, shutdown: CancellationToken) -> Self {
        let mut settings = settings;
        // The mount table shows real paths: links in the configured one would hide our mounts from us.
        if let Ok(real) = fs::create_dir_all(&settings.data_dir).and_then(|()| settings.data_dir.canonicalize()) {
            settings.data_dir = real;
        }
        let changed = Arc::new(Notify::new());
        let this = Self(Arc::new(Inner {
            settings,
            objects: Objects::new(client.clone(), changed.clone(), shutdown.clone()),
            tokens: Tokens::new(client),
            pods: Mutex::default(),
            waker: OnceLock::new(),
        }));
        let task = this.clone();
        tokio::spawn(async move {
            tokio::select! { () = shutdown.cancelled() => {}, () = task.keep_fresh(&changed) => {} }
        });
        this
    }

    /// Called with a pod's uid when an object changed that its last `mount` failed over: time to try again.
    pub fn on_change(&self, waker: Waker) {
        let _ = self.0.waker.set(waker);
    }

    /// Sets up what is missing or changed of the volumes that the pod's containers use.
    pub async fn mount(&self, pod: &Arc<Pod>) -> Result<MountedVolumes, VolumeError> {
        let uid = pod.metadata.uid.clone().filter(|uid| is_plain_name(uid));
        let uid = uid.ok_or_else(|| VolumeError::new("", "the pod has no uid"))?;
        let slot = lock(&self.0.pods)
            .entry(uid.clone())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Work::new(pod, &uid))))
            .clone();
        let mut work = slot.lock().await;
        work.pod = pod.clone();
        self.set_up(&mut work).await?;
        Ok(MountedVolumes { volumes: work.ready.clone(), subpaths: self.pod_dir(&uid).join("volume-subpaths") })
    }

    /// Takes everything of the pod's volumes away. Its containers must be gone.
    pub async fn unmount(&self, uid: &str) -> Result<(), VolumeError> {
        if !is_plain_name(uid) {
            return Err(VolumeError::new("", format!("{uid:?} is not a pod uid")));
        }
        let slot = lock(&self.0.pods).remove(uid);
        let _work = match &slot {
            Some(slot) => Some(slot.lock().await),
            None => None,
        };
        self.0.tokens.forget(uid);
        let directory = self.pod_dir(uid);
        let work = move || {
            ["volume-subpaths", "volumes", "plugins"].iter().try_for_each(|part| tear_down(&directory.join(part)))
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
        done.map_err(|error| VolumeError::new("", format!("cannot clean up the volumes of pod {uid}: {error}")))
    }

    /// Takes away the volumes of pods that are not in `keep`, left by an earlier life of this kubelet.
    pub async fn clean_orphans(&self, keep: &HashSet<String>) {
        let Ok(entries) = fs::read_dir(self.0.settings.data_dir.join("pods")) else { return };
        let uids: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        for uid in uids {
            let left =
                || ["volume-subpaths", "volumes", "plugins"].iter().any(|part| self.pod_dir(&uid).join(part).exists());
            if keep.contains(&uid) || lock(&self.0.pods).contains_key(&uid) || !left() {
                continue;
            }
            match self.unmount(&uid).await {
                Ok(()) => tracing::info!(uid, "cleaned up the volumes of a pod that is gone"),
                Err(error) => tracing::warn!(uid, %error, "orphaned volumes"),
            }
        }
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.0.settings.data_dir.join("pods").join(uid)
    }

    async fn set_up(&self, work: &mut Work) -> Result<(), VolumeError> {
        let pod = work.pod.clone();
        let used = used_volumes(&pod);
        let volumes: Vec<&Volume> = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .filter(|volume| used.contains(volume.name.as_str()))
            .collect();
        work.watch(&self.0.objects, volumes.iter().flat_map(|volume| sources::keys(&pod, volume)).collect()).await;
        work.refresh_at = None;
        let mut first_error = None;
        for volume in volumes {
            if let Err(message) = self.set_up_one(work, volume).await {
                first_error.get_or_insert(VolumeError::new(&volume.name, message));
            }
        }
        work.failed = first_error.is_some();
        first_error.map_or(Ok(()), Err)
    }

    async fn set_up_one(&self, work: &mut Work, volume: &Volume) -> Result<(), String> {
        let name = volume.name.clone();
        if !is_plain_name(&name) {
            return Err(format!("{name:?} is not a volume name"));
        }
        let allocatable = &self.0.settings.allocatable;
        if let Some(source) = &volume.host_path {
            if let Entry::Vacant(vacant) = work.ready.entry(name) {
                host_path::set_up(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?;
                vacant.insert(Ready { path: PathBuf::from(&source.path), read_only: false, managed: false });
            }
            return Ok(());
        }
        let Some(plugin) = sources::plugin(volume) else { return Err(sources::unsupported(volume)) };
        let path = self.pod_dir(&work.uid).join("volumes").join(plugin.directory).join(&name);
        if let Some(source) = &volume.empty_dir {
            if !work.ready.contains_key(&name) {
                let plan = empty_dir::plan(&work.pod, &name, source, allocatable)?;
                let ready = self.pod_dir(&work.uid).join("plugins").join(plugin.directory).join(&name).join("ready");
                let at = path.clone();
                blocking(move || {
                    make_parents(&at)?;
                    empty_dir::set_up(&at, &ready, &plan)
                })
                .await?;
                work.ready.insert(name, Ready { path, read_only: false, managed: true });
            }
            return Ok(());
        }
        let built = sources::build(work, volume, &self.0.tokens, allocatable).await?;
        work.refresh_at = [work.refresh_at, built.refresh_at].into_iter().flatten().min();
        if work.written.get(&name) != Some(&built.payload) {
            let group = work
                .pod
                .spec
                .as_ref()
                .and_then(|spec| spec.security_context.as_ref()?.fs_group)
                .and_then(|group| u32::try_from(group).ok());
            let (at, in_memory) = (path.clone(), plugin.in_memory);
            let payload = blocking(move || write_payload(&at, in_memory, built.payload, group)).await?;
            work.written.insert(name.clone(), payload);
            work.ready.insert(name, Ready { path, read_only: true, managed: true });
        }
        Ok(())
    }

    async fn keep_fresh(&self, changed: &Notify) {
        let mut busy = false;
        loop {
            let wait = if busy { SETTLE * 5 } else { TOKEN_CHECK };
            tokio::select! { () = changed.notified() => tokio::time::sleep(SETTLE).await, () = tokio::time::sleep(wait) => {} }
            busy = false;
            let slots: Vec<_> = lock(&self.0.pods).iter().map(|(uid, slot)| (uid.clone(), slot.clone())).collect();
            for (uid, slot) in slots {
                match slot.try_lock() {
                    Err(_) => busy = true,
                    Ok(mut work) => self.refresh(&uid, &mut work).await,
                }
            }
        }
    }

    async fn refresh(&self, uid: &str, work: &mut Work) {
        let due = work.refresh_at.is_some_and(|at| at <= Timestamp::now());
        if !due && !work.is_outdated() {
            return;
        }
        if work.failed {
            work.seen = work.versions();
            if let Some(waker) = self.0.waker.get() {
                waker(uid);
            }
            return;
        }
        if let Err(error) = self.set_up(work).await {
            tracing::warn!(uid, volume = error.volume(), %error, "could not refresh a volume; its old content stays");
            work.refresh_at = Some(Timestamp::now() + TOKEN_CHECK);
            work.failed = false;
        }
    }
}

impl Work {
    fn new(pod: &Arc<Pod>, uid: &str) -> Self {
        Self {
            pod: pod.clone(),
            uid: uid.to_owned(),
            watched: BTreeMap::new(),
            seen: BTreeMap::new(),
            ready: BTreeMap::new(),
            written: HashMap::new(),
            refresh_at: None,
            failed: false,
        }
    }

    // Watches exactly `keys`, waits until there is something to know about each, and notes the versions before they are read.
    async fn watch(&mut self, objects: &Objects, keys: BTreeSet<Key>) {
        self.watched.retain(|key, _| keys.contains(key));
        for key in keys {
            self.watched.entry(key).or_insert_with_key(|key| objects.watch(key.clone()));
        }
        for watched in self.watched.values() {
            let _ = watched.get().await;
        }
        self.seen = self.versions();
    }

    fn versions(&self) -> BTreeMap<Key, String> {
        self.watched.iter().map(|(key, watched)| (key.clone(), watched.version())).collect()
    }

    fn is_outdated(&self) -> bool {
        self.versions() != self.seen
    }
}

// Compat: a volume that no container mounts is not set up, so it cannot hold up the pod either.
fn used_volumes(pod: &Pod) -> HashSet<&str> {
    let Some(spec) = &pod.spec else { return HashSet::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let debug =
        spec.ephemeral_containers.iter().flatten().flat_map(|container| container.volume_mounts.iter().flatten());
    containers
        .flat_map(|container| container.volume_mounts.iter().flatten())
        .chain(debug)
        .map(|mount| mount.name.as_str())
        .collect()
}

// Names become parts of paths.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn make_parents(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)
}

fn write_payload(directory: &Path, in_memory: bool, payload: Payload, group: Option<u32>) -> io::Result<Payload> {
    make_parents(directory)?;
    if !directory.is_dir() {
        fs::create_dir(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
    }
    if in_memory && !sys::mount::is_mount_point(directory)? {
        sys::mount::tmpfs(directory, 0, 0o1777)?;
    }
    atomic::write(directory, &payload, group)?;
    Ok(payload)
}

fn tear_down(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    sys::mount::unmount_below(directory)?;
    if let Some(mount) = sys::mount::mounts_below(directory)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", mount.path.display())));
    }
    fs::remove_dir_all(directory)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
