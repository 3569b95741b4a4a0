//! Mutating and validating webhooks: who is called, with what, and what comes of the answer.
//!
//! Reads: webhook configurations. Calls them over HTTPS (see `webhook`). Invariants: mutating webhooks are called one
//! after the other, in the order of the configurations' names; what a webhook's failure means is its `failurePolicy`; a
//! refusal is a refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use meta::field::{Errors, Path};
use meta::status::Reason;
use meta::{Status, Value, json, patch};

use super::expressions::{self, Condition, Facts};
use super::matching::Matching;
use super::outside::Reinvocation;
use super::request::Request;
use super::times::Called;
use crate::audit::policy::Level;
use crate::registry::Served;
use crate::trace::{self, Kind};
use crate::webhook::Webhook;

/// Validating webhooks called at once for one request.
const PARALLEL: usize = 16;
/// Warnings of one answer that are passed on, and their length.
const MAX_WARNINGS: usize = 16;
const WARNING_MAX_CHARS: usize = 256;
const REVIEW: &str = "AdmissionReview";

/// One webhook of a configuration.
pub struct Hook {
    /// `CONFIGURATION/WEBHOOK`
    id: String,
    configuration: String,
    name: String,
    matching: Matching,
    conditions: Vec<Condition>,
    ignores_failure: bool,
    again_if_needed: bool,
    timeout: Duration,
    /// Of AdmissionReview.
    api_version: &'static str,
    target: Result<Webhook, String>,
}

/// A configuration's webhooks, in their order.
pub fn read(configuration: &Value) -> Vec<Hook> {
    let of = crate::metadata::name(configuration);
    configuration.array_at(&["webhooks"]).iter().map(|hook| Hook::new(of, hook)).collect()
}

/// What is wrong with a configuration's expressions.
pub fn check(configuration: &Value, errors: &mut Errors) {
    let env = expressions::environment(false, true);
    for (i, hook) in configuration.array_at(&["webhooks"]).iter().enumerate() {
        expressions::conditions(hook, &env, &Path::new("webhooks").index(i), errors);
    }
}

/// What a webhook answered.
#[derive(Debug, PartialEq)]
struct Answer {
    allowed: bool,
    /// A JSON patch.
    patch: Option<Value>,
    warnings: Vec<String>,
    /// For the audit event.
    annotations: Vec<(String, String)>,
    /// The `status` of a refusal.
    status: Value,
}

enum Failure {
    /// The webhook was not reached, or answered nonsense.
    Call(String),
    Refused(Status),
}

impl Hook {
    fn new(configuration: &str, hook: &Value) -> Hook {
        let name = hook.str_at(&["name"]).unwrap_or_default();
        let versions = hook.array_at(&["admissionReviewVersions"]);
        let known = versions.iter().find_map(|v| match v.as_str() {
            Some("v1") => Some("admission.k8s.io/v1"),
            Some("v1beta1") => Some("admission.k8s.io/v1beta1"),
            _ => None,
        });
        let env = expressions::environment(false, true);
        Hook {
            id: format!("{configuration}/{name}"),
            configuration: configuration.to_string(),
            name: name.to_string(),
            matching: Matching::of_webhook(hook),
            conditions: expressions::conditions(hook, &env, &Path::default(), &mut Errors::new()),
            ignores_failure: hook.str_at(&["failurePolicy"]) == Some("Ignore"),
            again_if_needed: hook.str_at(&["reinvocationPolicy"]) == Some("IfNeeded"),
            timeout: Duration::from_secs(hook.int_at(&["timeoutSeconds"]).unwrap_or(10).clamp(1, 30) as u64),
            api_version: known.unwrap_or("admission.k8s.io/v1"),
            target: Webhook::new(&hook["clientConfig"]),
        }
    }

    /// The version in which the webhook is to see the request; `None` when it is not to see it.
    async fn applies(
        &self,
        request: &Request<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Arc<Served>>, Status> {
        let Some(served) = self.matching.matched(request, new, old) else { return Ok(None) };
        if self.conditions.is_empty() {
            return Ok(Some(served));
        }
        let facts = Facts::new(request, &served, new, old).await?;
        match expressions::hold(&self.conditions, &facts, &Value::Null) {
            Ok(holds) => Ok(holds.then_some(served)),
            Err(_) if self.ignores_failure => Ok(None),
            Err(why) => Err(request.review.forbidden(why)),
        }
    }

    /// Asks the webhook; `None` when it failed and that does not matter. `place` is its own in the audit event.
    async fn ask(
        &self,
        request: &Request<'_>,
        served: &Served,
        new: Option<&Value>,
        old: Option<&Value>,
        (round, index): (usize, usize),
        mutating: bool,
    ) -> Result<Option<Answer>, Status> {
        let (review, began) = (request.review, Instant::now());
        let answer = self.call(request, served, new, old, mutating).await;
        let (code, failed) = match &answer {
            Ok(_) => (200, false),
            Err(Failure::Refused(status)) => (status.code, false),
            Err(Failure::Call(_)) => (503, true),
        };
        let (operation, rejected) = (review.operation, answer.is_err() && !(failed && self.ignores_failure));
        let took = began.elapsed();
        review.call.note_elsewhere(took);
        let called = Called { name: &self.name, operation, mutating, code, failed, rejected, took };
        review.shared.metrics.admission.called(&called);
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::Refused(status)) => Err(status),
            Err(Failure::Call(why)) if self.ignores_failure => {
                let phase = if mutating { "mutation" } else { "validating" };
                let key = format!("failed-open.{phase}.webhook.admission.k8s.io/round_{round}_index_{index}");
                request.review.call.annotate(key, self.name.as_str());
                tracing::warn!("failed calling webhook {:?}, whose failure policy is Ignore: {why}", self.name);
                Ok(None)
            }
            Err(Failure::Call(why)) => Err(Status::internal(format!("failed calling webhook {:?}: {why}", self.name))),
        }
    }

    async fn call(
        &self,
        request: &Request<'_>,
        served: &Served,
        new: Option<&Value>,
        old: Option<&Value>,
        mutating: bool,
    ) -> Result<Answer, Failure> {
        let target = self.target.as_ref().map_err(|e| Failure::Call(format!("could not get REST client: {e}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let mut asked = request.value(served);
        asked.set(&["uid"], uid.as_str());
        for (member, document) in [("object", new), ("oldObject", old)] {
            // Compat: whatever the failure policy says, as upstream: it is not the webhook that failed.
            let shown = request.shown(served, document).await;
            let shown = shown.map_err(|status| Failure::Refused(Status::internal(status.message)))?;
            asked.set(&[member], shown.into_owned());
        }
        let mut review = json!({"kind": REVIEW, "apiVersion": self.api_version});
        review.set(&["request"], asked);
        let name = if mutating { "Call mutating webhook" } else { "Call validating webhook" };
        let span = trace::open(name, Kind::Internal, || {
            let info = &served.info;
            let resource = format!("{}/{}, Resource={}", info.group, info.version, info.plural);
            let review = request.review;
            let texts = [
                ("configuration", &*self.configuration),
                ("webhook", &*self.name),
                ("UID", &*uid),
                ("operation", review.operation.as_str()),
                ("resource", &*resource),
                ("subresource", review.subresource),
            ];
            texts.map(|(name, value)| (name, value.to_string())).to_vec()
        });
        let answer = trace::within(span, target.call(request.review.shared, &review, self.timeout)).await;
        let answer = answer.map_err(|e| Failure::Call(format!("failed to call webhook: {e}")))?;
        let answer = verify(&answer, self.api_version, &uid, mutating)
            .map_err(|e| Failure::Call(format!("received invalid webhook response: {e}")))?;
        for warning in &answer.warnings {
            request.review.call.warn(warning.as_str());
        }
        for (key, value) in &answer.annotations {
            request.review.call.annotate(format!("{}/{key}", self.name), value.as_str());
        }
        if answer.allowed { Ok(answer) } else { Err(Failure::Refused(refusal(&self.name, &answer.status))) }
    }

    /// Whether the webhook changed the document.
    async fn mutate(
        &self,
        request: &Request<'_>,
        served: &Served,
        new: Option<&mut Value>,
        old: Option<&Value>,
        place: (usize, usize),
    ) -> Result<bool, Status> {
        let answer = self.ask(request, served, new.as_deref(), old, place, true).await?;
        let Some(answer) = answer else { return Ok(false) };
        let Some(patch) = answer.patch.filter(|p| !p.is_empty()) else {
            self.note_mutation(request, place, None, false);
            return Ok(false);
        };
        let Some(new) = new else {
            let why = "attempted to modify the object, which is not supported for this operation";
            return Err(Status::internal(format!("admission webhook {:?} {why}", self.name)));
        };
        let mut shown = request.shown(served, Some(new)).await?.into_owned();
        patch::json_patch(&mut shown, &patch).map_err(Status::internal)?;
        let taken = request.taken(served, shown, new).await?;
        let changed = taken != *new;
        *new = taken;
        self.note_mutation(request, place, Some(&patch), changed);
        Ok(changed)
    }

    /// Source: the page "Dynamic Admission Control", mutating webhook auditing annotations.
    fn note_mutation(&self, request: &Request, (round, index): (usize, usize), patch: Option<&Value>, mutated: bool) {
        let call = request.review.call;
        let Some(entry) = &call.audit else { return };
        let mut note = json!({"configuration": self.configuration.as_str(), "webhook": self.name.as_str()});
        let place = format!("webhook.admission.k8s.io/round_{round}_index_{index}");
        if let (Some(patch), true) = (patch, entry.level() >= Level::Request) {
            note.set(&["patch"], patch.clone());
            note.set(&["patchType"], "JSONPatch");
            call.annotate(format!("patch.{place}"), note.to_string());
            note.remove(&["patch"]);
            note.remove(&["patchType"]);
        }
        note.set(&["mutated"], mutated);
        call.annotate(format!("mutation.{place}"), note.to_string());
    }
}

/// Calls the mutating webhooks; on the second time around only those that have to see the document again.
pub async fn mutate(
    hooks: &[Arc<Vec<Hook>>],
    request: &Request<'_>,
    mut new: Option<&mut Value>,
    old: Option<&Value>,
    again: &mut Reinvocation,
) -> Result<(), Status> {
    again.begin(new.as_deref());
    for (index, hook) in hooks.iter().flat_map(|c| c.iter()).enumerate() {
        if !again.wants(&hook.id) {
            continue;
        }
        let Some(served) = hook.applies(request, new.as_deref(), old).await? else { continue };
        let place = (usize::from(again.second), index);
        let changed = hook.mutate(request, &served, new.as_deref_mut(), old, place).await?;
        again.called(&hook.id, hook.again_if_needed, changed);
    }
    again.end(new.as_deref());
    Ok(())
}

/// Calls the validating webhooks side by side. The first refusal, in their order, is the answer.
pub async fn validate(
    hooks: &[Arc<Vec<Hook>>],
    request: &Request<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut meant = Vec::new();
    for hook in hooks.iter().flat_map(|c| c.iter()) {
        if let Some(served) = hook.applies(request, new, old).await? {
            meant.push((hook, served));
        }
    }
    let mut calls = Vec::new();
    for (index, (hook, served)) in meant.iter().enumerate() {
        calls.push(hook.ask(request, served, new, old, (0, index), false));
    }
    stream::iter(calls).buffered(PARALLEL).try_for_each(|_| std::future::ready(Ok(()))).await
}

/// Reads an AdmissionReview that answers the one of this `uid`.
fn verify(review: &Value, api_version: &str, uid: &str, mutating: bool) -> Result<Answer, String> {
    let Some(response @ Value::Object(_)) = review.get("response") else {
        return Err("webhook response was absent".into());
    };
    // Compat: reviews of v1beta1 need not repeat these.
    if api_version == "admission.k8s.io/v1" {
        let found = response.str_at(&["uid"]).unwrap_or_default();
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let text = |member: &str| review.str_at(&[member]).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if (version, kind) != (api_version, REVIEW) {
            let version = if version.contains('/') { version.to_string() } else { format!("/{version}") };
            return Err(format!(
                "expected webhook response of {api_version}, Kind={REVIEW}, got {version}, Kind={kind}"
            ));
        }
    }
    let patch = response.str_at(&["patch"]).unwrap_or_default();
    let ty = response.str_at(&["patchType"]);
    match (patch.is_empty(), ty, mutating) {
        (true, None, _) => {}
        (false, _, false) => return Err("validating webhook may not return response.patch".into()),
        (true, Some(_), false) => return Err("validating webhook may not return response.patchType".into()),
        (false, None, true) => return Err("webhook returned response.patch but not response.patchType".into()),
        (true, Some(_), true) => return Err("webhook returned response.patchType but not response.patch".into()),
        (false, Some("JSONPatch"), true) => {}
        (false, Some(ty), true) => return Err(format!("webhook returned invalid response.patchType of {ty:?}")),
    }
    let patch = if patch.is_empty() {
        None
    } else {
        let bytes = STANDARD.decode(patch).map_err(|e| format!("response.patch: {e}"))?;
        Some(meta::parse(&bytes).map_err(|e| format!("response.patch: {e}"))?)
    };
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flat_map(|a| a.iter());
    let annotations = annotations.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_string())));
    let warnings = response.array_at(&["warnings"]).iter().filter_map(Value::as_str).take(MAX_WARNINGS);
    Ok(Answer {
        allowed: response.bool_at(&["allowed"]).unwrap_or(false),
        patch,
        annotations: annotations.collect(),
        warnings: warnings.map(|w| w.chars().take(WARNING_MAX_CHARS).collect()).collect(),
        status: response.get("status").cloned().unwrap_or_default(),
    })
}

/// What a refusal is to the client.
fn refusal(name: &str, status: &Value) -> Status {
    let text = |member: &str| status.str_at(&[member]).unwrap_or_default();
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    // Compat: a refusal never has a code of success (admission webhooks' documentation).
    let code = status.int_at(&["code"]).and_then(|c| u16::try_from(c).ok()).unwrap_or_default();
    Status::new(code.clamp(400, 599), Reason::named(text("reason")), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        for (status, want) in [
            (Value::Null, r#"400  admission webhook "a.b.c" denied the request without explanation"#),
            (
                json!({"code": 403, "message": "no", "reason": "Forbidden"}),
                r#"403 Forbidden admission webhook "a.b.c" denied the request: no"#,
            ),
            (json!({"code": 200, "reason": "Odd"}), r#"400  admission webhook "a.b.c" denied the request: Odd"#),
        ] {
            let found = refusal("a.b.c", &status);
            assert_eq!(format!("{} {} {}", found.code, found.reason.as_str(), found.message), want);
        }
    }

    #[test]
    fn answers_are_verified() {
        golden::check!("webhook_answers.txt", |case| {
            let (kind, response) = case.split_once(' ').expect("a kind and a response");
            let mut review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"});
            match kind {
                "odd" => review = json!({"kind": "X", "response": {"uid": "u"}}),
                _ => review.set(&["response"], meta::parse(response.as_bytes()).expect("JSON")),
            }
            let found = verify(&review, "admission.k8s.io/v1", "u", kind == "mutating");
            found.map_or_else(|why| why, |_| "verified".into())
        });
    }
}
