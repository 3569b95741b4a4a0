//! Objects that configure admission, compiled: webhook configurations, policies and their bindings.
//!
//! Reads one resource's watch cache. Invariants: an object is compiled once per version; where there is no object,
//! asking allocates nothing.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use compact_str::CompactString;
use meta::Value;

use crate::cache::Cache;
use crate::shared::Shared;

pub const GROUP: &str = "admissionregistration.k8s.io";

pub struct Configured<T> {
    plural: &'static str,
    compile: fn(&Value) -> T,
    cache: OnceLock<Arc<Cache>>,
    state: ArcSwap<State<T>>,
    compiling: Mutex<()>,
}

struct State<T> {
    /// The cache's state that was compiled.
    since: u64,
    /// Name, version, compiled; by name.
    entries: Vec<(CompactString, u64, Arc<T>)>,
    all: Arc<[Arc<T>]>,
}

impl<T> Configured<T> {
    pub fn new(plural: &'static str, compile: fn(&Value) -> T) -> Self {
        let state = State { since: 0, entries: Vec::new(), all: Arc::new([]) };
        Configured {
            plural,
            compile,
            cache: OnceLock::new(),
            state: ArcSwap::from_pointee(state),
            compiling: Mutex::default(),
        }
    }

    /// Every object, sorted by name; `None` when there is none.
    pub fn load(&self, shared: &Shared) -> Option<Arc<[Arc<T>]>> {
        let cache = match self.cache.get() {
            Some(cache) => cache,
            None => {
                let cache = shared.registry.stored(GROUP, self.plural)?.cache.clone();
                self.cache.get_or_init(|| cache)
            }
        };
        if self.state.load().since != cache.since() {
            self.compile(cache);
        }
        let state = self.state.load();
        (!state.entries.is_empty()).then(|| state.all.clone())
    }

    fn compile(&self, cache: &Cache) {
        // Whoever comes meanwhile waits, rather than compile the same.
        let _one = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.state.load_full();
        let found = cache.snapshot("", "", 0, false, |_| true);
        if known.since == found.since {
            return;
        }
        let entries = found.objects.iter().map(|object| {
            let same = known.entries.iter().find(|(name, rv, _)| *name == object.name && *rv == object.rv);
            let compiled = same.map(|(.., compiled)| compiled.clone());
            let compiled = compiled.unwrap_or_else(|| Arc::new((self.compile)(&object.document())));
            (object.name.clone(), object.rv, compiled)
        });
        let entries: Vec<_> = entries.collect();
        let all = entries.iter().map(|(.., compiled)| compiled.clone()).collect();
        self.state.store(Arc::new(State { since: found.since, entries, all }));
    }
}
