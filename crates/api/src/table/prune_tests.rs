//! Pruning documents of real kinds: what Go's decoder would say, and what it would write back.

use crate::schema;
use expect_test::{Expect, expect};

fn pruned(kind: &str, document: &str) -> String {
    let ty = schema().find(&format!("io.k8s.api.{kind}")).expect("a kind");
    let mut value = meta::parse(document.as_bytes()).expect("JSON");
    match ty.prune(&mut value) {
        Err(error) => format!("error: {error}"),
        Ok(notes) => {
            let mut out = String::from_utf8(value.to_vec()).expect("UTF-8");
            for note in notes {
                out.push('\n');
                out.push_str(&note);
            }
            let mut again = value.clone();
            assert_eq!(ty.prune(&mut again), Ok(vec![]), "the second time nothing is noted");
            assert_eq!(again, value, "the second time nothing changes");
            out
        }
    }
}

fn check(kind: &str, document: &str, expected: Expect) {
    expected.assert_eq(&pruned(kind, document));
}

#[test]
fn a_pod_gets_what_go_always_writes() {
    check(
        "core.v1.Pod",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
        expect![[
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"image":"i","name":"c","resources":{}}]},"status":{}}"#
        ]],
    );
    check("core.v1.Pod", "{}", expect![[r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#]]);
    check(
        "apps.v1.Deployment",
        r#"{"spec":{}}"#,
        expect![[
            r#"{"metadata":{},"spec":{"selector":null,"strategy":{},"template":{"metadata":{},"spec":{"containers":null}}},"status":{}}"#
        ]],
    );
    check(
        "core.v1.Service",
        r#"{"spec":{"ports":[{"port":80}]}}"#,
        expect![[r#"{"metadata":{},"spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#]],
    );
    check(
        "apps.v1.ReplicaSet",
        r#"{"spec":{"selector":{}}}"#,
        expect![[
            r#"{"metadata":{},"spec":{"selector":{},"template":{"metadata":{},"spec":{"containers":null}}},"status":{"replicas":0}}"#
        ]],
    );
}

#[test]
fn unknown_fields_are_dropped_and_noted() {
    check(
        "apps.v1.Deployment",
        r#"{"metadata":{"name":"d","lables":{}},"spec":{"foo":1,"selector":{},"template":{"spec":{"containers":[{"name":"a"},{"name":"b","Image":"x","env":[{"name":"e","valu":"v"}]}]}}}}"#,
        expect![[r#"
            {"metadata":{"name":"d"},"spec":{"selector":{},"strategy":{},"template":{"metadata":{},"spec":{"containers":[{"name":"a","resources":{}},{"env":[{"name":"e"}],"name":"b","resources":{}}]}}},"status":{}}
            unknown field "metadata.lables"
            unknown field "spec.foo"
            unknown field "spec.template.spec.containers[1].Image"
            unknown field "spec.template.spec.containers[1].env[0].valu""#]],
    );
    check(
        "core.v1.ConfigMap",
        r#"{"dat":{"a":"b"}}"#,
        expect![[r#"
        {"metadata":{}}
        unknown field "dat""#]],
    );
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    for (kind, document, expected) in [
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":"three"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":{"name":"c"}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":"x"}"#,
            "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"labels":["a"]}}"#,
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"restartPolicy":1}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        ("core.v1.Pod", "[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "core.v1.Service",
            r#"{"spec":{"ports":[{"port":80,"targetPort":true}]}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
        ("core.v1.Secret", r#"{"data":{"a":"%%"}}"#, "illegal base64 data at input byte 0"),
    ] {
        assert_eq!(pruned(kind, document), format!("error: {expected}"), "{document}");
    }
}

#[test]
fn null_is_as_good_as_absent() {
    check(
        "core.v1.Pod",
        r#"{"metadata":{"labels":{"a":null},"creationTimestamp":null,"annotations":null},"spec":{"containers":null,"replicas":null,"nodeName":null,"tolerations":[null],"hostNetwork":null,"priority":null,"securityContext":null},"status":null}"#,
        expect![[r#"
            {"metadata":{"labels":{"a":""}},"spec":{"containers":null,"tolerations":[{}]},"status":{}}
            unknown field "spec.replicas""#]],
    );
}

#[test]
fn empty_and_zero_values_follow_the_tags() {
    // Pointers keep their zero, values that Go would omit go, empty lists are nil.
    check(
        "core.v1.Pod",
        r#"{"metadata":{"labels":{},"finalizers":[]},"spec":{"containers":[{"name":"","args":[],"stdin":false,"securityContext":{"runAsUser":0,"privileged":false},"ports":[{"containerPort":0,"hostPort":0}]}],"terminationGracePeriodSeconds":0,"hostNetwork":false,"volumes":[{"name":"v","emptyDir":{}}],"securityContext":{}}}"#,
        expect![[
            r#"{"metadata":{},"spec":{"containers":[{"name":"","ports":[{"containerPort":0}],"resources":{},"securityContext":{"privileged":false,"runAsUser":0}}],"securityContext":{},"terminationGracePeriodSeconds":0,"volumes":[{"emptyDir":{},"name":"v"}]},"status":{}}"#
        ]],
    );
    check("rbac.v1.Role", r#"{"rules":[]}"#, expect![[r#"{"metadata":{},"rules":null}"#]]);
    check(
        "networking.v1.NetworkPolicy",
        r#"{"spec":{"podSelector":{},"ingress":[{}]}}"#,
        expect![[r#"{"metadata":{},"spec":{"ingress":[{}],"podSelector":{}}}"#]],
    );
}

#[test]
fn quantities_times_and_raw_values() {
    check(
        "core.v1.Pod",
        r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.678+02:00","managedFields":[{"fieldsV1":{"f:a":{}}}]},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"0.5","memory":"1024Mi"},"requests":{"cpu":1,"memory":"1e3"}}}]}}"#,
        expect![[
            r#"{"metadata":{"creationTimestamp":"2026-01-02T01:04:05Z","managedFields":[{"fieldsV1":{"f:a":{}}}]},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"},"requests":{"cpu":"1","memory":"1e3"}}}]},"status":{}}"#
        ]],
    );
    check(
        "coordination.v1.Lease",
        r#"{"spec":{"renewTime":"2026-01-02T03:04:05Z"}}"#,
        expect![[r#"{"metadata":{},"spec":{"renewTime":"2026-01-02T03:04:05.000000Z"}}"#]],
    );
    check(
        "apps.v1.ControllerRevision",
        r#"{"data":{"spec":{"anything":[1,null]}}}"#,
        expect![[r#"{"data":{"spec":{"anything":[1,null]}},"metadata":{},"revision":0}"#]],
    );
}

#[test]
fn crd_schemas_are_read_to_any_depth() {
    let ty = schema()
        .find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
        .expect("JSONSchemaProps");
    let mut value = meta::json!({
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"typ": "string"}, "default": [1, {"x": null}]}},
        "additionalProperties": false,
    });
    let notes = ty.prune(&mut value).expect("fits");
    assert_eq!(notes, [r#"unknown field "properties.a.items.typ""#]);
    assert_eq!(value.at(&["properties", "a", "default"]), Some(&meta::json!([1, {"x": null}])));
}
