//! Makes sure that every namespace has the ServiceAccount `default`.
//! Reads: Namespace, ServiceAccount. Writes: ServiceAccount. Invariant: never changes one that exists.

use client::{Action, Event, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::is_namespace_terminating;

const NAME: &str = "default";

struct Controller {
    ctx: Ctx,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let namespaces = ctx.informers.of::<Namespace>();
    let accounts = ctx.informers.filtered::<ServiceAccount>(None, Some("metadata.name=default"));
    let mut work = Work::new(&ctx);
    work.watch_own(&namespaces);
    work.watch(&accounts, |event| match event {
        Event::Deleted(account) => account.metadata.namespace.iter().map(|namespace| Key::new("", namespace)).collect(),
        _ => Vec::new(),
    });
    let count = ctx.config.concurrency;
    let this = Controller { ctx, namespaces, accounts };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Action::Done) };
        if namespace.metadata.deletion_timestamp.is_some() || self.accounts.get(&key.name, NAME).is_some() {
            return Ok(Action::Done);
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.ctx.client.clone(), &key.name);
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.to_string()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Action::Done),
            Err(error) if client::is_already_exists(&error) || is_namespace_terminating(&error) => Ok(Action::Done),
            // the namespace went meanwhile
            Err(error) if client::is_not_found(&error) => Ok(Action::Done),
            Err(error) => Err(error).during(|| format!("cannot create ServiceAccount {}/{NAME}", key.name)),
        }
    }
}
