//! Versions of custom resources into each other: by their name alone, or by a webhook.
//!
//! Source: "Versions in CustomResourceDefinitions", "Webhook conversion"; errors in upstream's words. Invariant: a webhook
//! changes nothing of the metadata but labels and annotations, and answers one object for each that it got, in order.

use std::time::Duration;

use meta::{Reason, Status, Value, json};

use crate::registry::Served;
use crate::shared::Shared;
use crate::webhook::Webhook;

/// Upstream's limit for one conversion.
const WITHIN: Duration = Duration::from_secs(30);

/// How a definition converts.
pub enum Strategy {
    None,
    Webhook {
        webhook: Webhook,
        review_version: String,
    },
    /// The definition's webhook cannot be called at all; why.
    Broken(String),
}

impl Strategy {
    /// Reads `spec.conversion`.
    pub fn read(conversion: &Value) -> Strategy {
        if conversion.str_at(&["strategy"]) != Some("Webhook") {
            return Strategy::None;
        }
        // The first that we speak.
        let asked = conversion.array_at(&["webhook", "conversionReviewVersions"]);
        let version = asked.iter().filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1")).unwrap_or("v1");
        match Webhook::new(&conversion["webhook"]["clientConfig"]) {
            Ok(webhook) => Strategy::Webhook { webhook, review_version: version.to_string() },
            Err(why) => Strategy::Broken(why),
        }
    }
}

/// Brings documents into the version `wanted` (`GROUP/VERSION`); those that are in it stay as they are.
pub async fn convert(shared: &Shared, served: &Served, documents: &mut [Value], wanted: &str) -> Result<(), Status> {
    let Some(custom) = &served.custom else { return Ok(()) };
    let other: Vec<usize> =
        (0..documents.len()).filter(|i| documents[*i].str_at(&["apiVersion"]) != Some(wanted)).collect();
    let Some(first) = other.first() else { return Ok(()) };
    let from = documents[*first].str_at(&["apiVersion"]).unwrap_or_default().to_string();
    let fail = |why: String| {
        let message = format!("conversion webhook for {from}, Kind={} {why}", served.kind);
        Status::new(500, Reason::Unknown, message)
    };
    let (webhook, review_version) = match &*custom.conversion {
        Strategy::Webhook { webhook, review_version } => (webhook, review_version),
        Strategy::Broken(why) => return Err(fail(format!("failed: {why}"))),
        Strategy::None => {
            other.iter().for_each(|i| documents[*i].set(&["apiVersion"], wanted));
            return Ok(());
        }
    };
    let asked: Vec<Value> = other.iter().map(|i| documents[*i].clone()).collect();
    let uid = uuid::Uuid::new_v4().to_string();
    let mut review = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{review_version}"),
        "request": {"uid": uid.as_str(), "desiredAPIVersion": wanted}});
    review.set(&["request", "objects"], asked.clone());
    let answer = webhook.call(shared, &review, WITHIN).await.map_err(|e| fail(format!("failed: {e}")))?;
    let converted = accept(&answer, &uid, review_version, &asked, wanted, &served.kind).map_err(fail)?;
    for (i, document) in other.into_iter().zip(converted) {
        documents[i] = document;
    }
    Ok(())
}

fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    value.str_at(path).unwrap_or_default()
}

/// The converted objects in an answer, with the metadata that they had.
fn accept(
    answer: &Value,
    uid: &str,
    review_version: &str,
    asked: &[Value],
    wanted: &str,
    kind: &str,
) -> Result<Vec<Value>, String> {
    let (api_version, found) = (text(answer, &["apiVersion"]), text(answer, &["kind"]));
    let expected = format!("apiextensions.k8s.io/{review_version}");
    if (api_version, found) != (expected.as_str(), "ConversionReview") {
        return Err(format!(
            "failed: expected webhook response of {expected}, Kind=ConversionReview, got {api_version}, Kind={found}"
        ));
    }
    let response = &answer["response"];
    let answered = text(response, &["uid"]);
    if review_version != "v1beta1" && answered != uid {
        return Err(format!("failed: expected response.uid={uid:?}, got {answered:?}"));
    }
    if response.is_null() {
        return Err("failed: no response provided".into());
    }
    match (text(response, &["result", "status"]), text(response, &["result", "message"])) {
        ("Success", _) => {}
        (status, "") => return Err(format!("failed: response.result.status was '{status}', not 'Success'")),
        (_, why) => return Err(format!("failed: {why}")),
    }
    let converted = response.array_at(&["convertedObjects"]);
    if converted.len() != asked.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), asked.len()));
    }
    let mut out = Vec::with_capacity(asked.len());
    for (i, (new, old)) in converted.iter().zip(asked).enumerate() {
        for (what, member, expected) in [("groupVersion", "apiVersion", wanted), ("kind", "kind", kind)] {
            let got = text(new, &[member]);
            if got != expected {
                return Err(format!(
                    "returned invalid converted object at index {i}: invalid {what} (expected {expected}, received {got})"
                ));
            }
        }
        let object = with_metadata_of(new, old);
        out.push(object.map_err(|why| format!("returned invalid metadata in object at index {i}: {why}"))?);
    }
    Ok(out)
}

fn with_metadata_of(new: &Value, old: &Value) -> Result<Value, String> {
    if new["metadata"].as_object().is_none() {
        return Err("missing metadata in converted object".into());
    }
    for (member, word) in [("uid", "UID"), ("name", "name"), ("namespace", "namespace")] {
        let (now, was) = (text(new, &["metadata", member]), text(old, &["metadata", member]));
        if now != was {
            return Err(format!("must have the same {word}: {now} != {was}"));
        }
    }
    let mut out = new.clone();
    let mut metadata = old["metadata"].clone();
    for member in ["labels", "annotations"] {
        match new["metadata"].get(member) {
            Some(value) => metadata.set(&[member], value),
            None => drop(metadata.remove(&[member])),
        }
    }
    out.set(&["metadata"], metadata);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_webhook_may_answer() {
        let asked =
            [json!({"apiVersion": "g.io/v1", "kind": "K", "metadata": {"name": "a", "uid": "u", "finalizers": ["f"]}})];
        golden::check!("conversions.txt", |response| {
            let mut answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"});
            answer.set(&["response"], meta::parse(response.as_bytes()).expect("JSON"));
            let found = accept(&answer, "1", "v1", &asked, "g.io/v2", "K");
            found.map_or_else(|why| why, |objects| Value::from(objects).to_string())
        });
    }
}
