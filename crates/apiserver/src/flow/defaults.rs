//! The flow schemas and priority levels that every cluster has.
//!
//! Source: the page "API Priority and Fairness", sections "Mandatory Configuration Objects" and "Suggested Configuration
//! Objects". Invariant: the mandatory ones are always as they are here; the suggested ones while their annotation asks for it.

use meta::{Value, json};

pub const CATCH_ALL: &str = "catch-all";
const EXEMPT: &str = "exempt";
/// On suggested objects: `true` has them kept as they are here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const ALL_USERS: &[(&str, &str)] = &[("Group", "system:unauthenticated"), ("Group", "system:authenticated")];
const KUBE_SYSTEM: (&str, &str) = ("ServiceAccount", "kube-system/*");
const CONTROLLER_MANAGER: (&str, &str) = ("User", "system:kube-controller-manager");
const SCHEDULER: (&str, &str) = ("User", "system:kube-scheduler");

fn named(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn exempt_level() -> Value {
    named(
        "PriorityLevelConfiguration",
        EXEMPT,
        json!({
        "type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
    )
}

fn limited_level(name: &str, shares: i64, lendable: i64, queuing: Option<(i64, i64)>) -> Value {
    let response = match queuing {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => json!({"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
    };
    named(
        "PriorityLevelConfiguration",
        name,
        json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}}),
    )
}

pub fn mandatory_levels() -> [Value; 2] {
    [exempt_level(), limited_level(CATCH_ALL, 5, 0, None)]
}

/// Name, shares, percent that it lends, queues, hand size.
const LEVELS: [(&str, i64, i64, i64, i64); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

pub fn suggested_levels() -> impl Iterator<Item = Value> {
    LEVELS
        .iter()
        .map(|(name, shares, lendable, queues, hand)| limited_level(name, *shares, *lendable, Some((*queues, *hand))))
}

/// Verbs, groups, resources of everything, in every namespace and none.
const EVERYTHING: Rules = Rules { resources: &[(&["*"], &["*"], &["*"], true)], paths: Some(&["*"]) };

type Words = &'static [&'static str];

#[derive(Clone, Copy)]
struct Rules {
    /// Verbs, groups, resources; whether the cluster's scope is meant as well as the namespaces.
    resources: &'static [(Words, Words, Words, bool)],
    paths: Option<Words>,
}

fn schema(name: &str, level: &str, precedence: i64, by: &str, rules: &[(&[(&str, &str)], Rules)]) -> Value {
    let subject = |(kind, name): &(&str, &str)| match *kind {
        "User" => json!({"kind": "User", "user": {"name": *name}}),
        "Group" => json!({"kind": "Group", "group": {"name": *name}}),
        _ => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
        }
    };
    let list = |texts: &[&str]| Value::Array(texts.iter().map(|t| Value::from(*t)).collect());
    let rule = |(subjects, rules): &(&[(&str, &str)], Rules)| {
        let resource = |(verbs, groups, resources, cluster): &(&[&str], &[&str], &[&str], bool)| {
            let mut rule = json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources),
                "namespaces": ["*"]});
            if *cluster {
                rule.set(&["clusterScope"], true);
            }
            rule
        };
        let mut out = json!({"subjects": subjects.iter().map(subject).collect::<Vec<_>>()});
        if !rules.resources.is_empty() {
            out.set(&["resourceRules"], rules.resources.iter().map(resource).collect::<Vec<_>>());
        }
        if let Some(paths) = rules.paths {
            let verbs = if paths == ["*"] { "*" } else { "get" };
            out.set(&["nonResourceRules"], json!([{"verbs": [verbs], "nonResourceURLs": list(paths)}]));
        }
        out
    };
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": rules.iter().map(rule).collect::<Vec<_>>()});
    if !by.is_empty() {
        spec.set(&["distinguisherMethod", "type"], by);
    }
    named("FlowSchema", name, spec)
}

pub fn mandatory_schemas() -> [Value; 2] {
    [
        schema(EXEMPT, EXEMPT, 1, "", &[(&[("Group", "system:masters")], EVERYTHING)]),
        schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", &[(ALL_USERS, EVERYTHING)]),
    ]
}

pub fn suggested_schemas() -> Vec<Value> {
    const NODES: &[(&str, &str)] = &[("Group", "system:nodes")];
    const LEASES: Rules = Rules {
        resources: &[(&["get", "create", "update"], &["coordination.k8s.io"], &["leases"], false)],
        paths: None,
    };
    const ENDPOINTS: Rules = Rules {
        resources: &[
            (&["get", "create", "update"], &[""], &["endpoints"], false),
            (&["get", "create", "update"], &["discovery.k8s.io"], &["endpointslices"], false),
        ],
        paths: None,
    };
    const NODE_STATE: Rules = Rules {
        resources: &[
            (&["*"], &[""], &["nodes", "nodes/status"], true),
            (&["*"], &["coordination.k8s.io"], &["leases"], false),
        ],
        paths: None,
    };
    const PROBES: Rules = Rules { resources: &[], paths: Some(&["/healthz", "/readyz", "/livez"]) };
    const ENDPOINT_CONTROLLERS: &[(&str, &str)] = &[
        CONTROLLER_MANAGER,
        ("ServiceAccount", "kube-system/endpoint-controller"),
        ("ServiceAccount", "kube-system/endpointslice-controller"),
        ("ServiceAccount", "kube-system/endpointslicemirroring-controller"),
    ];
    vec![
        schema("probes", EXEMPT, 2, "", &[(ALL_USERS, PROBES)]),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            &[(&[CONTROLLER_MANAGER, SCHEDULER, KUBE_SYSTEM], LEASES)],
        ),
        schema("endpoint-controller", "workload-high", 150, "ByUser", &[(ENDPOINT_CONTROLLERS, ENDPOINTS)]),
        schema("workload-leader-election", "leader-election", 200, "ByUser", &[(&[KUBE_SYSTEM], LEASES)]),
        schema("system-node-high", "node-high", 400, "ByUser", &[(NODES, NODE_STATE)]),
        schema("system-nodes", "system", 500, "ByUser", &[(NODES, EVERYTHING)]),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", &[(&[CONTROLLER_MANAGER], EVERYTHING)]),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", &[(&[SCHEDULER], EVERYTHING)]),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &[(&[KUBE_SYSTEM], EVERYTHING)]),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            &[(&[("Group", "system:serviceaccounts")], EVERYTHING)],
        ),
        schema("global-default", "global-default", 9900, "ByUser", &[(ALL_USERS, EVERYTHING)]),
    ]
}
