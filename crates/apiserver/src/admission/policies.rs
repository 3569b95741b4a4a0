//! ValidatingAdmissionPolicy: expressions that a write has to satisfy, where a binding says so.
//!
//! Reads: policies, bindings and their parameters. Changes nothing. Invariants: what a failure means is the policy's
//! `failurePolicy`, what a violation means is the binding's `validationActions`; all expressions of one binding share
//! upstream's cost budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Bindings, Budget, Decl, Env, EvalError, Expect, Program, Val};
use meta::field::{Error, Errors, Path};
use meta::status::{Cause, Reason};
use meta::{Status, Value, json};

use super::expressions::{self, Condition, Facts};
use super::matching::Matching;
use super::params::{self, ParamKind, ParamRef};
use super::request::Request;

/// Bytes of a message that an expression may make.
const MESSAGE_MAX_BYTES: usize = 5 * 1024;

const NO_EXPRESSION: &str = "expression is not specified";

/// What validating and mutating policies share.
pub struct Rules {
    pub name: String,
    pub matching: Matching,
    pub ignores_failure: bool,
    pub params: Option<ParamKind>,
    conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
}

pub struct Policy {
    rules: Rules,
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
    /// An expression is at fault, in an object that was stored without being checked.
    fault: Option<String>,
}

/// An annotation of the audit event.
struct Annotation {
    key: String,
    text: String,
    program: Program,
}

struct Validation {
    text: String,
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: Reason,
}

pub struct Binding {
    pub name: String,
    pub policy: String,
    matching: Option<Matching>,
    params: Option<ParamRef>,
    actions: Vec<String>,
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.str_at(&[member]).unwrap_or_default().trim()
}

impl Rules {
    /// Reads what the kinds share, and the environment that their own expressions see.
    pub fn read(policy: &Value, errors: &mut Errors) -> (Rules, Env) {
        let (spec, at) = (&policy["spec"], Path::new("spec"));
        let params = ParamKind::read(&spec["paramKind"]);
        let mut env = expressions::environment(params.is_some(), true);
        let conditions = expressions::conditions(spec, &env, &at, errors);
        let mut variables: Vec<(String, Program)> = Vec::new();
        let mut fields: Vec<(String, Decl)> = Vec::new();
        env = env.variable("variables", Decl::object("kubernetes.variables", []));
        for (i, variable) in spec.array_at(&["variables"]).iter().enumerate() {
            let at = at.child("variables").index(i);
            let name = text(variable, "name");
            if name.is_empty() {
                errors.push(Error::required(&at.child("name"), "name is not specified"));
            } else if cel::escape(name).as_deref() != Some(name) {
                errors.push(Error::invalid(&at.child("name"), name, "must be a valid CEL identifier"));
            }
            if fields.iter().any(|(known, _)| known == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            let path = at.child("expression");
            let expression = (variable.str_at(&["expression"]).unwrap_or_default(), NO_EXPRESSION);
            let Some(program) = expressions::compile(&env, expression, Expect::Any, &path, errors) else { continue };
            fields.push((name.to_string(), program.result_type().clone().into()));
            // Each variable sees those before it.
            env = env.variable("variables", Decl::object("kubernetes.variables", fields.clone()));
            variables.push((name.to_string(), program));
        }
        let rules = Rules {
            name: crate::metadata::name(policy).to_string(),
            matching: Matching::of_policy(&spec["matchConstraints"], false),
            ignores_failure: text(spec, "failurePolicy") == "Ignore",
            params,
            conditions,
            variables,
        };
        (rules, env)
    }

    /// Whether the match conditions hold. `Err` is their failure.
    pub fn hold(&self, facts: &Facts, params: &Value) -> Result<bool, String> {
        expressions::hold(&self.conditions, facts, params)
    }

    /// The variables of one evaluation.
    pub fn bindings<'b>(&'b self, facts: &'b Facts, params: &'b Value) -> Bindings<'b> {
        let variables = self.variables.iter().map(|(name, program)| (name.as_str(), program));
        facts.bindings().document("params", params).programs("variables", variables)
    }
}

/// Reads a policy; what is wrong with its expressions goes to `errors`, which are empty before.
pub fn read(policy: &Value, errors: &mut Errors) -> Policy {
    let (rules, env) = Rules::read(policy, errors);
    // Compat: messages may not ask the authorizer (API documentation of messageExpression).
    let plain = expressions::environment(rules.params.is_some(), false);
    let fields = rules.variables.iter().map(|(name, program)| (name.clone(), program.result_type().clone().into()));
    let plain = plain.variable("variables", Decl::object("kubernetes.variables", fields));
    let (spec, at) = (&policy["spec"], Path::new("spec"));
    let mut validations = Vec::new();
    for (i, validation) in spec.array_at(&["validations"]).iter().enumerate() {
        let at = at.child("validations").index(i);
        let expression = validation.str_at(&["expression"]).unwrap_or_default();
        let program =
            expressions::compile(&env, (expression, NO_EXPRESSION), Expect::Bool, &at.child("expression"), errors);
        let message = validation.str_at(&["messageExpression"]).filter(|m| !m.trim().is_empty());
        let message_program = message.and_then(|m| {
            expressions::compile(&plain, (m, ""), Expect::String, &at.child("messageExpression"), errors)
        });
        let Some(program) = program else { continue };
        validations.push(Validation {
            text: expression.to_string(),
            program,
            message: text(validation, "message").to_string(),
            message_program,
            reason: match text(validation, "reason") {
                "" => Reason::Invalid,
                reason => Reason::named(reason),
            },
        });
    }
    let mut annotations = Vec::new();
    for (i, annotation) in spec.array_at(&["auditAnnotations"]).iter().enumerate() {
        let key = text(annotation, "key").to_string();
        let at = at.child("auditAnnotations").index(i).child("valueExpression");
        let expression = annotation.str_at(&["valueExpression"]).unwrap_or_default();
        let absent = "valueExpression is not specified";
        let Some(program) = expressions::compile(&env, (expression, absent), Expect::Any, &at, errors) else {
            continue;
        };
        if !matches!(program.result_type(), cel::Type::String | cel::Type::Null) {
            let detail = format!("must evaluate to one of [string null_type] but got {:#}", program.result_type());
            errors.push(Error::invalid(&at, expression, detail));
        }
        annotations.push(Annotation { key, text: expression.to_string(), program });
    }
    Policy { rules, validations, annotations, fault: errors.first().map(ToString::to_string) }
}

impl Binding {
    pub fn read(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        let matching = spec.get("matchResources").filter(|m| !m.is_null());
        let actions = spec.array_at(&["validationActions"]).iter().filter_map(Value::as_str);
        Binding {
            name: crate::metadata::name(binding).to_string(),
            policy: text(spec, "policyName").to_string(),
            matching: matching.map(|m| Matching::of_policy(m, true)),
            params: ParamRef::read(&spec["paramRef"]),
            actions: actions.map(str::to_string).collect(),
        }
    }

    /// The parameters to evaluate with, one after the other; `None` when the binding is not for this request.
    pub fn params(
        &self,
        rules: &Rules,
        request: &Request,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Vec<Value>>, String> {
        if self.matching.as_ref().is_some_and(|m| m.matched(request, new, old).is_none()) {
            return Ok(None);
        }
        params::collect(rules.params.as_ref(), self.params.as_ref(), request).map(Some)
    }
}

/// Evaluates all policies. The first violation that a binding does not only warn of is the answer; what the others warn of
/// and note in the audit log is said all the same.
pub async fn validate(
    policies: &[Arc<Policy>],
    bindings: &[Arc<Binding>],
    request: &Request<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut refused = None;
    let mut audited = Vec::new();
    for policy in policies {
        let bound: Vec<&Arc<Binding>> = bindings.iter().filter(|b| b.policy == policy.rules.name).collect();
        if bound.is_empty() {
            continue;
        }
        let Some(served) = policy.rules.matching.matched(request, new, old) else { continue };
        let facts = Facts::new(request, &served, new, old).await.map_err(|status| status.message);
        let mut notes = Notes::new();
        for binding in bound {
            let by = format!("'{}' with binding '{}'", policy.rules.name, binding.name);
            let params = match (&policy.fault, binding.params(&policy.rules, request, new, old)) {
                (_, Ok(None)) => continue,
                (Some(why), _) => Err(format!("failed to configure policy: {why}")),
                (None, Err(why)) => Err(format!("failed to configure binding: {why}")),
                (None, Ok(Some(params))) => facts.as_ref().map(|facts| (params, facts)).map_err(Clone::clone),
            };
            let (params, facts) = match params {
                Ok(ready) => ready,
                Err(why) if policy.rules.ignores_failure => {
                    tracing::debug!("policy {:?} is not evaluated: {why}", policy.rules.name);
                    continue;
                }
                Err(why) => {
                    refused.get_or_insert_with(|| denied(request, &by, &why, Reason::Invalid));
                    continue;
                }
            };
            for violation in params.iter().flat_map(|params| policy.violations(facts, params, &mut notes)) {
                let Violation { message, reason, index } = &violation;
                // Compat: an audit annotation that fails refuses the write whatever the actions.
                for action in binding.actions.iter().map(String::as_str).chain(index.is_none().then_some("Deny")) {
                    match action {
                        "Warn" => request
                            .review
                            .call
                            .warn(format!("Validation failed for ValidatingAdmissionPolicy {by}: {message}")),
                        "Audit" => audited.push(violation.to_value(policy, binding)),
                        _ => drop(refused.get_or_insert_with(|| denied(request, &by, message, *reason))),
                    }
                }
            }
        }
        for (key, values) in notes {
            request.review.call.annotate(format!("{}/{key}", policy.rules.name), values.join(", "));
        }
    }
    if !audited.is_empty() {
        let key = "validation.policy.admission.k8s.io/validation_failure";
        request.review.call.annotate(key, Value::from(audited).to_string());
    }
    refused.map_or(Ok(()), Err)
}

fn denied(request: &Request, by: &str, why: &str, reason: Reason) -> Status {
    let message = format!("ValidatingAdmissionPolicy {by} denied request: {why}");
    let mut status = request.review.forbidden(&message);
    status.reason = reason;
    status.code = match reason {
        Reason::Forbidden => 403,
        Reason::Unauthorized => 401,
        Reason::RequestEntityTooLarge => 413,
        _ => 422,
    };
    status.with_causes(vec![Cause { message, ..Cause::default() }])
}

/// Values of audit annotations, by their keys.
type Notes = BTreeMap<String, Vec<String>>;

struct Violation {
    message: String,
    reason: Reason,
    /// Which validation; `None` for an audit annotation that failed.
    index: Option<usize>,
}

impl Violation {
    /// As the audit log has it. Source: the page "Audit Annotations".
    fn to_value(&self, policy: &Policy, binding: &Binding) -> Value {
        json!({"message": self.message.as_str(), "policy": policy.rules.name.as_str(), "binding": binding.name.as_str(),
            "expressionIndex": self.index.unwrap_or_default() as i64, "validationActions": binding.actions.clone()})
    }
}

impl Policy {
    /// What a write violates, with these parameters.
    fn violations(&self, facts: &Facts, params: &Value, notes: &mut Notes) -> Vec<Violation> {
        let failed = |message: String, index| Violation { message, reason: Reason::Invalid, index };
        match self.rules.hold(facts, params) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(_) if self.rules.ignores_failure => return Vec::new(),
            Err(why) => return vec![failed(why, Some(0))],
        }
        let bindings = self.rules.bindings(facts, params);
        let mut budget = Budget::default();
        let mut found = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.program.run(&bindings, &mut budget).and_then(|value| value.as_bool()) {
                Ok(true) => {}
                Ok(false) => found.push(Violation {
                    message: validation.message(&bindings, &mut budget),
                    reason: validation.reason,
                    index: Some(index),
                }),
                Err(_) if self.rules.ignores_failure => {}
                Err(error) => found.push(failed(expressions::failure(&validation.text, &error), Some(index))),
            }
        }
        for Annotation { key, text, program } in &self.annotations {
            match program.run(&bindings, &mut budget) {
                Ok(Val::String(value)) => {
                    let (values, value) = (notes.entry(key.clone()).or_default(), value.to_string());
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                // Null says that there is nothing to note.
                Ok(_) => {}
                Err(_) if self.rules.ignores_failure => {}
                Err(error) => found.push(failed(expressions::failure(text, &error), None)),
            }
        }
        found
    }
}

impl Validation {
    /// What is said of a violation: what the message's expression makes, else the message, else the expression.
    fn message<'b>(&'b self, bindings: &Bindings<'b>, budget: &mut Budget) -> String {
        let made = self.message_program.as_ref().map(|program| run_text(program, bindings, budget));
        match made {
            Some(Ok(made)) if !made.trim().is_empty() && !made.contains('\n') && made.len() <= MESSAGE_MAX_BYTES => {
                made.trim().to_string()
            }
            _ if !self.message.is_empty() => self.message.clone(),
            _ => format!("failed expression: {}", self.text.trim()),
        }
    }
}

fn run_text<'b>(program: &'b Program, bindings: &Bindings<'b>, budget: &mut Budget) -> Result<String, EvalError> {
    match program.run(bindings, budget)? {
        Val::String(text) => Ok(text.to_string()),
        _ => Err(EvalError::Failed("no such overload".into())),
    }
}
