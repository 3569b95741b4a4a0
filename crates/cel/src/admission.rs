//! What expressions of admission see: webhooks' match conditions, validating and mutating policies. And how well a policy's
//! expressions fit the kinds that it is for.
//!
//! Source: the API documentation of ValidatingAdmissionPolicy and the page of that name, "Type checking". Pure.

use std::sync::LazyLock;

use meta::Value;

use crate::{Decl, Env, Expect, Type};

fn texts(names: &[&str]) -> Vec<(String, Decl)> {
    names.iter().map(|name| (name.to_string(), Type::String.into())).collect()
}

fn text_map() -> Decl {
    Type::map(Type::String, Type::String).into()
}

/// `request`.
static REQUEST: LazyLock<Decl> = LazyLock::new(|| {
    let kind = || Decl::object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = || Decl::object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let mut user = texts(&["username", "uid"]);
    user.push(("groups".into(), Type::list(Type::String).into()));
    user.push(("extra".into(), Type::map(Type::String, Type::list(Type::String)).into()));
    let mut fields = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]);
    fields.extend([
        ("kind".to_string(), kind()),
        ("resource".to_string(), resource()),
        ("requestKind".to_string(), kind()),
        ("requestResource".to_string(), resource()),
        ("userInfo".to_string(), Decl::object("kubernetes.UserInfo", user)),
        ("dryRun".to_string(), Type::Bool.into()),
        ("options".to_string(), Type::Dyn.into()),
    ]);
    Decl::object("kubernetes.AdmissionRequest", fields)
});

/// `namespaceObject`.
static NAMESPACE: LazyLock<Decl> = LazyLock::new(|| {
    let list = || Decl::from(Type::list(Type::String));
    let mut metadata = texts(&["name", "generateName", "namespace", "UID", "resourceVersion"]);
    metadata.extend([
        ("labels".to_string(), text_map()),
        ("annotations".to_string(), text_map()),
        ("creationTimestamp".to_string(), Type::Timestamp.into()),
        ("deletionGracePeriodSeconds".to_string(), Type::Int.into()),
        ("deletionTimestamp".to_string(), Type::Timestamp.into()),
        ("generation".to_string(), Type::Int.into()),
        ("finalizers".to_string(), list()),
    ]);
    let spec = Decl::object("kubernetes.NamespaceSpec", [("finalizers".to_string(), list())]);
    let status = Decl::object("kubernetes.NamespaceStatus", texts(&["phase"]));
    let metadata = Decl::object("kubernetes.NamespaceMetadata", metadata);
    let fields = [("metadata", metadata), ("spec", spec), ("status", status)];
    Decl::object("kubernetes.Namespace", fields.map(|(name, decl)| (name.to_string(), decl)))
});

/// What every expression sees; `params` where the policy has a kind of them.
pub fn environment(params: bool, authorizer: bool) -> Env {
    let mut env = Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", REQUEST.clone())
        .variable("namespaceObject", NAMESPACE.clone());
    if params {
        env = env.variable("params", Type::Dyn);
    }
    if authorizer { env.authorizer() } else { env }
}

/// What is wrong with the expressions of a ValidatingAdmissionPolicy where its objects are of these kinds (such as
/// `apps/v1, Kind=Deployment`, with its declaration) and its parameters as declared (`None`: of any kind): `expressionWarnings`.
pub fn type_check(policy: &Value, kinds: &[(String, Decl)], params: Option<&Decl>) -> Vec<Value> {
    let spec = &policy["spec"];
    let environments: Vec<(&String, Env)> =
        kinds.iter().map(|(kind, decl)| (kind, typed(spec, decl, params))).collect();
    let mut warnings = Vec::new();
    for (i, validation) in spec.array_at(&["validations"]).iter().enumerate() {
        for member in ["expression", "messageExpression"] {
            let Some(text) = validation.str_at(&[member]).filter(|text| !text.is_empty()) else { continue };
            let fault = |(kind, env): &(&String, Env)| {
                env.compile(text, Expect::Any).err().map(|why| format!("{kind}: {why}\n"))
            };
            let faults: String = environments.iter().filter_map(fault).collect();
            if !faults.is_empty() {
                warnings.push(meta::json!({"fieldRef": format!("spec.validations[{i}].{member}"), "warning": faults}));
            }
        }
    }
    warnings
}

/// The environment of a policy's expressions where objects are of this kind.
fn typed(spec: &Value, object: &Decl, params: Option<&Decl>) -> Env {
    let mut env = environment(!spec["paramKind"].is_null(), true)
        .variable("object", object.clone())
        .variable("oldObject", object.clone());
    if let Some(params) = params {
        env = env.variable("params", params.clone());
    }
    let mut fields: Vec<(String, Decl)> = Vec::new();
    for variable in spec.array_at(&["variables"]) {
        let text = |member: &str| variable.str_at(&[member]).unwrap_or_default();
        env = env.variable("variables", Decl::object("kubernetes.variables", fields.clone()));
        // What is wrong with a variable is told where it is used for something that it cannot be.
        let ty =
            env.compile(text("expression"), Expect::Any).map_or(Type::Dyn, |program| program.result_type().clone());
        fields.push((text("name").trim().to_string(), ty.into()));
    }
    env.variable("variables", Decl::object("kubernetes.variables", fields))
}
