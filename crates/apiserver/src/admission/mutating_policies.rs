//! MutatingAdmissionPolicy: expressions that change a write, as an apply configuration or as a JSON patch.
//!
//! Reads: policies, bindings and their parameters. Invariants: each mutation sees what those before it made; what cannot
//! be applied refuses the write, unless the policy's `failurePolicy` is Ignore.

use std::sync::{Arc, LazyLock};

use cel::{Budget, Decl, Expect, Program, Type};
use meta::apply::{self, Writer};
use meta::field::{Errors, Path};
use meta::{Status, Value, patch, time};

use super::expressions::{self, Facts};
use super::outside::Reinvocation;
use super::policies::{Binding, Rules};
use super::request::Request;
use crate::registry::Served;

/// Owns what is applied while the merge is worked out; its ownership is not kept.
const MANAGER: &str = "mutating-admission-policy";

static JSON_PATCH: LazyLock<Decl> = LazyLock::new(|| {
    let text = ["op", "path", "from"].map(|field| (field.to_string(), Decl::from(Type::String)));
    Decl::object("JSONPatch", text.into_iter().chain([("value".to_string(), Type::Dyn.into())]))
});

pub struct Policy {
    rules: Rules,
    mutations: Vec<Mutation>,
    again_if_needed: bool,
    /// An expression is at fault, in an object that was stored without being checked.
    fault: Option<String>,
}

struct Mutation {
    text: String,
    program: Program,
    /// A JSON patch, not an apply configuration.
    patches: bool,
}

/// Reads a policy; what is wrong with its expressions goes to `errors`, which are empty before.
pub fn read(policy: &Value, errors: &mut Errors) -> Policy {
    let (rules, env) = Rules::read(policy, errors);
    let env = env.mutation(&JSON_PATCH);
    let (spec, at) = (&policy["spec"], Path::new("spec"));
    let mut mutations = Vec::new();
    for (i, mutation) in spec.array_at(&["mutations"]).iter().enumerate() {
        let at = at.child("mutations").index(i);
        let (member, patches, expect) = match mutation.str_at(&["patchType"]).unwrap_or_default() {
            "JSONPatch" => ("jsonPatch", true, Type::list(JSON_PATCH.cel_type())),
            "ApplyConfiguration" => ("applyConfiguration", false, Decl::object("Object", []).cel_type()),
            // The kind itself says so, and what is missing next.
            _ => continue,
        };
        if mutation[member].is_null() {
            continue;
        }
        let text = mutation.str_at(&[member, "expression"]).unwrap_or_default();
        let path = at.child(member).child("expression");
        if let Some(program) = expressions::compile(&env, (text, ""), Expect::Type(expect), &path, errors) {
            mutations.push(Mutation { text: text.to_string(), program, patches });
        }
    }
    let again_if_needed = spec.str_at(&["reinvocationPolicy"]) == Some("IfNeeded");
    Policy { rules, mutations, again_if_needed, fault: errors.first().map(ToString::to_string) }
}

/// Applies all policies; on the second time around only those that have to see the document again.
pub async fn mutate(
    policies: &[Arc<Policy>],
    bindings: &[Arc<Binding>],
    request: &Request<'_>,
    new: &mut Value,
    old: Option<&Value>,
    again: &mut Reinvocation,
) -> Result<(), Status> {
    again.begin(Some(new));
    for policy in policies {
        for binding in bindings.iter().filter(|b| b.policy == policy.rules.name) {
            let id = format!("{}/{}", policy.rules.name, binding.name);
            if !again.wants(&id) {
                continue;
            }
            let Some(served) = policy.rules.matching.matched(request, Some(new), old) else { continue };
            match policy.apply(binding, request, &served, new, old).await {
                Ok(Some(changed)) => {
                    let differs = changed != *new;
                    *new = changed;
                    again.called(&id, policy.again_if_needed, differs);
                }
                Ok(None) => {}
                Err(why) if policy.rules.ignores_failure => {
                    tracing::debug!("mutating policy {:?} is left out: {why}", policy.rules.name);
                }
                Err(why) => {
                    let (policy, binding) = (&policy.rules.name, &binding.name);
                    return Err(request.review.forbidden(format!(
                        "admission request denied by policy: policy '{policy}' with binding '{binding}' denied request: \
                         {why}"
                    )));
                }
            }
        }
    }
    again.end(Some(new));
    Ok(())
}

impl Policy {
    /// The document with the binding's mutations; `None` when it is not meant.
    async fn apply(
        &self,
        binding: &Binding,
        request: &Request<'_>,
        served: &Served,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let Some(params) = binding.params(&self.rules, request, Some(new), old)? else { return Ok(None) };
        if let Some(why) = &self.fault {
            return Err(format!("failed to configure policy: {why}"));
        }
        let mut document = new.clone();
        for params in params {
            let facts = Facts::new(request, served, Some(&document), old).await.map_err(|status| status.message)?;
            if !self.rules.hold(&facts, &params)? {
                continue;
            }
            drop(facts);
            let mut budget = Budget::default();
            for mutation in &self.mutations {
                let made = {
                    let facts = Facts::new(request, served, Some(&document), old).await;
                    let facts = facts.map_err(|status| status.message)?;
                    let bindings = self.rules.bindings(&facts, &params);
                    let made = mutation.program.run(&bindings, &mut budget).and_then(|value| value.to_value());
                    made.map_err(|error| expressions::failure(&mutation.text, &error))?
                };
                document = mutation.put(request, served, document, made).await?;
            }
        }
        Ok(Some(document))
    }
}

impl Mutation {
    async fn put(&self, request: &Request<'_>, served: &Served, document: Value, made: Value) -> Result<Value, String> {
        let shown = request.shown(served, Some(&document)).await.map_err(|status| status.message)?;
        let mut shown = shown.into_owned();
        if self.patches {
            patch::json_patch(&mut shown, &made).map_err(|e| format!("JSON Patch: {e}"))?;
        } else {
            shown = merged(served, &shown, made)?;
        }
        request.taken(served, shown, &document).await.map_err(|status| status.message)
    }
}

/// The document with a configuration merged in as server-side apply would, and nobody's ownership changed.
fn merged(served: &Served, document: &Value, mut made: Value) -> Result<Value, String> {
    let Some(ty) = served.tracked() else {
        return Err(format!("{} cannot be applied by the server", served.gr));
    };
    for member in ["apiVersion", "kind"] {
        made.set(&[member], document.get(member).cloned().unwrap_or_default());
    }
    let now = time::now();
    let writer = Writer { manager: MANAGER, api_version: &served.api_version, subresource: "", now, other: None };
    let mut merged = apply::apply(ty, document, &made, &writer, true).map_err(|e| e.to_status().message)?;
    match document.at(&["metadata", "managedFields"]) {
        Some(fields) => merged.set(&["metadata", "managedFields"], fields),
        None => {
            merged.remove(&["metadata", "managedFields"]);
        }
    }
    Ok(merged)
}
