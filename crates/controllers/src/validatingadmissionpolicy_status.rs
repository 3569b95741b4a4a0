//! Says in the status of ValidatingAdmissionPolicies which of their expressions do not fit the kinds that they are for.
//! Reads: ValidatingAdmissionPolicy. Writes: its status. Invariant: each generation is checked once, against built-in kinds only.
//! Source: the page "Validating Admission Policy", Type checking.

use std::collections::{BTreeMap, BTreeSet};

use api::openapi::{self, Docs};
use api::resource::{self, Resource};
use cel::Decl;
use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meta::Value;
use serde_json::json;

use crate::context::{Ctx, During, Error, Result, Work};

/// Kinds that are looked at for one policy, the first in the order of group, version and kind.
const KINDS_MAX: usize = 10;

struct Controller {
    ctx: Ctx,
    policies: Informer<ValidatingAdmissionPolicy>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let policies = ctx.informers.of::<ValidatingAdmissionPolicy>();
    let mut work = Work::new(&ctx);
    work.watch_own(&policies);
    let this = Controller { ctx, policies };
    work.start(1, this, |this, key| Box::pin(this.reconcile(key)))
}

/// Group, version and kind of what a policy's rules name without wildcards.
fn kinds(policy: &Value) -> BTreeSet<(&'static str, &'static str, &'static str)> {
    let mut found = BTreeSet::new();
    for rule in policy.array_at(&["spec", "matchConstraints", "resourceRules"]) {
        let has = |member: &str, what: &str| rule.array_at(&[member]).iter().any(|one| one.as_str() == Some(what));
        let named =
            |r: &&Resource| has("apiGroups", &r.group) && has("apiVersions", &r.version) && has("resources", &r.plural);
        found.extend(resource::all().iter().filter(named).map(|r| (&*r.group, &*r.version, &*r.kind)));
    }
    found.into_iter().take(KINDS_MAX).collect()
}

/// `apps/v1, Kind=Deployment`
fn shown(group: &str, version: &str, kind: &str) -> String {
    format!("{}, Kind={kind}", [group, version].join("/").trim_start_matches('/'))
}

/// Kinds' declarations; OpenAPI documents are made once per group version.
#[derive(Default)]
struct Declarations(BTreeMap<String, Value>);

impl Declarations {
    fn of(&mut self, group: &str, version: &str, kind: &str) -> Option<Decl> {
        let root = &resource::find_kind(group, version, kind)?.type_name;
        let document = self.0.entry(format!("{group}/{version}")).or_insert_with(|| {
            let made = openapi::v3(resource::all(), group, version, &Docs::default());
            made.and_then(|bytes| meta::parse(&bytes).ok()).unwrap_or_default()
        });
        let schemas = document["components"]["schemas"].as_object()?;
        Decl::from_openapi(schemas.get(root)?, kind, false, &|reference| schemas.get(reference.rsplit('/').next()?))
    }
}

fn warnings(policy: &Value) -> Vec<Value> {
    let mut declarations = Declarations::default();
    let declared = |(group, version, kind)| Some((shown(group, version, kind), declarations.of(group, version, kind)?));
    let kinds: Vec<(String, Decl)> = kinds(policy).into_iter().filter_map(declared).collect();
    let text = |member: &str| policy.str_at(&["spec", "paramKind", member]).unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let params = declarations.of(group, version, text("kind"));
    cel::admission::type_check(policy, &kinds, params.as_ref())
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(policy) = self.policies.get_key(key) else { return Ok(Action::Done) };
        let seen = policy.status.as_ref().and_then(|status| status.observed_generation);
        if seen >= policy.metadata.generation {
            return Ok(Action::Done);
        }
        let document = serde_json::to_vec(policy.as_ref()).map_err(|e| Error::Other(e.to_string()))?;
        let document = meta::parse(&document).map_err(|e| Error::Other(e.to_string()))?;
        let mut checked = json!({});
        let warnings = warnings(&document);
        if !warnings.is_empty() {
            checked["expressionWarnings"] = json!(warnings);
        }
        let patch = json!({"metadata": {"resourceVersion": policy.metadata.resource_version},
            "status": {"observedGeneration": policy.metadata.generation, "typeChecking": checked}});
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.ctx.client.clone());
        let done = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.unless_changed(|| format!("cannot write the status of policy {}", key.name)).map(|_| Action::Done)
    }
}
