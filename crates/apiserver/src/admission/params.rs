//! Parameters of policies: the objects that a binding hands to the policy's expressions.
//!
//! Reads the watch caches. Invariant: where a binding says that parameters must be there and they are not, that is a
//! failure and never silence.

use meta::Value;
use meta::selector::LabelSelector;

use super::request::Request;

/// `paramKind` of a policy.
pub struct ParamKind {
    group: String,
    version: String,
    kind: String,
}

/// `paramRef` of a binding.
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<LabelSelector>,
    /// What is not found is a failure.
    required: bool,
}

impl ParamKind {
    pub fn read(kind: &Value) -> Option<ParamKind> {
        let text = |member: &str| kind.str_at(&[member]).unwrap_or_default();
        let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
        let read = ParamKind { group: group.into(), version: version.into(), kind: text("kind").into() };
        (!kind.is_null()).then_some(read)
    }
}

impl ParamRef {
    pub fn read(reference: &Value) -> Option<ParamRef> {
        let text = |member: &str| reference.str_at(&[member]).unwrap_or_default().to_string();
        let selector = reference.get("selector").filter(|s| !s.is_null());
        let read = ParamRef {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.map(LabelSelector::from_valid_object),
            required: text("parameterNotFoundAction") == "Deny",
        };
        (!reference.is_null()).then_some(read)
    }
}

/// The parameters of one binding. A policy without a kind of them, or a binding that names none, is evaluated once, with
/// null.
pub fn collect(
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    request: &Request,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![Value::Null]) };
    let registry = &request.review.shared.registry;
    let all = registry.resources();
    let known = all.iter().filter(|r| r.group == kind.group && r.version == kind.version);
    let served = known.filter(|r| r.kind == kind.kind).find_map(|r| registry.find(&r.group, &r.version, &r.plural));
    let Some(served) = served.filter(|s| s.is_stored()) else {
        let ParamKind { group, version, kind } = kind;
        let group_version = [group.as_str(), version].join("/");
        let group_version = group_version.trim_start_matches('/');
        return Err(format!("paramKind kind `{group_version}, Kind={kind}` not known"));
    };
    let mut namespace = "";
    if served.namespaced {
        namespace = match reference.namespace.as_str() {
            "" => &request.review.namespace,
            named => named,
        };
        if namespace.is_empty() {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
    } else if !reference.namespace.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
    }
    let found = match &reference.selector {
        None => served.cache.get(&served.key(namespace, &reference.name)).into_iter().collect(),
        Some(selector) => {
            let prefix = served.key(namespace, "");
            let matches = |o: &crate::object::Object| selector.matches_with(|key| o.label(key));
            served.cache.snapshot(&prefix, "", 0, false, matches).objects
        }
    };
    if found.is_empty() && reference.required {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.iter().map(|object| served.read(object)).collect())
}
