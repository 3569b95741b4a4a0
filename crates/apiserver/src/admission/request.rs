//! A write as webhooks and policies see it: in the version that their rules name, with everything that is known of it.
//!
//! Reads: the call, the namespace. Invariant: what comes back from a webhook is of the kind that it was given, without
//! unknown fields, with defaults filled in, and in the namespace that the request was for.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use meta::{Status, Value, json};

use super::{Operation, Review};
use crate::custom::conversion;
use crate::object::Object;
use crate::registry::Served;
use crate::{decode, metadata, sub};

pub struct Request<'a> {
    pub review: &'a Review<'a>,
    /// The version that was asked for.
    pub requested: Arc<Served>,
    /// The namespace, of what is in one.
    pub namespace: Option<Arc<Object>>,
    equivalents: OnceLock<Vec<Arc<Served>>>,
    /// What was asked of a conversion webhook already: many may look at one object.
    conversions: Mutex<Vec<Converted>>,
}

struct Converted {
    from: Value,
    /// In another version.
    to: Value,
}

/// The object and the old one, in two versions.
const CONVERSIONS_KEPT: usize = 4;

impl<'a> Request<'a> {
    pub async fn new(review: &'a Review<'a>) -> Result<Request<'a>, Status> {
        let call = review.call;
        let requested = if Arc::ptr_eq(review.served, &call.target) { &call.served } else { review.served };
        let namespace = match requested.namespaced && !review.namespace.is_empty() {
            true => review.shared.namespace(&review.namespace).await?,
            false => None,
        };
        Ok(Request {
            review,
            requested: requested.clone(),
            namespace,
            equivalents: OnceLock::new(),
            conversions: Mutex::default(),
        })
    }

    /// The other versions of the resource: those that are stored in the same place.
    pub fn equivalents(&self) -> &[Arc<Served>] {
        self.equivalents.get_or_init(|| {
            let (own, registry) = (&self.requested, &self.review.shared.registry);
            let all = registry.resources();
            let others = all.iter().filter(|r| {
                r.plural == own.info.plural && (&r.group, &r.version) != (&own.info.group, &own.info.version)
            });
            let others = others.filter_map(|r| registry.find(&r.group, &r.version, &r.plural));
            others.filter(|served| served.prefix == own.prefix).collect()
        })
    }

    /// Group, version and kind of the body.
    fn kind(&self, served: &Served) -> [String; 3] {
        match served.info.subresource(self.review.subresource) {
            Some(sub) => [sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()],
            None => [&served.info.group, &served.info.version, &served.info.kind].map(|t| t.to_string()),
        }
    }

    /// As `admission.k8s.io/v1` AdmissionRequest, without the objects.
    pub fn value(&self, served: &Served) -> Value {
        let review = self.review;
        let kind = |served: &Served| {
            let [group, version, kind] = self.kind(served);
            json!({"group": group, "version": version, "kind": kind})
        };
        let resource = |served: &Served| {
            let info = &served.info;
            json!({"group": &*info.group, "version": &*info.version, "resource": &*info.plural})
        };
        let mut value = json!({
            "kind": kind(served), "resource": resource(served),
            "requestKind": kind(&self.requested), "requestResource": resource(&self.requested),
            "operation": review.operation.as_str(), "userInfo": review.call.user.to_value(), "dryRun": review.dry_run,
            "options": self.options(),
        });
        for (member, text) in [
            ("subResource", review.subresource),
            ("requestSubResource", review.subresource),
            ("name", &review.name),
            ("namespace", &review.namespace),
        ] {
            if !text.is_empty() {
                value.set(&[member], text);
            }
        }
        value
    }

    /// The options that the client gave.
    fn options(&self) -> Value {
        let review = self.review;
        let kind = match review.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if review.dry_run {
            options.set(&["dryRun"], vec!["All"]);
        }
        match review.deletion {
            Some(deletion) => deletion.write_to(&mut options),
            None => {
                for member in ["fieldManager", "fieldValidation"] {
                    let text = review.call.query.get(member);
                    if !text.is_empty() {
                        options.set(&[member], text);
                    }
                }
            }
        }
        options
    }

    fn is_scale(&self) -> bool {
        self.review.subresource == "scale"
    }

    /// A document in this version; null when there is none. Custom resources may be converted by a webhook, which may fail.
    pub async fn shown<'v>(&self, served: &Served, document: Option<&'v Value>) -> Result<Cow<'v, Value>, Status> {
        Ok(match (document, &served.conversion) {
            (None, _) => Cow::Owned(Value::Null),
            (Some(document), _) if self.is_scale() => {
                Cow::Owned(sub::scale_in(self.review.call, document).unwrap_or_default())
            }
            (Some(document), None) if served.custom.is_some() && self.requested.api_version != served.api_version => {
                Cow::Owned(self.converted(served, document).await?)
            }
            (Some(document), None) => Cow::Borrowed(document),
            (Some(document), Some(conversion)) => {
                let mut document = document.clone();
                conversion.to_served(&mut document);
                Cow::Owned(document)
            }
        })
    }

    /// A custom resource in another version.
    async fn converted(&self, served: &Served, document: &Value) -> Result<Value, Status> {
        let kept = || self.conversions.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |c: &&Converted| c.to.str_at(&["apiVersion"]) == Some(&served.api_version) && c.from == *document;
        if let Some(known) = kept().iter().find(same) {
            return Ok(known.to.clone());
        }
        let mut documents = [document.clone()];
        // Boxed, so that every write need not have room for it.
        Box::pin(conversion::convert(self.review.shared, served, &mut documents, &served.api_version)).await?;
        let [mut converted] = documents;
        if let Some(custom) = &served.custom {
            // What the webhook made up is no field of the kind.
            let _ = custom.shape.strip(&mut converted);
        }
        let mut kept = kept();
        if kept.len() == CONVERSIONS_KEPT {
            kept.remove(0);
        }
        kept.push(Converted { from: document.clone(), to: converted.clone() });
        Ok(converted)
    }

    /// What a webhook made of a document that was shown in this version, as it takes the place of `was`.
    pub async fn taken(&self, served: &Served, mut changed: Value, was: &Value) -> Result<Value, Status> {
        let [group, version, kind] = self.kind(served);
        let own = kind == served.kind && *group == *served.info.group;
        let stripped = if own {
            served.strip(&mut changed)
        } else {
            let group_version = [group.as_str(), &version].join("/");
            let ty = api::resource::root_type(&group, &version, &kind);
            decode::strip(&mut changed, group_version.trim_start_matches('/'), &kind, ty)
        };
        stripped.map_err(|e| Status::internal(e.status(&version, &kind)))?;
        if let Some(ty) = served.tracked().filter(|_| own) {
            meta::apply::forget_empty_lists(ty, &mut changed);
        }
        if self.is_scale() {
            let mut workload = was.clone();
            let custom = self.requested.custom.as_ref().and_then(|c| c.scale.as_ref());
            let path = custom.map(|s| s.spec.iter().map(String::as_str).collect());
            workload.set(
                &path.unwrap_or_else(|| vec!["spec", "replicas"]),
                changed.int_at(&["spec", "replicas"]).unwrap_or(0),
            );
            return Ok(workload);
        }
        if own {
            if let Some(conversion) = &served.conversion {
                conversion.to_stored(&mut changed);
            }
            let kept = self.review.served;
            if kept.custom.is_some() && kept.api_version != served.api_version {
                changed = self.converted(kept, &changed).await?;
            }
            changed.set(&["apiVersion"], &kept.api_version);
            kept.defaults(&mut changed);
        }
        if metadata::namespace(&changed) != metadata::namespace(was) {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        for member in ["name", "uid"] {
            let path = ["metadata", member];
            if self.review.operation == Operation::Update && changed.at(&path) != was.at(&path) {
                return Err(Status::internal(format!("admission may not change metadata.{member} of an object")));
            }
        }
        Ok(changed)
    }
}
