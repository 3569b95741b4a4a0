//! What validating and mutating admission policies and their bindings share.

use meta::Value;
use meta::field::Errors;

use super::columns::{AGE, Cell, Column, NAME, age, name, text};
use super::rules::{Check, check};
use super::{Kind, fill, keep_status_count_spec, webhook};

pub(super) const PARAM_KIND: Column = Column::text("ParamKind", "The kind of the policy's parameters.");

pub(super) const BINDING: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PolicyName", "The policy that is bound."),
        Column::text("ParamRef", "The parameters that it gets."),
        AGE,
    ],
    row: |b, now| {
        let parameters = &b["spec"]["paramRef"];
        let shown = match (text(parameters, &["namespace"]), text(parameters, &["name"])) {
            _ if parameters.is_null() => "<unset>".to_string(),
            (_, "") => "*".to_string(),
            ("", name) => name.to_string(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![name(b), text(b, &["spec", "policyName"]).into(), shown.into(), age(b, now)]
    },
    defaults: |b| fill::at(b, &["spec", "matchResources"], constraints_defaults),
    prepare_create: super::first_generation,
    prepare_update: keep_status_count_spec,
    validate_create: |b| {
        let mut errors = Errors::new();
        check(b, &[("spec.policyName", Check::Required(""))], &mut errors);
        errors
    },
    ..Kind::PLAIN
};

pub(super) fn param_kind(policy: &Value) -> Cell {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])).into()
}

pub(super) fn policy_defaults(policy: &mut Value) {
    fill::text(policy.slot(&["spec"]), "failurePolicy", "Fail");
    fill::at(policy, &["spec", "matchConstraints"], constraints_defaults);
}

fn constraints_defaults(constraints: &mut Value) {
    webhook::match_defaults(constraints);
    for list in ["resourceRules", "excludeResourceRules"] {
        fill::each(constraints, &[list], |rule| fill::text(rule, "scope", "*"));
    }
}
