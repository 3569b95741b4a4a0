//! Deployment.

use super::prelude::*;
use super::{pod_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Ready", "Number of the pod with ready state").by(templated::ready),
        Column::number("Up-to-date", "").at("status.updatedReplicas").said_text(),
        Column::number("Available", "").at("status.availableReplicas").said_text(),
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        templated::SELECTOR,
    ],
    defaults,
    prepare_create: |d| new_object(d, Value::object()),
    prepare_update,
    rules: &[("spec.replicas", NonNegative), ("spec.selector", Immutable)],
    validate,
    validate_status_update: |new, old| {
        const COUNTS: &[&str] = &[
            "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
            "unavailableReplicas", "terminatingReplicas", "collisionCount",
        ];
        let bounded = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        templated::validate_counts(new, old, COUNTS, &bounded, "readyReplicas")
    },
    status_restores: &["labels"],
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    ..Kind::PLAIN
};

fn defaults(d: &mut Value) {
    pod_spec::template_defaults(d, &["spec", "template"]);
    let spec = d.slot(&["spec"]);
    spec.set_default(&["replicas"], 1);
    fill::text(spec.slot(&["strategy"]), "type", "RollingUpdate");
    if spec.str_at(&["strategy", "type"]) == Some("RollingUpdate") {
        spec.set_default(&["strategy", "rollingUpdate", "maxUnavailable"], "25%");
        spec.set_default(&["strategy", "rollingUpdate", "maxSurge"], "25%");
    }
    spec.set_default(&["revisionHistoryLimit"], 10);
    spec.set_default(&["progressDeadlineSeconds"], 600);
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep_status(new, old);
    // Compat: annotations of a Deployment are copied to its ReplicaSets, so a change of them counts as well.
    let annotations = |d: &Value| d.at(&["metadata", "annotations"]).filter(|a| !a.is_empty()).cloned();
    let changed = new["spec"] != old["spec"] || annotations(new) != annotations(old);
    let generation = int(old, &["metadata", "generation"]);
    new.set(&["metadata", "generation"], generation + i64::from(changed));
}

const RULES: &[Rule] = &[
    ("spec.minReadySeconds", NonNegative),
    ("spec.revisionHistoryLimit", NonNegative),
    ("spec.progressDeadlineSeconds", NonNegative),
];

fn validate(d: &Value, errors: &mut Errors) {
    templated::validate(d, "deployment", errors);
    validate_strategy(&d["spec"]["strategy"], &Path::new("spec.strategy"), errors);
    check(d, RULES, errors);
    let (deadline, ready) = (d.int_at(&["spec", "progressDeadlineSeconds"]), int(d, &["spec", "minReadySeconds"]));
    if let Some(deadline) = deadline.filter(|n| *n <= ready) {
        let at = Path::new("spec.progressDeadlineSeconds");
        errors.push(Error::invalid(&at, deadline, "must be greater than minReadySeconds"));
    }
}

fn validate_strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match strategy.str_at(&["type"]).unwrap_or_default() {
        "Recreate" => {
            if !rolling.is_null() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(Error::forbidden(&at, detail));
            }
        }
        "RollingUpdate" => {
            if rolling.is_null() {
                errors.push(Error::required(&at, "this should be defaulted and never be nil"));
                return;
            }
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            templated::validate_count_or_percent(unavailable, &at.child("maxUnavailable"), errors);
            templated::validate_count_or_percent(surge, &at.child("maxSurge"), errors);
            if templated::is_zero(unavailable) && templated::is_zero(surge) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(Error::invalid(&at.child("maxUnavailable"), unavailable, detail));
            }
            templated::validate_at_most_all(unavailable, &at.child("maxUnavailable"), errors);
        }
        _ => errors.push(Error::not_supported(path, strategy, &["Recreate", "RollingUpdate"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::time;

    fn deployment() -> Value {
        json!({"metadata": {"name": "web", "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}}}})
    }

    #[test]
    fn defaults_and_row() {
        let mut d = deployment();
        (KIND.defaults)(&mut d);
        (KIND.prepare_create)(&mut d);
        let once = d.clone();
        (KIND.defaults)(&mut d);
        assert_eq!(d, once);
        assert_eq!(super::super::check_create(&KIND, &d, true), []);
        expect![[r#"{"progressDeadlineSeconds":600,"replicas":1,"revisionHistoryLimit":10,"selector":{"matchLabels":{"app":"web"}},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"},"type":"RollingUpdate"},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"i","imagePullPolicy":"Always","name":"a","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}}"#]]
        .assert_eq(&d["spec"].to_string());
        let now = time::parse("2026-01-01T00:05:00Z").expect("a time");
        expect![[r#"["web","0/1",0,0,"5m","a","i","app=web"]"#]]
            .assert_eq(&Value::Array(KIND.cells(&d, now)).to_string());
    }

    #[test]
    fn faults_as_upstream() {
        let mut d = deployment();
        d.set(&["spec", "selector"], json!({"matchLabels": {"app": "other"}}));
        d.set(&["spec", "replicas"], -1);
        d.set(&["spec", "strategy"], json!({"type": "Recreate", "rollingUpdate": {}}));
        d.set(&["spec", "template", "spec", "restartPolicy"], "Never");
        (KIND.defaults)(&mut d);
        let text: Vec<String> = super::super::check_create(&KIND, &d, true).iter().map(|e| e.to_string()).collect();
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"#]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn generations_count_specs_and_annotations() {
        let mut old = deployment();
        (KIND.prepare_create)(&mut old);
        for (path, value, want) in [
            (vec!["spec", "replicas"], json!(3), 2),
            (vec!["metadata", "annotations"], json!({"a": "b"}), 2),
            (vec!["metadata", "labels"], json!({"a": "b"}), 1),
            (vec!["status", "replicas"], json!(3), 1),
        ] {
            let mut new = old.clone();
            new.set(&path, value);
            (KIND.prepare_update)(&mut new, &old);
            assert_eq!(new["metadata"]["generation"], json!(want), "{path:?}");
            assert_eq!(new["status"], old["status"]);
        }
    }
}
