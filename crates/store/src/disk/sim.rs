//! A disk that fails on demand: a directory in memory that knows what is durable and what a crash may lose.
//! Invariant: harsher than a real one. After a crash any part of what was not synced may be there, sector by sector; after a failed sync
//! the data is lost even if a later sync succeeds.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use rand::rngs::StdRng;

use super::{Disk, DiskFile};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The step fails; a write leaves nothing.
    Error,
    /// A write leaves half of its data and fails.
    Short,
    /// The step and everything after it fails, until [`SimDisk::restart`].
    Crash,
}

/// What is lost at a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing: only the process had died.
    Process,
    /// Any part of what was not synced.
    Power,
}

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, data: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Default)]
struct Node {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

fn apply(bytes: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write { at, data } => {
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
        Pending::SetLen(len) => bytes.resize(*len, 0),
    }
}

type NodeRef = Arc<Mutex<Node>>;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, NodeRef>,
    durable_files: BTreeMap<String, NodeRef>,
    /// Directory changes, in order, not yet durable.
    pending: Vec<(String, Option<NodeRef>)>,
    steps: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    /// Bytes that may still be written.
    space: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    node: NodeRef,
}

fn failed(what: &str) -> io::Error {
    io::Error::other(what.to_string())
}

impl State {
    /// Every change goes through here, and may meet its fault. `Some` only for a short write.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(failed("crashed"));
        }
        self.steps += 1;
        match self.fault {
            Some((at, fault)) if at == self.steps => {
                self.fault = None;
                match fault {
                    Fault::Error => Err(failed("injected error")),
                    Fault::Short => Ok(Some(Fault::Short)),
                    Fault::Crash => {
                        self.crashed = true;
                        Ok(Some(Fault::Crash))
                    }
                }
            }
            _ => Ok(None),
        }
    }

    /// For steps that cannot half happen: the crash comes before.
    fn whole_step(&mut self) -> io::Result<()> {
        match self.step()? {
            None => Ok(()),
            Some(_) => Err(failed("injected failure")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl SimDisk {
    pub(crate) fn steps(&self) -> u64 {
        lock(&self.state).steps
    }

    /// The fault meets the `after`th change from now (1 is the next).
    pub(crate) fn inject(&self, after: u64, fault: Fault) {
        let mut state = lock(&self.state);
        state.fault = Some((state.steps + after, fault));
    }

    pub(crate) fn set_space(&self, bytes: Option<usize>) {
        lock(&self.state).space = bytes;
    }

    pub(crate) fn crash(&self) {
        lock(&self.state).crashed = true;
    }

    pub(crate) fn crashed(&self) -> bool {
        lock(&self.state).crashed
    }

    /// The disk as the next process finds it. Files that the old one still holds open stay crashed.
    pub(crate) fn restart(&self, rng: &mut StdRng, loss: Loss) -> Self {
        let old = lock(&self.state);
        let mut files = BTreeMap::new();
        let names = match loss {
            Loss::Process => old.files.clone(),
            Loss::Power => {
                let mut names = old.durable_files.clone();
                let kept = rng.random_range(0..=old.pending.len());
                for (name, node) in &old.pending[..kept] {
                    match node {
                        Some(node) => names.insert(name.clone(), node.clone()),
                        None => names.remove(name),
                    };
                }
                names
            }
        };
        for (name, node) in names {
            let node = lock(&node);
            let content = match loss {
                Loss::Process => node.content.clone(),
                Loss::Power => survivors(&node, rng),
            };
            let node = Node { durable: content.clone(), content, pending: Vec::new() };
            files.insert(name, Arc::new(Mutex::new(node)));
        }
        let state = State { durable_files: files.clone(), files, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Flips a bit, durably.
    pub(crate) fn damage(&self, name: &str, byte: usize) {
        let state = lock(&self.state);
        let mut node = lock(&state.files[name]);
        node.content[byte] ^= 1;
        node.durable = node.content.clone();
        node.pending.clear();
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        lock(&lock(&self.state).files[name]).content.clone()
    }
}

const SECTOR: usize = 512;

fn survivors(node: &Node, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = node.durable.clone();
    for pending in &node.pending {
        match pending {
            Pending::SetLen(_) if rng.random_bool(0.5) => apply(&mut bytes, pending),
            Pending::SetLen(_) => {}
            Pending::Write { at, data } => {
                let keep = rng.random_range(0.0..=1.0);
                let mut from = 0;
                while from < data.len() {
                    let to = data.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
                    if rng.random_bool(keep) {
                        apply(&mut bytes, &Pending::Write { at: at + from, data: data[from..to].to_vec() });
                    }
                    from = to;
                }
            }
        }
    }
    bytes
}

impl Disk for SimDisk {
    fn place(&self) -> String {
        "simulated".into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        state.whole_step()?;
        let node = match state.files.get(name) {
            Some(node) => {
                let mut n = lock(node);
                n.content.clear();
                n.pending.push(Pending::SetLen(0));
                node.clone()
            }
            None => {
                let node = NodeRef::default();
                state.files.insert(name.into(), node.clone());
                state.pending.push((name.into(), Some(node.clone())));
                node
            }
        };
        Ok(Arc::new(SimFile { state: self.state.clone(), node }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = lock(&self.state);
        let node = state.files.get(name).ok_or_else(|| failed("no such file"))?.clone();
        Ok(Arc::new(SimFile { state: self.state.clone(), node }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.whole_step()?;
        let node = state.files.remove(from).ok_or_else(|| failed("no such file"))?;
        state.files.insert(to.into(), node.clone());
        state.pending.push((to.into(), Some(node)));
        state.pending.push((from.into(), None));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.whole_step()?;
        state.files.remove(name).ok_or_else(|| failed("no such file"))?;
        state.pending.push((name.into(), None));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.whole_step()?;
        state.durable_files = state.files.clone();
        state.pending.clear();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.node).content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let node = lock(&self.node);
        let from = offset as usize;
        let found = node.content.get(from..from + buffer.len()).ok_or_else(|| failed("beyond the end"))?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let fault = state.step()?;
        let fits = state.space.is_none_or(|space| data.len() <= space);
        let part = match (fault, fits) {
            (None, true) => data.len(),
            (None, false) => state.space.unwrap_or(0),
            (Some(_), _) => data.len() / 2,
        };
        if let Some(space) = &mut state.space {
            *space = space.saturating_sub(part);
        }
        let pending = Pending::Write { at: offset as usize, data: data[..part].to_vec() };
        let mut node = lock(&self.node);
        apply(&mut node.content, &pending);
        node.pending.push(pending);
        match (fault, fits) {
            (None, true) => Ok(()),
            (None, false) => Err(io::ErrorKind::StorageFull.into()),
            (Some(_), _) => Err(failed("injected short write")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let crashed_before = state.crashed;
        let step = state.step();
        let mut node = lock(&self.node);
        match step {
            Ok(None) => {
                let pending = std::mem::take(&mut node.pending);
                let node = &mut *node;
                pending.iter().for_each(|p| apply(&mut node.durable, p));
                Ok(())
            }
            // The kernel forgets the pages of a failed sync: half of them arrived, and nobody will try the rest again.
            Err(e) if !crashed_before => {
                let pending = std::mem::take(&mut node.pending);
                let node = &mut *node;
                pending.iter().take(pending.len() / 2).for_each(|p| apply(&mut node.durable, p));
                Err(e)
            }
            Ok(Some(_)) => Err(failed("injected failure")),
            Err(e) => Err(e),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.whole_step()?;
        let mut node = lock(&self.node);
        node.content.resize(len as usize, 0);
        node.pending.push(Pending::SetLen(len as usize));
        Ok(())
    }
}
