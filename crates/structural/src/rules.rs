//! Rules in CEL (`x-kubernetes-validations`): their check when a definition is written, and the one place where they run.
//!
//! Source: "Validation rules" in the CRD documentation; texts are upstream's. Invariants: all rules of one write share
//! one budget; a rule over what did not change stays silent unless it compares with the old value.

use std::sync::Arc;

use cel::cost::{ESTIMATED_CRD_LIMIT, ESTIMATED_LIMIT};
use cel::{Bindings, Budget, Decl, Env, EvalError, Expect, Program};
use meta::Value;
use meta::field::{Error, ErrorType, Errors, Path};

use crate::{ListType, Node, Type, lists};

/// One compiled rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    written: Value,
    decl: Arc<Decl>,
    program: Program,
    message: Option<Program>,
    transition: bool,
    optional_old: bool,
    /// Below the value, where the error is to stand.
    path: String,
}

const RULES: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const MESSAGE_MAX_BYTES: usize = 5 * 1024;
const REQUEST_MAX_BYTES: u64 = 3 << 20;

fn text<'v>(rule: &'v Value, member: &str) -> &'v str {
    rule.str_at(&[member]).unwrap_or_default()
}

impl Rule {
    /// Compiles a rule; the error names the member that is at fault and says why.
    fn compile(written: &Value, decl: &Arc<Decl>) -> Result<Rule, (&'static str, String)> {
        let optional_old = written.bool_at(&["optionalOldSelf"]) == Some(true);
        let env = Env::new().variable("self", Decl::clone(decl));
        let env = match optional_old {
            true => env.variable("oldSelf", cel::Type::optional(decl.cel_type())),
            false => env.variable("oldSelf", Decl::clone(decl)),
        };
        let program = env.compile(text(written, "rule"), Expect::Bool).map_err(|error| {
            let why = match error {
                cel::Errors::Compile { .. } => format!("compilation failed: {error}"),
                cel::Errors::Result { .. } => "cel expression must evaluate to a bool".into(),
                cel::Errors::Constant(_) => error.to_string(),
            };
            ("rule", why)
        })?;
        let message = match text(written, "messageExpression") {
            "" => None,
            expression => Some(env.compile(expression, Expect::String).map_err(|error| {
                let why = match &error {
                    cel::Errors::Compile { .. } => format!("messageExpression compilation failed: {error}"),
                    cel::Errors::Result { .. } => "messageExpression must evaluate to a string".into(),
                    cel::Errors::Constant(why) => format!("messageExpression instantiation failed: {why}"),
                };
                ("messageExpression", why)
            })?),
        };
        Ok(Rule {
            transition: program.uses("oldSelf"),
            path: normalized(text(written, "fieldPath")).unwrap_or_default(),
            written: written.clone(),
            decl: decl.clone(),
            program,
            message,
            optional_old,
        })
    }

    /// How errors name the rule.
    fn shown(&self) -> &str {
        let message = text(&self.written, "message");
        if message.is_empty() { text(&self.written, "rule").trim() } else { message.trim() }
    }

    fn detail<'a>(&'a self, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<String, EvalError> {
        if let Some(program) = &self.message {
            match program.run(bindings, budget) {
                Ok(value) => {
                    let message = value.as_str().unwrap_or_default().trim();
                    if !message.is_empty() && message.len() <= MESSAGE_MAX_BYTES && !message.contains('\n') {
                        return Ok(message.to_string());
                    }
                }
                Err(EvalError::Budget) => return Err(EvalError::Budget),
                // A message that fails gives way to the written one.
                Err(_) => {}
            }
        }
        let message = text(&self.written, "message");
        Ok(if message.is_empty() { format!("failed rule: {}", self.shown()) } else { message.trim().to_string() })
    }
}

/// `.a['b.c'].d` as it stands in errors: `a[b.c].d`. `None` for what is no path.
fn normalized(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (key, after) = after.split_once("']")?;
            out.push_str(&format!("[{key}]"));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            out.push_str(if out.is_empty() { "" } else { "." });
            out.push_str(&after[..end]);
            rest = &after[end..];
        }
    }
    Some(out)
}

/// Reads a whole schema together with its rules; those that do not compile are left out, as `check` has refused them.
pub fn compile(schema: &Value) -> Node {
    let mut node = Node::read(schema);
    fill(&mut node, schema, true);
    node
}

fn fill(node: &mut Node, schema: &Value, root: bool) {
    let written = schema.array_at(&[RULES]);
    if !written.is_empty()
        && let Some(decl) = Decl::from_structural(schema, "selfType", root).map(Arc::new)
    {
        node.rules = written.iter().filter_map(|rule| Rule::compile(rule, &decl).ok()).collect();
    }
    node.rules_below = !node.rules.is_empty();
    for (name, property) in &mut node.properties {
        fill(property, &schema["properties"][name.as_str()], false);
        node.rules_below |= property.rules_below;
    }
    for (below, member) in [(&mut node.values, "additionalProperties"), (&mut node.items, "items")] {
        if let Some(below) = below {
            fill(below, &schema[member], false);
            node.rules_below |= below.rules_below;
        }
    }
}

/// Runs the rules of a schema over an object and the one that it replaces; `errors` holds what else is wrong with it.
pub fn validate_rules(schema: &Node, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !schema.rules_below {
        return;
    }
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    if errors.iter().any(|e| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors \
                      to complete validation";
        errors.push(Error::invalid(&Path::default(), Value::Null, detail));
        return;
    }
    // The error is in the list by then.
    let _ = walk(schema, new, old, &Path::default(), &mut Budget::default(), errors);
}

/// The budget is used up, and what took it is said.
struct Spent;

fn walk(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    path: &Path,
    budget: &mut Budget,
    errors: &mut Errors,
) -> Result<(), Spent> {
    if !node.rules_below || new.is_null() {
        return Ok(());
    }
    let old = old.filter(|o| !o.is_null());
    for rule in &node.rules {
        run(node, rule, new, old, path, budget, errors)?;
    }
    match new {
        Value::Object(map) => {
            for (key, item) in map.iter() {
                let path = if node.property(key).is_some() { path.child(key) } else { path.key(key) };
                if let Some(child) = node.child(key) {
                    walk(child, item, old.and_then(|o| o.get(key)), &path, budget, errors)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(child) = &node.items else { return Ok(()) };
            let before = old.and_then(Value::as_array).filter(|_| matches!(node.list, ListType::Map(_)));
            for (i, item) in items.iter().enumerate() {
                let was = before.and_then(|old| lists::counterpart(node, item, old));
                walk(child, item, was, &path.index(i), budget, errors)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn run(
    node: &Node,
    rule: &Rule,
    new: &Value,
    old: Option<&Value>,
    path: &Path,
    budget: &mut Budget,
    errors: &mut Errors,
) -> Result<(), Spent> {
    if rule.transition && old.is_none() && !rule.optional_old {
        return Ok(());
    }
    let mut bindings = Bindings::new().document("self", new);
    bindings = match old {
        _ if rule.optional_old => bindings.optional("oldSelf", old, &rule.decl),
        Some(old) => bindings.document("oldSelf", old),
        None => bindings,
    };
    let failed = |why: String| Error::invalid(path, node.written_type(), why);
    let mut add = |error: Error| {
        if rule.transition || old != Some(new) {
            errors.push(error);
        }
    };
    let budget_error = |why: &EvalError| failed(why.to_string());
    match rule.program.run(&bindings, budget).and_then(|value| value.as_bool()) {
        Ok(true) => {}
        Ok(false) => match rule.detail(&bindings, budget) {
            Ok(detail) => add(error_of(node, rule, new, path, detail)),
            Err(why) => {
                add(budget_error(&why));
                return Err(Spent);
            }
        },
        Err(why @ EvalError::Budget) => {
            errors.push(budget_error(&why));
            return Err(Spent);
        }
        Err(why @ EvalError::CostLimit) => {
            let rule = rule.shown();
            errors.push(failed(format!(
                "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            )));
            return Err(Spent);
        }
        Err(EvalError::Failed(why)) if why.starts_with("no such overload") => add(failed(format!(
            "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
            rule.shown()
        ))),
        Err(EvalError::Failed(why)) => add(failed(format!("{why} evaluating rule: {}", rule.shown()))),
    }
    Ok(())
}

fn error_of(node: &Node, rule: &Rule, value: &Value, path: &Path, detail: String) -> Error {
    let path = &match rule.path.starts_with('[') {
        true => Path::new(&format!("{path}{}", rule.path)),
        false if rule.path.is_empty() => path.clone(),
        false => path.child(&rule.path),
    };
    match text(&rule.written, "reason") {
        "FieldValueRequired" => Error::required(path, detail),
        "FieldValueForbidden" => Error::forbidden(path, detail),
        "FieldValueDuplicate" => Error::duplicate(path, value),
        _ if matches!(node.ty, Type::Object | Type::Array) => Error::invalid_as_a_whole(path, detail),
        _ => Error::invalid(path, value, detail),
    }
}

/// Checks the rules of a schema that is structural: their members, that they compile, what they may cost.
pub(crate) fn check(schema: &Value, path: &Path, errors: &mut Errors) {
    let mut total = Total::default();
    check_at(schema, path, At { times: Some(1), uncorrelatable: None, root: true }, &mut total, errors);
    if total.cost > ESTIMATED_CRD_LIMIT {
        total.rules.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.extend(total.rules.iter().take(4).map(|(_, at)| Error::forbidden(at, detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(path, too_dear(what, total.cost, ESTIMATED_CRD_LIMIT)));
    }
}

/// What all rules of a schema may cost together, and each of them.
#[derive(Default)]
struct Total {
    cost: u64,
    rules: Vec<(u64, Path)>,
}

#[derive(Clone)]
struct At {
    /// How many values the schema allows at this place; `None` where a list or map on the way has no bound.
    times: Option<u64>,
    /// The list around this place whose items have no counterparts in an old list.
    uncorrelatable: Option<Path>,
    root: bool,
}

fn check_at(schema: &Value, path: &Path, at: At, total: &mut Total, errors: &mut Errors) {
    let decl = Decl::from_structural(schema, "selfType", at.root).map(Arc::new);
    for (i, rule) in schema.array_at(&[RULES]).iter().enumerate() {
        check_rule(rule, decl.as_ref(), &path.child(RULES).index(i), &at, total, errors);
    }
    let size = |member: &str| {
        let bound = schema.int_at(&[if member == "items" { "maxItems" } else { "maxProperties" }])?;
        Some(at.times?.saturating_mul(u64::try_from(bound).unwrap_or(0)))
    };
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        let below = At { root: false, ..at.clone() };
        check_at(property, &path.child("properties").key(name), below, total, errors);
    }
    for member in ["items", "additionalProperties"] {
        let Some(below @ Value::Object(_)) = schema.get(member) else { continue };
        let here = path.child(member);
        let loose = member == "items" && text(schema, "x-kubernetes-list-type") != "map";
        let uncorrelatable = at.uncorrelatable.clone().or_else(|| loose.then(|| path.clone()));
        let inner = At { times: size(member), uncorrelatable, root: false };
        check_at(below, &here, inner, total, errors);
    }
}

fn check_rule(rule: &Value, decl: Option<&Arc<Decl>>, path: &Path, at: &At, total: &mut Total, errors: &mut Errors) {
    let (written, message, expression) = (text(rule, "rule"), text(rule, "message"), text(rule, "messageExpression"));
    if written.trim().is_empty() {
        errors.push(Error::required(&path.child("rule"), "rule is not specified"));
        return;
    }
    let breaks = |s: &str| s.contains(['\n', '\r']);
    for (member, value) in [("message", message), ("fieldPath", text(rule, "fieldPath"))] {
        if !value.is_empty() && value.trim().is_empty() {
            errors.push(Error::invalid(&path.child(member), value, "must be non-empty if specified"));
        } else if breaks(value.trim()) {
            errors.push(Error::invalid(&path.child(member), value, "must not contain line breaks"));
        } else if member == "fieldPath" && normalized(value).is_none() {
            errors.push(Error::invalid(&path.child(member), value, "must be a valid path"));
        }
    }
    if breaks(written.trim()) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(Error::required(&path.child("message"), detail));
    }
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&path.child("messageExpression"), detail));
    }
    if let Some(reason) = rule.str_at(&["reason"]).filter(|r| !REASONS.contains(r)) {
        errors.push(Error::not_supported(&path.child("reason"), reason, &REASONS));
    }
    // CEL does not reach into what has no type.
    let Some(decl) = decl else { return };
    let rule = match Rule::compile(rule, decl) {
        Ok(compiled) => compiled,
        Err((member, why)) => {
            errors.push(Error::invalid(&path.child(member), rule, why));
            return;
        }
    };
    if let Some(list) = at.uncorrelatable.as_ref().filter(|_| rule.transition) {
        let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
        errors.push(Error::invalid(&path.child("rule"), written, detail));
    }
    if rule.optional_old && !rule.transition {
        let detail = "may not be set if oldSelf is not used in rule";
        errors.push(Error::invalid(&path.child("optionalOldSelf"), true, detail));
    }
    // What has no bound is bounded by the size of a request.
    let times = at.times.unwrap_or(REQUEST_MAX_BYTES / (decl.bytes_min + 1));
    let message = rule.message.as_ref().map(|m| m.estimate().max);
    for (member, what, cost) in [
        ("rule", "estimated rule cost", Some(rule.program.estimate().max.saturating_mul(times))),
        ("messageExpression", "estimated messageExpression cost", message),
    ] {
        let Some(cost) = cost else { continue };
        if cost > ESTIMATED_LIMIT {
            errors.push(Error::forbidden(&path.child(member), too_dear(what, cost, ESTIMATED_LIMIT)));
        }
        total.cost = total.cost.saturating_add(cost);
        // Compat: what is less than a hundredth of the limit is not named.
        if cost >= ESTIMATED_CRD_LIMIT / 100 {
            total.rules.push((cost, path.child(member)));
        }
    }
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_string(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::json;

    fn shown(errors: &Errors) -> String {
        errors.iter().map(|e| format!("{e}\n")).collect()
    }

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min is above max"},
                {"rule": "self.min <= 100", "messageExpression": "string(self.min)", "reason": "FieldValueForbidden", "fieldPath": ".min"},
                {"rule": "self.max >= oldSelf.max"},
                {"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true, "message": "starts at 0"}],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string", "maxLength": 10,
                "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}}}}})
    }

    #[test]
    fn rules_run_in_upstreams_words() {
        let node = compile(&schema());
        golden::check!("tests/rule_violations.txt", |case| {
            let mut specs = case.split(" < ").map(|spec| {
                let mut object = json!({});
                object.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
                object
            });
            let (new, old) = (specs.next().expect("a spec"), specs.next());
            let mut errors = Errors::new();
            validate_rules(&node, &new, old.as_ref(), &mut errors);
            shown(&errors)
        });
        let mut errors = vec![Error::required(&Path::new("spec.a"), "")];
        validate_rules(&node, &json!({"spec": {"min": 9, "max": 5, "name": "b"}}), None, &mut errors);
        expect![[r#"
            spec.a: Required value
            <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation
        "#]]
        .assert_eq(&shown(&errors));
    }

    #[test]
    fn rules_are_checked_with_their_definition() {
        let check = |spec: Value| {
            let mut schema = json!({"type": "object"});
            schema.set(&["properties", "spec"], spec);
            shown(&crate::check::schema(&schema, &Path::new("s")))
        };
        assert_eq!(check(schema()["properties"]["spec"].clone()), "");
        golden::check!("tests/rules.txt", |spec| check(meta::parse(spec.as_bytes()).expect("JSON")));
    }
}
