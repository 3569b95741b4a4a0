//! Publishes the cluster's CA to every namespace, in the ConfigMap that pods mount beside their tokens.
//! Reads: Namespace, ConfigMap. Writes: ConfigMap kube-root-ca.crt. Invariant: its data is the CA and nothing else.

use std::collections::BTreeMap;

use client::{Action, Event, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::is_namespace_terminating;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions \
    of Kubernetes clusters.";

struct Controller {
    ctx: Ctx,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    if ctx.config.root_ca_pem.is_empty() {
        return Box::pin(std::future::ready(()));
    }
    let namespaces = ctx.informers.of::<Namespace>();
    let maps = ctx.informers.filtered::<ConfigMap>(None, Some("metadata.name=kube-root-ca.crt"));
    let mut work = Work::new(&ctx);
    work.watch_own(&namespaces);
    work.watch(&maps, |event| match event {
        Event::Added(_) => Vec::new(),
        Event::Modified { new: map, .. } | Event::Deleted(map) => {
            map.metadata.namespace.iter().map(|namespace| Key::new("", namespace)).collect()
        }
    });
    let count = ctx.config.concurrency;
    let this = Controller { ctx, namespaces, maps };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(ConfigMap),
    Replace(ConfigMap),
}

fn plan(namespace: &str, current: Option<&ConfigMap>, ca_pem: &str) -> Step {
    let data: BTreeMap<String, String> = [("ca.crt".to_string(), ca_pem.to_string())].into();
    let Some(current) = current else {
        return Step::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_string()),
                namespace: Some(namespace.to_string()),
                annotations: Some([(DESCRIPTION.to_string(), DESCRIPTION_TEXT.to_string())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        });
    };
    let described = current.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(DESCRIPTION));
    if current.data.as_ref() == Some(&data) && described {
        return Step::Nothing;
    }
    let mut changed = current.clone();
    changed.data = Some(data);
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.to_string(), DESCRIPTION_TEXT.to_string());
    Step::Replace(changed)
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Action::Done) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.ctx.client.clone(), &key.name);
        let current = self.maps.get(&key.name, NAME);
        let outcome = match plan(&key.name, current.as_deref(), &self.ctx.config.root_ca_pem) {
            Step::Nothing => return Ok(Action::Done),
            Step::Create(map) => maps.create(&PostParams::default(), &map).await,
            Step::Replace(map) => maps.replace(NAME, &PostParams::default(), &map).await,
        };
        match outcome {
            Ok(_) => Ok(Action::Done),
            Err(error) if client::is_already_exists(&error) || is_namespace_terminating(&error) => Ok(Action::Done),
            Err(error) if client::is_not_found(&error) => Ok(Action::Done),
            Err(error) => Err(error).during(|| format!("cannot publish the CA to namespace {}", key.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_repairs_and_leaves_alone() {
        let Step::Create(mut map) = plan("ns", None, "PEM") else { panic!("an absent map is created") };
        assert_eq!(plan("ns", Some(&map), "PEM"), Step::Nothing);
        map.data.as_mut().unwrap().insert("extra".into(), "x".into());
        let Step::Replace(mended) = plan("ns", Some(&map), "PEM") else { panic!("a changed map is mended") };
        assert_eq!(plan("ns", Some(&mended), "PEM"), Step::Nothing);
        assert!(matches!(plan("ns", Some(&mended), "NEW"), Step::Replace(_)));
    }
}
