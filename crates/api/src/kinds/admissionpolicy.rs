//! What validating and mutating admission policies and their bindings share.

use std::collections::HashSet;

use super::prelude::*;
use super::webhook;

pub(super) const PARAM_KIND: Column = Column::text("ParamKind", "The kind of the policy's parameters.").by(|policy| {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])).into()
});

/// Compat: a selector as Go prints its own struct (what the server answers).
fn shown(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flat_map(|all| all.iter());
    let labels: String = labels.map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default())).collect();
    let expressions = selector.array_at(&["matchExpressions"]).iter().map(|e| {
        let values: Vec<&str> = e.array_at(&["values"]).iter().filter_map(Value::as_str).collect();
        let (key, operator, values) = (text(e, &["key"]), text(e, &["operator"]), values.join(" "));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub(super) const BINDING: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PolicyName", "The policy that is bound.").at("spec.policyName"),
        Column::text("ParamRef", "The parameters that it gets.").by(|b| {
            let parameters = &b["spec"]["paramRef"];
            match (text(parameters, &["namespace"]), text(parameters, &["name"])) {
                _ if parameters.is_null() => "<unset>".into(),
                (_, "") => shown(&parameters["selector"]).into(),
                ("", name) => format!("*/{name}").into(),
                (namespace, name) => format!("{namespace}/{name}").into(),
            }
        }),
        AGE,
    ],
    defaults: |b| fill::at(b, &["spec", "matchResources"], constraints_defaults),
    prepare_create: first_generation,
    prepare_update: keep_status_count_spec,
    validate: |b, errors| {
        let own: &[Rule] = &[("spec.policyName", Required("")), ("spec.policyName", Name(names::dns1123_subdomain))];
        check(b, own, errors);
        let (reference, at) = (&b["spec"]["paramRef"], Path::new("spec.paramRef"));
        let wrong: Option<(bool, bool)> =
            (!reference.is_null()).then(|| (reference["name"].is_empty(), reference["selector"].is_null()));
        check(b, &[("spec.paramRef.name", Name(names::path_segment)), ("spec.paramRef.selector", Selector)], errors);
        match wrong {
            Some((true, true)) => errors.push(Error::required(&at, "one of name or selector must be specified")),
            Some((false, false)) => {
                for member in ["name", "selector"] {
                    errors.push(Error::forbidden(&at.child(member), "name and selector are mutually exclusive"));
                }
            }
            _ => {}
        }
        check(b, &[("spec.paramRef.parameterNotFoundAction", RequiredOneOf(&["Deny", "Allow"]))], errors);
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

pub(super) const POLICY: Kind = Kind {
    defaults: |policy| {
        fill::unset(policy.slot(&["spec"]), "failurePolicy", "Fail");
        fill::at(policy, &["spec", "matchConstraints"], constraints_defaults);
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

fn constraints_defaults(constraints: &mut Value) {
    webhook::match_defaults(constraints);
    for list in ["resourceRules", "excludeResourceRules"] {
        fill::each(constraints, &[list], |rule| fill::unset(rule, "scope", "*"));
    }
}

/// Checks what both kinds of policies have: the kind of their parameters, and what they are asked about.
pub(super) fn validate_policy(policy: &Value, errors: &mut Errors) {
    check(policy, &[("spec.failurePolicy", GivenOneOf(&["Fail", "Ignore"]))], errors);
    let (kind, at) = (&policy["spec"]["paramKind"], Path::new("spec.paramKind"));
    if !kind.is_null() {
        let (version, at) = (text(kind, &["apiVersion"]), at.child("apiVersion"));
        match version.matches('/').count() {
            _ if version.is_empty() => errors.push(Error::required(&at, "")),
            2.. => errors.push(Error::invalid(&at, version, format!("unexpected GroupVersion string: {version}"))),
            _ => {
                let version = version.rsplit('/').next().unwrap_or_default();
                errors.extend(names::dns1035_label(version).into_iter().map(|m| Error::invalid(&at, version, m)));
            }
        }
        let (kind, at) = (text(kind, &["kind"]), Path::new("spec.paramKind.kind"));
        if kind.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            let wrong = names::dns1035_label(&kind.to_lowercase()).into_iter();
            let wrong = wrong.map(|m| format!("may have mixed case, but should otherwise match: {m}"));
            errors.extend(wrong.map(|m| Error::invalid(&at, kind, m)));
        }
    }
    let at = Path::new("spec.matchConstraints");
    let constraints = &policy["spec"]["matchConstraints"];
    if constraints.is_null() {
        return errors.push(Error::required(&at, ""));
    }
    validate_constraints(constraints, &at, errors);
    check_at(constraints, &at, &[("resourceRules", Required(""))], errors);
}

/// Checks what is matched.
pub(super) fn validate_constraints(constraints: &Value, path: &Path, errors: &mut Errors) {
    if constraints.is_null() {
        return;
    }
    check_at(constraints, path, &[("matchPolicy", GivenOneOf(&["Equivalent", "Exact"]))], errors);
    check_at(constraints, path, &[("namespaceSelector", Selector), ("objectSelector", Selector)], errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in constraints.array_at(&[list]).iter().enumerate() {
            let at = path.child(list).index(i);
            webhook::validate_rule(rule, &at, errors);
            let named = rule.array_at(&["resourceNames"]);
            let mut met = HashSet::new();
            for (j, name) in named.iter().filter_map(Value::as_str).enumerate() {
                let at = at.child("resourceNames").index(j);
                errors.extend(names::path_segment(name).into_iter().map(|m| Error::invalid(&at, name, m)));
                if !met.insert(name) {
                    errors.push(Error::duplicate(&at, name));
                }
            }
        }
    }
}
