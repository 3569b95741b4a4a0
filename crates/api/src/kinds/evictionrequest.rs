//! EvictionRequest.

use super::conditions;
use super::eviction::{STATUS, TARGET, TARGET_TYPE};
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        TARGET,
        TARGET_TYPE,
        STATUS,
        Column::text("Requester", "").at("spec.requester"),
        Column::text("Intent", "").at("spec.intent"),
        AGE,
    ],
    prepare_create: |request| new_object(request, Value::object()),
    prepare_update: keep_status_count_spec,
    validate_status_update: |new, _| conditions::validate(new),
    declared: &[("", ("lifecycle", "EvictionRequest"))],
    declares_name: true,
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{check_create, check_update};

    fn request(uid: &str, requester: &str, intent: &str) -> Value {
        json!({"metadata": {"name": "r", "namespace": "default", "resourceVersion": "1"},
            "spec": {"target": {"pod": {"name": "p", "uid": uid}}, "requester": requester, "intent": intent}})
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(Error::to_string).collect()
    }

    #[test]
    fn only_the_intent_may_change() {
        const UID: &str = "12345678-1234-1234-1234-123456789abc";
        let old = request(UID, "acme.io/foo", "Eviction");
        assert_eq!(texts(check_create(&KIND, &old, true)), [""; 0]);
        assert_eq!(
            texts(check_create(&KIND, &request("x", "a.k8s.io/foo", ""), true)),
            [
                "spec.target.pod.uid: Invalid value: \"x\": must be a lowercase UUID in 8-4-4-4-12 format",
                "spec.requester: Invalid value: \"a.k8s.io/foo\": domain names *.k8s.io, *.kubernetes.io are reserved",
                "spec.intent: Required value",
            ]
        );
        assert_eq!(texts(check_update(&KIND, &request(UID, "acme.io/foo", "Withdrawn"), &old)), [""; 0]);
        assert_eq!(
            texts(check_update(&KIND, &request("x", "", "no"), &old)),
            [
                "spec.target: Invalid value: null: field is immutable",
                "spec.requester: Invalid value: null: field is immutable",
                "spec.requester: Required value",
                "spec.intent: Unsupported value: \"no\": supported values: \"Eviction\", \"Withdrawn\"",
            ]
        );
    }
}
