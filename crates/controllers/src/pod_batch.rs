//! Creates and deletes many pods of one owner: in batches that double while they succeed, with an event for each.
//! Reads nothing. Writes: Pod, Event. Invariant: what was written is noted before anybody may look, so that a stale cache never
//! makes a controller do it again.

use std::sync::Arc;

use client::{Key, Recorder, revision_of};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use crate::context::{During, Error, Result};
use crate::written::Written;

/// The most pods one reconcile creates or deletes.
pub const BURST: usize = 500;
const FIRST_BATCH: usize = 1;

pub struct PodBatch<'a> {
    pub client: &'a Client,
    pub recorder: &'a Recorder,
    pub written: &'a Written,
    /// The owner, as key of what was written and for events.
    pub key: &'a Key,
    pub owner: &'a ObjectReference,
}

impl PodBatch<'_> {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }

    /// Creates the pods; stops after the first batch with a failure, so that a quota or a broken webhook is not hammered.
    pub async fn create(&self, pods: Vec<Pod>) -> Result<()> {
        let mut rest = pods.into_iter();
        let mut size = FIRST_BATCH;
        loop {
            let batch: Vec<Pod> = rest.by_ref().take(size).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let outcomes = join_all(batch.iter().map(|pod| self.create_one(pod))).await;
            for outcome in outcomes {
                outcome?;
            }
            size *= 2;
        }
    }

    pub async fn create_one(&self, pod: &Pod) -> Result<()> {
        match self.pods().create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.written.wrote(self.key, revision_of(&created));
                let message = format!("Created pod: {}", created.name_any());
                self.recorder.event(self.owner, "Normal", "SuccessfulCreate", message);
                Ok(())
            }
            // everything in the namespace goes anyway: no event, and no use in trying again
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {}", client::message(&error));
                self.recorder.event(self.owner, "Warning", "FailedCreate", message);
                Err(error).during(|| format!("cannot create a pod for {}", self.key))
            }
        }
    }

    /// Deletes the pods, all at once; the error is the first one.
    pub async fn delete(&self, pods: &[Arc<Pod>]) -> Result<()> {
        let outcomes = join_all(pods.iter().map(|pod| self.delete_one(pod))).await;
        outcomes.into_iter().collect()
    }

    pub async fn delete_one(&self, pod: &Pod) -> Result<()> {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.pods().delete(&name, &params).await {
            Ok(_) => {
                self.written.deleted(self.key, &uid);
                self.recorder.event(self.owner, "Normal", "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", client::message(&error));
                self.recorder.event(self.owner, "Warning", "FailedDelete", message);
                Err(error).during(|| format!("cannot delete pod {}/{name}", self.key.namespace))
            }
        }
    }
}

/// The server refuses new objects in a namespace that is being deleted.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| details.causes.iter());
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The API's message of a failed write, for a condition.
pub fn api_message(error: &Error) -> String {
    match error {
        Error::Api { source, .. } => client::message(source),
        Error::Other(message) => message.clone(),
    }
}
