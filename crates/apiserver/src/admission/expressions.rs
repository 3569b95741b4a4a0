//! Expressions of admission: the variables that they see, match conditions, and the faults that refuse them.
//!
//! Reads requests; asks the authorizer. Invariant: an expression is compiled with the object that holds it, never while a
//! request waits, and runs within upstream's cost budgets.

use std::borrow::Cow;
use std::collections::HashSet;

pub use cel::admission::environment;
use cel::cost::MATCH_CONDITIONS_BUDGET;
use cel::{Bindings, Budget, Env, EvalError, Expect, Program};
use meta::field::{Error, Errors, Path};
use meta::{Status, Value, names};

use super::request::Request;
use crate::authn::SERVICE_ACCOUNT;
use crate::authz::Ask;
use crate::registry::Served;
use crate::shared::Shared;
use crate::user::User;

/// Upstream's bound on the match conditions of one webhook or policy.
const MAX_CONDITIONS: usize = 64;

/// Compiles the expression at `path`; an absent one is a fault too, told as `absent`.
pub fn compile(
    env: &Env,
    (text, absent): (&str, &str),
    expect: Expect,
    path: &Path,
    errors: &mut Errors,
) -> Option<Program> {
    if text.trim().is_empty() {
        errors.push(Error::required(path, absent));
        return None;
    }
    let compiled = env.compile(text, expect);
    compiled.map_err(|why| errors.push(why.told(text, path))).ok()
}

/// One of `matchConditions`.
pub struct Condition {
    text: String,
    program: Program,
}

/// Reads `matchConditions`, of which the ones at fault are left out.
pub fn conditions(holder: &Value, env: &Env, at: &Path, errors: &mut Errors) -> Vec<Condition> {
    let all = holder.array_at(&["matchConditions"]);
    let at = at.child("matchConditions");
    if all.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(&at, all.len(), MAX_CONDITIONS));
    }
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for (i, condition) in all.iter().enumerate() {
        let at = at.index(i);
        let text = condition.str_at(&["expression"]).unwrap_or_default();
        if let Some(program) = compile(env, (text, ""), Expect::Bool, &at.child("expression"), errors) {
            found.push(Condition { text: text.to_string(), program });
        }
        let name = condition.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            let wrong = names::qualified_name(name);
            errors.extend(wrong.into_iter().map(|why| Error::invalid(&at.child("name"), name, why)));
        }
        if !known.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
    }
    found
}

/// An evaluation's failure, in upstream's words.
pub fn failure(text: &str, error: &EvalError) -> String {
    match error {
        EvalError::Budget => error.to_string(),
        _ => format!("expression '{text}' resulted in error: {error}"),
    }
}

/// Whether all conditions hold. One that does not settles it; failures count only when there is none.
pub fn hold(conditions: &[Condition], facts: &Facts, params: &Value) -> Result<bool, String> {
    let bindings = facts.bindings().document("params", params);
    let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
    let mut failures = Vec::new();
    for Condition { text, program } in conditions {
        match program.run(&bindings, &mut budget).and_then(|value| value.as_bool()) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failures.push(failure(text, &error)),
        }
    }
    match failures.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// The values of the variables.
pub struct Facts<'a> {
    pub object: Cow<'a, Value>,
    pub old: Cow<'a, Value>,
    pub request: Value,
    pub namespace: Value,
    asker: Asker<'a>,
    check: cel::Check,
}

impl<'a> Facts<'a> {
    pub async fn new(
        request: &Request<'a>,
        served: &Served,
        new: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Result<Facts<'a>, Status> {
        let review = request.review;
        let namespace = match &request.namespace {
            Some(namespace) => namespace.document_without_owners(),
            None => Value::Null,
        };
        let check = cel::Check {
            group: Some(served.info.group.to_string()),
            resource: Some(served.info.plural.to_string()),
            subresource: review.subresource.to_string(),
            namespace: review.namespace.clone(),
            name: review.name.clone(),
            ..cel::Check::default()
        };
        Ok(Facts {
            object: request.shown(served, new).await?,
            old: request.shown(served, old).await?,
            request: request.value(served),
            namespace,
            asker: Asker { shared: review.shared, user: &review.call.user },
            check,
        })
    }

    pub fn bindings(&self) -> Bindings<'_> {
        Bindings::new()
            .document("object", &self.object)
            .document("oldObject", &self.old)
            .document("request", &self.request)
            .document("namespaceObject", &self.namespace)
            .authorizer(&self.asker, self.check.clone())
    }
}

/// Answers what expressions ask of `authorizer`.
struct Asker<'a> {
    shared: &'a Shared,
    user: &'a User,
}

impl cel::Authorizer for Asker<'_> {
    fn authorize(&self, check: &cel::Check, verb: &str) -> cel::Decision {
        let account = check.service_account.as_ref().map(|(namespace, name)| {
            let groups = ["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
            User::new(format!("{SERVICE_ACCOUNT}{namespace}:{name}"), groups)
        });
        let user = account.as_deref().unwrap_or(self.user);
        let method = verb.to_ascii_uppercase();
        let ask = match &check.path {
            Some(path) => Ask::Path { method: &method, path },
            None => Ask::Review {
                verb,
                group: check.group.as_deref().unwrap_or_default(),
                resource: check.resource.as_deref().unwrap_or_default(),
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
            },
        };
        let decision = self.shared.authorizer.decide(user, &ask);
        cel::Decision { allowed: decision.allowed, reason: decision.reason, error: None }
    }
}
