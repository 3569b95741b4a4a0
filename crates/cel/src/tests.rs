//! Tables of facts against the whole crate: values with their costs, error listings, estimates. They were recorded from
//! the published Kubernetes v1.37 packages; `tests/*.txt` hold them. Then what no table says: bounds, and hostile text.

use crate::*;
use meta::json;
use proptest::prelude::*;

fn fixture(text: &str) -> Value {
    meta::parse(text.as_bytes()).expect("a fixture is JSON")
}

fn env_of(schema: &Value) -> Env {
    Env::new().variable("self", Decl::from_structural(schema, "selfType", false).expect("an object"))
}

/// Compares what comes of every expression with what comes of it upstream.
fn compare<'t>(facts: impl Iterator<Item = (&'t str, &'t str)>, answer: impl Fn(&str) -> String) {
    let differences: Vec<String> = facts
        .map(|(expr, want)| (expr, want, answer(expr)))
        .filter(|(_, want, got)| got != want)
        .map(|(expr, want, got)| format!("» {expr}\nwant\n{want}\ngot\n{got}\n"))
        .collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.concat());
}

#[test]
fn values_and_costs_are_upstreams() {
    let fixture = fixture(include_str!("tests/document.json"));
    let env = env_of(&fixture["schema"]);
    let facts = include_str!("tests/values.txt").lines().map(|line| line.split_once('\t').expect("three columns"));
    compare(facts, |expr| match env.compile(expr, Expect::Any) {
        Err(errors) => format!("does not compile: {errors}"),
        Ok(program) => {
            let mut budget = Budget::default();
            let value = program.run(&Bindings::new().document("self", &fixture["self"]), &mut budget);
            let shown = |v: Val| v.to_value().or_else(|_| Ok(format!("={}", library::format::text(&v)).into()));
            let text = match value.and_then(shown) {
                Ok(Value::String(s)) if s.starts_with('=') => s.to_string(),
                Ok(v) => v.to_string(),
                Err(e) => format!("!{e}"),
            };
            format!("{}\t{text}", cost::RUNTIME_BUDGET - budget.left())
        }
    });
}

#[test]
fn errors_are_upstreams() {
    let fixture = fixture(include_str!("tests/document.json"));
    let env = env_of(&fixture["schema"]);
    let cases = include_str!("tests/errors.txt").split("» ").filter(|case| !case.is_empty());
    let facts = cases.map(|case| case.trim_end().split_once('\n').expect("an expression and its errors"));
    compare(facts, |expr| match env.compile(expr, Expect::Any) {
        Err(errors) => errors.to_string(),
        Ok(program) => format!("compiles: {}", program.result_type()),
    });
}

#[test]
fn estimates_are_upstreams() {
    let env = env_of(&fixture(include_str!("tests/costs.json")));
    let lines = include_str!("tests/costs.txt").lines();
    let facts = lines.map(|line| line.split_once('\t').map(|(want, expr)| (expr, want)).expect("two columns"));
    compare(facts, |expr| match env.compile(expr, Expect::Bool) {
        Ok(program) => program.estimate().max.to_string(),
        Err(errors) => errors.to_string(),
    });
}

struct Rbac;

impl Authorizer for Rbac {
    fn authorize(&self, check: &Check, verb: &str) -> Decision {
        let who = check.service_account.as_ref().map_or("user".to_string(), |(ns, name)| format!("{ns}:{name}"));
        let what = check.path.clone().or(check.resource.clone()).unwrap_or_default();
        let reason = format!("{who} {verb} {what} {}/{} [{}]", check.namespace, check.name, check.label_selector);
        Decision { allowed: verb == "get", reason, error: None }
    }
}

#[test]
fn policies_have_variables_params_and_an_authorizer() {
    let object = json!({"spec": {"replicas": 7}, "metadata": {"name": "web"}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"}}}}});
    let decl = Decl::from_structural(&schema, "Object", true).expect("an object");
    let null = Value::Null;
    let params = json!({"max": 5});
    let base = Env::new()
        .variable("object", decl.clone())
        .variable("oldObject", Type::Dyn)
        .variable("params", Type::Dyn)
        .authorizer();
    let limit = base.compile("params.max * 2", Expect::Any).expect("compiles");
    let with_limit = base.clone().variable("variables", Decl::object("vars", [("limit".into(), Type::Dyn.into())]));
    let over = with_limit.compile("object.spec.replicas > variables.limit", Expect::Any).expect("compiles");
    let env = base.variable(
        "variables",
        Decl::object("vars", [("limit".into(), Type::Dyn.into()), ("over".into(), Type::Bool.into())]),
    );
    let request = Check { resource: Some("pods".into()), namespace: "prod".into(), ..Check::default() };
    for (expr, want) in [
        ("object.spec.replicas <= params.max", "false"),
        ("variables.over", "false"),
        ("variables.limit + variables.limit", "20"),
        ("oldObject == null", "true"),
        ("object.metadata.name == 'web' && object.apiVersion == 'v1'", "!no such key: apiVersion"),
        ("authorizer.requestResource.check('get').allowed()", "true"),
        ("authorizer.requestResource.name('x').check('list').reason()", "\"user list pods prod/x []\""),
        (
            "authorizer.serviceAccount('ns', 'sa').group('apps').resource('deployments').labelSelector('a=b').check('get').reason()",
            "\"ns:sa get deployments / [a=b]\"",
        ),
        ("authorizer.path('/healthz').check('get').allowed()", "true"),
        ("authorizer.path('/healthz').check('put').errored()", "false"),
    ] {
        let program = env.compile(expr, Expect::Any).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let bindings = Bindings::new()
            .document("object", &object)
            .document("oldObject", &null)
            .document("params", &params)
            .programs("variables", [("limit", &limit), ("over", &over)])
            .authorizer(&Rbac, request.clone());
        let value = program.run(&bindings, &mut Budget::default()).and_then(|v| v.to_value());
        assert_eq!(value.map_or_else(|e| format!("!{e}"), |v| v.to_string()), want, "{expr}");
    }
}

#[test]
fn mutations_make_objects() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"}, "paused": {"type": "boolean"}}}}});
    let object = Decl::from_structural(&schema, "Object", true).expect("an object");
    let patch = Decl::object("JSONPatch", ["op", "path", "from"].map(|f| (f.to_string(), Type::String.into())));
    let env = Env::new().variable("object", Type::Dyn).mutation(&object).mutation(&patch);
    for (expr, want) in [
        ("Object{spec: Object.spec{replicas: 3, ?paused: optional.none()}}", r#"{"spec":{"replicas":3}}"#),
        ("Object{metadata: Object.metadata{name: 'x'}}", r#"{"metadata":{"name":"x"}}"#),
        (
            "[JSONPatch{op: 'remove', path: '/metadata/' + jsonpatch.escapeKey('a/b~c')}]",
            r#"[{"op":"remove","path":"/metadata/a~1b~0c"}]"#,
        ),
    ] {
        let program = env.compile(expr, Expect::Any).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let value = program.run(&Bindings::new(), &mut Budget::default()).and_then(|v| v.to_value());
        assert_eq!(value.map_or_else(|e| format!("!{e}"), |v| v.to_string()), want, "{expr}");
    }
    let errors = env.compile("Object{spec: Object.spec{replicas: 'a', nope: 1}}", Expect::Any).expect_err("faulty");
    expect_test::expect_file!["tests/mutations_make_objects.txt"].assert_eq(&errors.to_string());
    assert!(Env::new().compile("jsonpatch.escapeKey('a')", Expect::Any).is_err());
}

#[test]
fn transition_rules_see_the_old_object() {
    let schema = json!({"type": "integer"});
    let decl = Decl::from_structural(&schema, "selfType", false).expect("a number");
    let old_type = Type::optional(decl.cel_type());
    let env = Env::new().variable("self", decl.clone()).variable("oldSelf", old_type);
    let program = env.compile("oldSelf.orValue(0) <= self", Expect::Bool).expect("compiles");
    assert!(program.uses("oldSelf") && !program.uses("params"));
    let (new, old) = (json!(3), json!(4));
    for (old, want) in [(None, true), (Some(&old), false)] {
        let bindings = Bindings::new().document("self", &new).optional("oldSelf", old, &decl);
        let value = program.run(&bindings, &mut Budget::default()).expect("runs");
        assert_eq!(value.as_bool(), Ok(want));
    }
}

#[test]
fn results_have_the_type_that_is_asked_for() {
    let env = Env::new().variable("x", Type::Dyn);
    for (expr, expect, want) in [
        ("1", Expect::Bool, "must evaluate to bool but got int"),
        ("1", Expect::String, "must evaluate to string but got int"),
        ("x", Expect::Bool, "must evaluate to bool but got dyn"),
        ("1", Expect::Type(Type::list(Type::Int)), "must evaluate to list(int) but got int"),
    ] {
        assert_eq!(env.compile(expr, expect).expect_err(expr).to_string(), want, "{expr}");
    }
}

#[test]
fn a_costly_rule_stops_at_once() {
    let items: Vec<Value> = (0..1000).map(|i| Value::from(format!("item-{i}"))).collect();
    let object = json!({"l": Value::from(items).to_string()});
    let list = meta::parse(object["l"].as_str().expect("text").as_bytes()).expect("a list");
    let env = Env::new().variable("self", Type::list(Type::String));
    for expr in [
        "self.all(a, self.all(b, self.all(c, a + b + c != '')))",
        "self.all(a, self == self.map(b, b))",
        "lists.range(100000).all(a, self == self)",
        "lists.range(9000000000000)",
        "self.map(a, self.map(b, self)).flatten().flatten().sort() == []",
    ] {
        let program = env.compile(expr, Expect::Any).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let bindings = Bindings::new().document("self", &list);
        let value = program.run(&bindings, &mut Budget::default()).and_then(|v| v.to_value());
        assert_eq!(value, Err(EvalError::CostLimit), "{expr}");
    }
}

/// Values that share their parts grow faster than what they cost.
#[test]
fn nothing_grows_without_bound() {
    let env = Env::new().variable("x", Type::list(Type::String)).variable("t", Type::String);
    let (list, text) = (json!(["some text"]), json!("a".repeat(1000)));
    let bind = |start: &str, inner: &str, times: usize, end: &str| {
        format!("optional.of({start}){}{end}", format!(".optMap(v, {inner})").repeat(times))
    };
    let wide = |step: &str| step.repeat(40);
    for expr in [
        bind("x", &format!("v{}", wide(" + v")), 5, ""),
        bind("x", &format!("[v{}].flatten()", wide(", v")), 5, ""),
        bind("dyn(x)", &format!("dyn([v{}])", wide(", v")), 5, ".value() == []"),
        bind("dyn(x)", &format!("dyn([v{}])", wide(", v")), 5, ""),
        bind("t", &format!("'{}'.format([v{}])", "%s".repeat(41), wide(", v")), 5, ""),
        "t.replace('a', t).replace('a', t).replace('a', t)".into(),
        "lists.range(1000).map(i, t.replace('a', t)).join()".into(),
    ] {
        let program = env.compile(&expr, Expect::Any).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let bindings = Bindings::new().document("x", &list).document("t", &text);
        let outcome = program.run(&bindings, &mut Budget::default()).and_then(|v| v.to_value());
        let bounded = match &outcome {
            Ok(value) => value.to_vec().len() < 4 << 20,
            Err(_) => true,
        };
        assert!(bounded, "{}", &expr[..expr.len().min(80)]);
    }
}

#[test]
fn a_budget_is_shared() {
    let env = Env::new().variable("self", Type::Int);
    let program = env.compile("self + self + self > 1", Expect::Bool).expect("compiles");
    let seven = json!(7);
    let bindings = Bindings::new().document("self", &seven);
    let mut budget = Budget::new(10);
    assert_eq!(program.run(&bindings, &mut budget).and_then(|v| v.as_bool()), Ok(true));
    assert_eq!(budget.left(), 4);
    assert_eq!(program.run(&bindings, &mut budget).and_then(|v| v.as_bool()), Err(EvalError::Budget));
}

#[test]
fn listings_are_bounded() {
    let told = |text: &str| Env::new().compile(text, Expect::Any).expect_err("it has faults").to_string();
    for (text, more) in
        [("@".repeat(300), 1), ("@".repeat(90_000), 1), (["has(1)"; 150].join("&&"), 50), (["x"; 150].join("+"), 50)]
    {
        let listing = told(&text);
        assert_eq!(listing.matches("ERROR:").count(), 100);
        assert!(listing.ends_with(&format!("\n{more} more errors were truncated")), "{}", &text[..20]);
    }
    let long = format!("'{}' + x", "a".repeat(16_390));
    assert_eq!(told(&long), "ERROR: <input>:1:16396: undeclared reference to 'x' (in container '')");
    assert_eq!(
        told("1 +\t\tx"),
        "ERROR: <input>:1:6: undeclared reference to 'x' (in container '')\n | 1 +  x\n | .....^"
    );
}

#[test]
fn deep_and_wide_texts_end_in_errors() {
    let deep = |open: &str, inner: &str, close: &str, n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    let env = Env::new().variable("l", Type::Dyn);
    for text in [
        deep("(", "1", ")", 5000),
        deep("[", "1", "]", 5000),
        deep("{1:", "1", "}", 5000),
        deep("-", "l", "", 50_000),
        deep("!", "l", "", 50_000),
        deep("-!", "l", "", 5000),
        deep("l.all(x, ", "true", ")", 300),
        deep("l ? l : ", "l", "", 5000),
        deep("l[", "0", "]", 5000),
        format!("l{}", ".a".repeat(5000)),
        format!("1{}", " + 1".repeat(5000)),
        format!("l{}", ".optMap(x, x)".repeat(60)),
        "a".repeat(200_000),
    ] {
        let outcome = env.compile(&text, Expect::Any);
        if !text.starts_with('-') && !text.starts_with('!') {
            assert!(outcome.is_err(), "{}", &text[..60]);
        }
    }
    // what is long and usual passes
    let chain = format!("true{}", " && l.a == 1".repeat(500));
    assert!(env.compile(&chain, Expect::Bool).is_ok());
    assert!(env.compile(&deep("(", "1", ")", 60), Expect::Any).is_ok());
    // the deepest trees that compile also run
    let document = json!(1);
    for text in
        [format!("l{}", " + 1".repeat(245)), format!("l{}", "[0]".repeat(245)), format!("l{}", ".a".repeat(245))]
    {
        let program = env.compile(&text, Expect::Any).expect("deep, but not too deep");
        let _ = program.estimate();
        let _ = program.run(&Bindings::new().document("l", &document), &mut Budget::default()).map(drop);
    }
    assert!(env.compile(&deep("l.all(x, ", "true", ")", 20), Expect::Any).is_ok());
}

/// Words that make texts which get past the lexer often.
fn words() -> Vec<&'static str> {
    include_str!("tests/words.txt").lines().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_error_or_a_program(text in "\\PC{0,60}") {
        let _ = Env::new().variable("self", Type::Dyn).compile(&text, Expect::Any).map_err(|e| e.to_string());
    }

    #[test]
    fn any_words_run_within_bounds(words in proptest::collection::vec(proptest::sample::select(words()), 1..25)) {
        let object = json!({"s": "text", "l": [1, "a", {"k": [1]}], "m": {"a": 1.5, "b": null}});
        if let Ok(program) = Env::new().variable("self", Type::Dyn).compile(&words.concat(), Expect::Any) {
            let _ = program.estimate();
            let bindings = Bindings::new().document("self", &object);
            let _ = program.run(&bindings, &mut Budget::default()).map(|v| v.to_value());
        }
    }
}
