//! A small schema in the shape of the real ones, for the tests of this crate.

use std::sync::LazyLock;

use crate::schema::{Schema, TypeRef};

const TEXT: &str = "\
package io.k8s.api.core.v1 core.v1
struct Pod
 apiVersion 0 o string
 kind 0 o string
 metadata 1 - Meta
 spec 2 - PodSpec
 status 3 - PodStatus
struct Meta
 name 1 o string
 namespace 2 o string
 labels 3 o {}string
 annotations 4 o {}string
 finalizers 5 o [set]string strategy=merge
 ownerReferences 6 o [map:uid]Owner merge=uid strategy=merge
 managedFields 7 o []Entry
 resourceVersion 8 o string
 uid 9 o string
 generation 10 o int64
struct! Owner
 uid 1 - string
 name 2 - string
struct Entry
 manager 1 o string
struct PodSpec
 containers 1 o [map:name]Container merge=name strategy=merge
 volumes 2 o [map:name]Volume merge=name strategy=merge,retainKeys
 nodeSelector 3 oa {!}string
 strategy 4 o Strategy strategy=retainKeys
 tolerations 5 o []string
 replicas 6 op int32
 finalizers 7 o []string strategy=merge
 serviceName 8 o string
struct Container
 name 1 o string
 image 2 o string
 args 3 o []string
 ports 4 o [map:containerPort,protocol]Port merge=containerPort strategy=merge
 env 5 o [map:name]Env merge=name strategy=merge
 resources 6 - Resources
struct Resources
 limits 1 o {}string
 requests 2 o {}string
struct Port
 containerPort 1 - int32
 protocol 2 od string default=\"TCP\"
 name 3 o string
struct Env
 name 1 - string
 value 2 o string
struct Volume
 name 1 - string
 emptyDir 2 op EmptyDir
 hostPath 3 op HostPath
struct EmptyDir
 medium 1 o string
struct HostPath
 path 1 - string
struct Strategy
 type 1 o string
 rollingUpdate 2 op Rolling
struct Rolling
 maxSurge 1 op int32
struct PodStatus
 phase 1 o string
 conditions 2 o [map:type]Condition merge=type strategy=merge
struct Condition
 type 1 - string
 status 2 - string
";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| match Schema::parse(TEXT) {
    Ok(schema) => schema,
    Err(error) => panic!("the test schema must parse: {error}"),
});

pub(crate) fn pod() -> TypeRef<'static> {
    SCHEMA.find("io.k8s.api.core.v1.Pod").expect("Pod is in the test schema")
}
