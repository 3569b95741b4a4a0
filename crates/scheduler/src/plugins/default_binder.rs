//! Binds a pod to its node through the `binding` subresource.
//! Writes: pods/binding. Invariant: the UID goes along, so a pod of the same name created meanwhile is not bound.

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use crate::framework::{Plugin, plugin};
use crate::pod::PodInfo;

pub struct DefaultBinder;

/// The body of the binding request.
pub fn binding(pod: &PodInfo, node: &str) -> Binding {
    Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    }
}

async fn post(kube: &kube::Client, pod: &PodInfo, node: &str) -> Result<(), String> {
    let api: kube::Api<Pod> = kube::Api::namespaced(kube.clone(), &pod.namespace);
    let answer: Result<serde_json::Value, _> =
        api.create_subresource("binding", &pod.name, &PostParams::default(), &binding(pod, node)).await;
    answer.map(|_| ()).map_err(|e| client::message(&e))
}

impl Plugin for DefaultBinder {
    plugin!("DefaultBinder": Bind);

    fn bind<'a>(
        &'a self,
        client: &'a kube::Client,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> BoxFuture<'a, Option<Result<(), String>>> {
        Box::pin(async move { Some(post(client, pod, node).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_info;

    #[test]
    fn the_binding_names_pod_uid_and_node() {
        let pod = pod_info(r#"{"metadata":{"name":"p","namespace":"d","uid":"u"},"spec":{"containers":[]}}"#);
        expect_test::expect![[r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p","namespace":"d","uid":"u"},"target":{"kind":"Node","name":"n"}}"#]]
            .assert_eq(&serde_json::to_string(&binding(&pod, "n")).unwrap());
    }
}
