//! What both kinds of webhook configurations share.

use super::prelude::*;

pub(super) const CONFIGURATION: Kind = Kind {
    columns: &[NAME, Column::number("Webhooks", "How many webhooks there are.").count("webhooks"), AGE],
    defaults,
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["webhooks"]),
    validate,
    unconditional_update: false,
    ..Kind::PLAIN
};

pub(super) fn defaults(c: &mut Value) {
    fill::each(c, &["webhooks"], |hook| {
        fill::text(hook, "failurePolicy", "Fail");
        match_defaults(hook);
        fill::unset(hook, "timeoutSeconds", 10);
        fill::at(hook, &["clientConfig", "service"], |s| fill::unset(s, "port", 443));
        fill::each(hook, &["rules"], |rule| fill::text(rule, "scope", "*"));
    });
}

/// What matches when the configuration says nothing: everything.
pub(super) fn match_defaults(matching: &mut Value) {
    fill::text(matching, "matchPolicy", "Equivalent");
    fill::unset(matching, "namespaceSelector", Value::object());
    fill::unset(matching, "objectSelector", Value::object());
}

fn validate(c: &Value, errors: &mut Errors) {
    let hooks = c.array_at(&["webhooks"]);
    for (i, hook) in hooks.iter().enumerate() {
        let at = Path::new("webhooks").index(i);
        let hook_name = hook.str_at(&["name"]).unwrap_or_default();
        let wrong = names::dns1123_subdomain(hook_name);
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("name"), hook_name, m)));
        if hook_name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(Error::invalid(&at.child("name"), hook_name, detail));
        }
        if hooks[..i].iter().any(|h| h["name"] == hook["name"]) {
            errors.push(Error::duplicate(&at.child("name"), hook_name));
        }
        if !["None", "NoneOnDryRun"].contains(&hook.str_at(&["sideEffects"]).unwrap_or_default()) {
            let supported = &["None", "NoneOnDryRun"];
            if hook["sideEffects"].is_null() {
                errors.push(Error::required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"));
            } else {
                errors.push(Error::not_supported(&at.child("sideEffects"), &hook["sideEffects"], supported));
            }
        }
        if let Some(n) = hook.int_at(&["timeoutSeconds"]).filter(|n| !(1..=30).contains(n)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(&at.child("timeoutSeconds"), n, detail));
        }
        if hook.array_at(&["admissionReviewVersions"]).is_empty() {
            let detail = "must specify one of v1, v1beta1";
            errors.push(Error::required(&at.child("admissionReviewVersions"), detail));
        }
        let config = &hook["clientConfig"];
        if config["url"].is_null() == config["service"].is_null() {
            errors.push(Error::required(&at.child("clientConfig"), "exactly one of url or service is required"));
        }
    }
}
