//! The ConfigMaps and Secrets that volumes of this node's pods show: one watch per object, as long as somebody needs it.
//!
//! Reads the API server (list and watch of `metadata.name=NAME` in one namespace, which is all a node may see). Invariant:
//! as many watches as distinct objects in use; the last user that goes ends its watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a pod waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// An object as last seen.
#[derive(Debug, Clone)]
pub enum Object {
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unknown,
    Unreachable(String),
    Absent,
    Present(Object),
}

/// A share in the watch of one object.
pub struct Watched {
    pub key: Key,
    state: watch::Receiver<State>,
    _stop: DropGuard,
}

pub struct Objects {
    client: kube::Client,
    shutdown: CancellationToken,
    changed: Arc<Notify>,
    shares: Mutex<HashMap<Key, Weak<Watched>>>,
}

impl Objects {
    /// `changed` is notified whenever any object changes.
    pub fn new(client: kube::Client, changed: Arc<Notify>, shutdown: CancellationToken) -> Self {
        Self { client, shutdown, changed, shares: Mutex::default() }
    }

    /// Starts to watch, or shares the watch there is.
    pub fn watch(&self, key: Key) -> Arc<Watched> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = shares.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        let stop = self.shutdown.child_token();
        let (sender, state) = watch::channel(State::Unknown);
        let (client, changed, token, at) = (self.client.clone(), self.changed.clone(), stop.clone(), key.clone());
        tokio::spawn(async move {
            let work = async {
                match at.kind {
                    Kind::ConfigMap => {
                        let stream = one::<ConfigMap>(client, &at);
                        follow(stream, sender, &changed, |map| map.immutable == Some(true), Object::ConfigMap).await;
                    }
                    Kind::Secret => {
                        let stream = one::<Secret>(client, &at);
                        follow(stream, sender, &changed, |secret| secret.immutable == Some(true), Object::Secret).await;
                    }
                }
            };
            tokio::select! { () = token.cancelled() => {}, () = work => {} }
        });
        let share = Arc::new(Watched { key: key.clone(), state, _stop: stop.drop_guard() });
        shares.insert(key, Arc::downgrade(&share));
        share
    }
}

impl Watched {
    /// The object; None when it does not exist. Waits for the first answer, within bounds.
    pub async fn get(&self) -> Result<Option<Object>, String> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Unknown));
        match tokio::time::timeout(FIRST_ANSWER, known).await {
            Ok(Ok(state)) => match &*state {
                State::Present(object) => Ok(Some(object.clone())),
                State::Unreachable(error) => Err(error.clone()),
                State::Absent | State::Unknown => Ok(None),
            },
            Ok(Err(_)) => Err(format!("failed to sync {} cache: the kubelet is stopping", self.key.kind.name())),
            Err(_) => {
                Err(format!("failed to sync {} cache: timed out waiting for the condition", self.key.kind.name()))
            }
        }
    }

    /// The error for an object that is needed and absent.
    pub fn not_found(&self) -> String {
        format!("{} \"{}\" not found", self.key.kind.name(), self.key.name)
    }

    /// Something that differs between any two states of the object.
    pub fn version(&self) -> String {
        match &*self.state.borrow() {
            State::Unknown => String::new(),
            State::Unreachable(_) => "?".to_owned(),
            State::Absent => "-".to_owned(),
            State::Present(object) => {
                let meta = match object {
                    Object::ConfigMap(map) => &map.metadata,
                    Object::Secret(secret) => &secret.metadata,
                };
                format!(
                    "{}/{}",
                    meta.uid.as_deref().unwrap_or_default(),
                    meta.resource_version.as_deref().unwrap_or_default()
                )
            }
        }
    }
}

fn one<K>(client: kube::Client, key: &Key) -> impl Stream<Item = Result<Option<K>, watcher::Error>> + Send + use<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client, &key.namespace);
    watcher::watch_object(api, &key.name).default_backoff()
}

async fn follow<K>(
    stream: impl Stream<Item = Result<Option<K>, watcher::Error>> + Send,
    sender: watch::Sender<State>,
    changed: &Notify,
    is_final: impl Fn(&K) -> bool,
    wrap: impl Fn(Arc<K>) -> Object,
) {
    futures::pin_mut!(stream);
    while let Some(next) = stream.next().await {
        let last = matches!(&next, Ok(Some(object)) if is_final(object));
        let state = match next {
            Ok(Some(object)) => State::Present(wrap(Arc::new(object))),
            Ok(None) => State::Absent,
            // What is known stays: a watch that ended or a server that is away says nothing new.
            Err(_) if matches!(&*sender.borrow(), State::Present(_) | State::Absent) => continue,
            Err(error) => State::Unreachable(words(&error)),
        };
        sender.send_replace(state);
        changed.notify_one();
        if last {
            break;
        }
    }
    // An immutable object needs no watch any more; its value stays for those that hold a share.
    sender.closed().await;
}

fn words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => client::message(error),
        other => other.to_string(),
    }
}
