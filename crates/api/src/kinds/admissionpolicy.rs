//! What validating and mutating admission policies and their bindings share.

use super::prelude::*;
use super::webhook;

pub(super) const PARAM_KIND: Column = Column::text("ParamKind", "The kind of the policy's parameters.").by(|policy| {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])).into()
});

pub(super) const BINDING: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PolicyName", "The policy that is bound.").at("spec.policyName"),
        Column::text("ParamRef", "The parameters that it gets.").by(|b| {
            let parameters = &b["spec"]["paramRef"];
            match (text(parameters, &["namespace"]), text(parameters, &["name"])) {
                _ if parameters.is_null() => "<unset>".into(),
                (_, "") => "*".into(),
                ("", name) => name.into(),
                (namespace, name) => format!("{namespace}/{name}").into(),
            }
        }),
        AGE,
    ],
    defaults: |b| fill::at(b, &["spec", "matchResources"], constraints_defaults),
    prepare_create: first_generation,
    prepare_update: keep_status_count_spec,
    rules: &[
        ("spec.policyName", Required("")),
        ("spec.paramRef.parameterNotFoundAction", RequiredOneOf(&["Allow", "Deny"])),
        ("spec.paramRef.selector", Selector),
        ("spec.matchResources.namespaceSelector", Selector),
        ("spec.matchResources.objectSelector", Selector),
    ],
    validate: |b, errors| {
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
    },
    ..Kind::PLAIN
};

const POLICY_RULES: &[Rule] = &[
    ("spec.matchConstraints", Required("")),
    ("spec.matchConstraints.resourceRules", Required("")),
    ("spec.matchConstraints.namespaceSelector", Selector),
    ("spec.matchConstraints.objectSelector", Selector),
    ("spec.paramKind.apiVersion", Required("")),
    ("spec.paramKind.kind", Required("")),
    ("spec.failurePolicy", OneOf(&["Fail", "Ignore"])),
];

pub(super) const POLICY: Kind = Kind {
    rules: POLICY_RULES,
    defaults: |policy| {
        fill::text(policy.slot(&["spec"]), "failurePolicy", "Fail");
        fill::at(policy, &["spec", "matchConstraints"], constraints_defaults);
    },
    ..Kind::PLAIN
};

fn constraints_defaults(constraints: &mut Value) {
    webhook::match_defaults(constraints);
    for list in ["resourceRules", "excludeResourceRules"] {
        fill::each(constraints, &[list], |rule| fill::text(rule, "scope", "*"));
    }
}
