//! The slices that one controller manages, and its writes of them.
//! Reads and writes: EndpointSlice. Invariant: knows no slice of another manager, and none at all while the cache lacks a write.

use std::sync::Arc;

use client::{Informer, Key};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::pack::{MANAGED_BY, Step};
use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::is_namespace_terminating;
use crate::service_endpoint::SERVICE_NAME;
use crate::written::Written;

const BY_SERVICE: &str = "endpointslice-service";

pub struct Slices {
    client: Client,
    manager: &'static str,
    informer: Informer<EndpointSlice>,
    written: Written,
}

fn place(slice: &EndpointSlice) -> Option<(&str, Key)> {
    let label = |name| slice.labels().get(name).map(String::as_str);
    let key = Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), label(SERVICE_NAME)?);
    Some((label(MANAGED_BY)?, key))
}

impl Slices {
    /// Enqueues the service of every changed slice of the manager.
    pub fn watch(ctx: &Ctx, work: &mut Work, manager: &'static str) -> Self {
        let informer = ctx.informers.of::<EndpointSlice>();
        informer.add_index(BY_SERVICE, |slice| {
            place(slice).map(|(manager, key)| format!("{manager} {key}")).into_iter().collect()
        });
        work.watch(&informer, move |event| {
            place(event.object()).filter(|(by, _)| *by == manager).map(|(_, key)| key).into_iter().collect()
        });
        Slices { client: ctx.client.clone(), manager, informer, written: Written::default() }
    }

    /// The slices of a service; None while the cache lacks what was written.
    pub fn of(&self, key: &Key) -> Option<Vec<Arc<EndpointSlice>>> {
        let shown = self.written.shown(key, self.informer.revision(), std::iter::empty());
        shown.then(|| self.informer.by_index(BY_SERVICE, &format!("{} {key}", self.manager)))
    }

    pub fn forget(&self, key: &Key) {
        self.written.forget(key);
    }

    pub async fn act(&self, key: &Key, steps: Vec<Step>) -> Result<()> {
        for step in steps {
            self.act_one(key, step).await?;
        }
        Ok(())
    }

    async fn act_one(&self, key: &Key, step: Step) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        match step {
            Step::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.written.wrote(key, client::revision_of(&created)),
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => return Err(error).during(|| format!("cannot create an EndpointSlice for service {key}")),
            },
            Step::Update(slice) => {
                let updated = api.replace(&slice.name_any(), &PostParams::default(), &slice).await;
                let updated = updated.during(|| format!("cannot update EndpointSlice {}", slice.name_any()))?;
                self.written.wrote(key, client::revision_of(&updated));
            }
            Step::Delete(slice) => {
                let preconditions = Preconditions { uid: slice.uid(), resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(&slice.name_any(), &params).await {
                    Ok(_) => {}
                    Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
                    Err(error) => {
                        return Err(error).during(|| format!("cannot delete EndpointSlice {}", slice.name_any()));
                    }
                }
            }
        }
        Ok(())
    }
}
