//! What validating and mutating admission policies and their bindings share.

use meta::Value;
use meta::field::{Error, Errors, Path};

use super::columns::{AGE, Cell, Column, NAME, age, name, text};
use super::rules::{Check, Rule, check};
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
        check(b, BINDING_RULES, &mut errors);
        let reference = &b["spec"]["paramRef"];
        let at = Path::new("spec.paramRef");
        match (reference["name"].is_empty(), reference["selector"].is_null()) {
            _ if reference.is_null() => {}
            (true, true) => errors.push(Error::required(&at, "one of name or selector must be specified")),
            (false, false) => {
                errors.push(Error::forbidden(&at.child("name"), "name and selector are mutually exclusive"));
            }
            _ => {}
        }
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

const BINDING_RULES: &[Rule] = &[
    ("spec.policyName", Check::Required("")),
    ("spec.paramRef.parameterNotFoundAction", Check::RequiredOneOf(&["Allow", "Deny"])),
    ("spec.paramRef.selector", Check::Selector),
    ("spec.matchResources.namespaceSelector", Check::Selector),
    ("spec.matchResources.objectSelector", Check::Selector),
];

pub(super) const POLICY_RULES: &[Rule] = &[
    ("spec.matchConstraints", Check::Required("")),
    ("spec.matchConstraints.resourceRules", Check::Required("")),
    ("spec.matchConstraints.namespaceSelector", Check::Selector),
    ("spec.matchConstraints.objectSelector", Check::Selector),
    ("spec.paramKind.apiVersion", Check::Required("")),
    ("spec.paramKind.kind", Check::Required("")),
    ("spec.failurePolicy", Check::OneOf(&["Fail", "Ignore"])),
];

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
