//! Keeps the kernel's table in step with the Services' fragments, one transaction at a time.
//! Writes nftables and connection tracking. Invariant: `applied` is what the kernel holds; after a failure it is unknown
//! and the next sync rebuilds the table from nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sys::nft::{Nft, NftError};

use crate::conntrack::stale_flows;
use crate::fragment::{Context, Fragment};
use crate::rules::{Map, Rules, Stale, Transaction};
use crate::{Config, table};

/// `namespace/name` of a Service.
pub type ServiceKey = String;

/// The kernel's time for one transaction grows with the square of its size, so a rebuild goes in steps of so many Services.
const REBUILD_SERVICES_MAX: usize = 500;

/// Names that went out of use, and names that came back.
#[derive(Default)]
struct Swept {
    stale: Stale,
    revived: Stale,
}

/// Adds to the last text.
fn append(texts: &mut Vec<String>, text: &str) {
    match texts.last_mut() {
        Some(last) => last.push_str(text),
        None => texts.push(text.to_owned()),
    }
}

pub struct Engine {
    config: Config,
    context: Context,
    nft: Nft,
    /// What each Service wants.
    wanted: BTreeMap<ServiceKey, Fragment>,
    /// What is in the kernel, per Service. None: not known, rebuild.
    applied: Option<HashMap<ServiceKey, Rules>>,
    /// Who holds a map element, and who else would like it.
    owners: HashMap<(Map, String), ServiceKey>,
    blocked: HashMap<(Map, String), BTreeSet<ServiceKey>>,
    stale: Stale,
    no_conntrack: bool,
}

impl Engine {
    pub fn new(config: Config, context: Context, nft: Nft) -> Self {
        Self {
            config,
            context,
            nft,
            wanted: BTreeMap::new(),
            applied: None,
            owners: HashMap::new(),
            blocked: HashMap::new(),
            stale: Stale::default(),
            no_conntrack: false,
        }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether the next sync rebuilds everything.
    pub fn is_lost(&self) -> bool {
        self.applied.is_none()
    }

    /// Brings the changed Services (None: deleted) into the kernel.
    pub async fn sync(&mut self, changes: Vec<(ServiceKey, Option<Fragment>)>) -> Result<(), NftError> {
        let mut flows = Vec::new();
        let mut dirty = BTreeSet::new();
        let empty = Fragment::default();
        for (key, fragment) in changes {
            let old = self.wanted.get(&key).unwrap_or(&empty);
            flows.extend(stale_flows(old, fragment.as_ref().unwrap_or(&empty)));
            match fragment {
                Some(fragment) => drop(self.wanted.insert(key.clone(), fragment)),
                None => drop(self.wanted.remove(&key)),
            }
            dirty.insert(key);
        }
        let (texts, stale, next) = self.prepare(dirty);
        for text in texts {
            if let Err(error) = self.nft.apply(&text).await {
                self.lose();
                return Err(error);
            }
        }
        self.applied.get_or_insert_default().extend(next);
        self.applied.get_or_insert_default().retain(|_, r| *r != Rules::default());
        self.sweep(stale).await;
        self.forget_flows(flows).await;
        Ok(())
    }

    /// Forgets what the kernel holds.
    fn lose(&mut self) {
        self.applied = None;
        self.owners.clear();
        self.blocked.clear();
        self.stale = Stale::default();
    }

    /// The texts to apply in order, what is no longer or again in use, and what will then be in the kernel for the
    /// Services they touch. One text, except for a rebuild of many Services.
    fn prepare(&mut self, mut dirty: BTreeSet<ServiceKey>) -> (Vec<String>, Swept, HashMap<ServiceKey, Rules>) {
        let rebuild = self.applied.is_none();
        let mut texts = Vec::new();
        if rebuild {
            texts.push(table::base(&self.config, &self.context));
            dirty = self.wanted.keys().cloned().collect();
        }
        let nothing = HashMap::new();
        let mut next: HashMap<ServiceKey, Rules> = HashMap::new();
        // First all that is given up, so that others can take it over in the same transaction.
        let mut heirs = BTreeSet::new();
        for key in &dirty {
            let wanted = self.wanted.get(key).map(|f| &f.rules);
            let old = self.applied.as_ref().unwrap_or(&nothing).get(key);
            for element in old.into_iter().flat_map(|r| r.elements.keys()) {
                if wanted.is_none_or(|w| !w.elements.contains_key(element)) {
                    self.owners.remove(element);
                    heirs.extend(self.blocked.remove(element).into_iter().flatten());
                }
            }
            for waiting in self.blocked.values_mut() {
                waiting.remove(key);
            }
        }
        self.blocked.retain(|_, waiting| !waiting.is_empty());
        dirty.extend(heirs);
        let mut transaction = Transaction::default();
        for key in dirty {
            let mut rules = self.wanted.get(&key).map(|f| f.rules.clone()).unwrap_or_default();
            rules.elements.retain(|element, _| {
                let owner = self.owners.entry(element.clone()).or_insert_with(|| key.clone());
                if *owner == key {
                    return true;
                }
                tracing::warn!(
                    service = key,
                    owner,
                    element = element.1,
                    "another Service already has this address; left out"
                );
                self.blocked.entry(element.clone()).or_default().insert(key.clone());
                false
            });
            let empty = Rules::default();
            let old = self.applied.as_ref().unwrap_or(&nothing).get(&key).unwrap_or(&empty);
            transaction.change(&self.config.table, old, &rules);
            next.insert(key, rules);
            if rebuild && next.len().is_multiple_of(REBUILD_SERVICES_MAX) {
                append(&mut texts, &std::mem::take(&mut transaction).text());
                texts.push(String::new());
            }
        }
        append(&mut texts, &transaction.text());
        texts.retain(|t| !t.is_empty());
        (texts, Swept { stale: transaction.stale, revived: transaction.revived }, next)
    }

    /// Removes chains and sets that nothing points at any more. What the kernel still holds busy waits for the next time.
    async fn sweep(&mut self, swept: Swept) {
        let Swept { stale, revived } = swept;
        self.stale.chains.retain(|c| !revived.chains.contains(c));
        self.stale.sets.retain(|s| !revived.sets.contains(s));
        self.stale.chains.extend(stale.chains);
        self.stale.sets.extend(stale.sets);
        if self.stale.is_empty() {
            return;
        }
        match self.nft.apply(&self.stale.text(&self.config.table)).await {
            Ok(()) => self.stale = Stale::default(),
            Err(error) => tracing::debug!(%error, "cannot remove unused chains yet; tried again at the next change"),
        }
    }

    async fn forget_flows(&mut self, flows: Vec<Vec<String>>) {
        for args in flows {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            match self.nft.forget_flows(&args).await {
                Ok(true) => {}
                Ok(false) => {
                    if !std::mem::replace(&mut self.no_conntrack, true) {
                        tracing::warn!(
                            "the conntrack command is missing: UDP clients may stay with endpoints that left; install the package conntrack"
                        );
                    }
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot forget stale UDP flows"),
            }
        }
    }

    /// Notices when somebody removed the table; the next sync then rebuilds it.
    pub async fn check(&mut self) -> Result<(), NftError> {
        if self.applied.is_some() && !self.nft.has_chain("inet", &self.config.table, table::SENTINEL_CHAIN).await? {
            tracing::warn!(table = self.config.table, "somebody removed our nftables table; building it again");
            self.lose();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(ip: &str) -> Fragment {
        let mut out = Fragment::default();
        out.rules.element(Map::Services(false), format!("{ip} . tcp . 80"), "goto svc");
        out
    }

    fn step(engine: &mut Engine, key: &str, fragment: Option<Fragment>) -> String {
        match fragment {
            Some(f) => drop(engine.wanted.insert(key.to_owned(), f)),
            None => drop(engine.wanted.remove(key)),
        }
        let (texts, _, next) = engine.prepare(BTreeSet::from([key.to_owned()]));
        engine.applied.get_or_insert_default().extend(next);
        texts.concat()
    }

    #[test]
    fn a_large_rebuild_goes_in_steps() {
        let config = Config { table: "k".to_owned(), ..Config::default() };
        let mut engine = Engine::new(config, Context::default(), Nft::new());
        for i in 0..REBUILD_SERVICES_MAX * 2 + 1 {
            engine.wanted.insert(format!("d/{i:05}"), fragment(&format!("10.0.{}.{}", i / 250, i % 250)));
        }
        let (texts, _, next) = engine.prepare(BTreeSet::new());
        let elements: Vec<_> = texts.iter().map(|t| t.matches("add element").count()).collect();
        assert_eq!((elements, next.len()), (vec![500, 500, 1], 1001));
        assert!(texts[0].starts_with("add table inet k\ndelete table inet k\nadd table inet k\n"));
    }

    #[test]
    fn an_address_has_one_owner_and_is_inherited() {
        let config = Config { table: "k".to_owned(), ..Config::default() };
        let mut engine = Engine::new(config, Context::default(), Nft::new());
        engine.applied = Some(HashMap::new());
        let add = "add element inet k services4 { 1.1.1.1 . tcp . 80 : goto svc }\n";
        let delete = "delete element inet k services4 { 1.1.1.1 . tcp . 80 }\n";
        assert_eq!(step(&mut engine, "d/a", Some(fragment("1.1.1.1"))), add);
        assert_eq!(step(&mut engine, "d/b", Some(fragment("1.1.1.1"))), "");
        assert_eq!(step(&mut engine, "d/a", None), format!("{delete}{add}"));
        assert_eq!(step(&mut engine, "d/b", None), delete);
        assert!(engine.owners.is_empty() && engine.blocked.is_empty());
    }
}
