//! Writes docs.z: the descriptions that k8s-openapi's schemas hold, of every type that the served kinds are made of.

use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::Write as _;

/// Asks the generator for each named type; what those are made of comes along.
macro_rules! take_in {
    ($generator:expr; $($($module:ident)::+ : $($name:ident)+;)+) => {
        $({
            use k8s_openapi::$($module)::+ as module;
            $( let _ = $generator.subschema_for::<module::$name>(); )+
        })+
    };
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut generator = SchemaSettings::openapi3().into_generator();
    take_in! { generator;
        api::admissionregistration::v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
            MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
            ValidatingWebhookConfiguration;
        api::admissionregistration::v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        api::admissionregistration::v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        api::apiserverinternal::v1alpha1: StorageVersion;
        api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler Scale;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::batch::v1: CronJob Job;
        api::certificates::v1: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
        api::certificates::v1beta1: ClusterTrustBundle PodCertificateRequest;
        api::coordination::v1: Lease;
        api::coordination::v1alpha2: LeaseCandidate;
        api::coordination::v1beta1: LeaseCandidate;
        api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
            PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota
            Secret Service ServiceAccount;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
        api::lifecycle::v1alpha1: Eviction EvictionRequest;
        api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        api::node::v1: RuntimeClass;
        api::policy::v1: Eviction PodDisruptionBudget;
        api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        api::resource::v1: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::resource::v1alpha3: DeviceTaintRule ResourcePoolStatusRequest;
        api::resource::v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::resource::v1beta2: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate
            ResourceSlice;
        api::scheduling::v1: PriorityClass;
        api::scheduling::v1alpha3: CompositePodGroup PodGroup Workload;
        api::scheduling::v1beta1: PodGroup Workload;
        api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
            VolumeAttributesClass;
        api::storagemigration::v1: StorageVersionMigration;
        api::storagemigration::v1beta1: StorageVersionMigration;
        apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        apimachinery::pkg::apis::meta::v1: APIGroupList APIResourceList APIVersions DeleteOptions ListMeta
            MicroTime Status;
        kube_aggregator::pkg::apis::apiregistration::v1: APIService;
    }
    let text = text(&generator.take_definitions(true));
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let file = std::fs::File::create(std::path::Path::new(&out).join("docs.z")).expect("OUT_DIR is writable");
    let mut writer = flate2::write::ZlibEncoder::new(file, flate2::Compression::best());
    writer.write_all(text.as_bytes()).expect("OUT_DIR is writable");
    writer.finish().expect("OUT_DIR is writable");
}

/// The lines that `api_docs::text` describes.
fn text(definitions: &Map<String, Value>) -> String {
    let mut sorted: Vec<(&String, &Value)> = definitions.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut out = String::new();
    for (name, schema) in sorted {
        writeln!(out, "{name}\t{}", description(schema)).expect("writing to a string");
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields: Vec<(&String, &Value)> = schema["properties"].as_object().into_iter().flatten().collect();
        fields.sort_by_key(|(name, _)| *name);
        for (field, schema) in fields {
            let mark = if required.contains(&field.as_str()) { "!" } else { "" };
            writeln!(out, " {mark}{field}\t{}", description(schema)).expect("writing to a string");
        }
    }
    out
}

fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\\', "\\\\").replace('\n', "\\n")
}
