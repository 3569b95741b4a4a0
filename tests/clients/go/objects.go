package main

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const ns = "protobuf"

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name, "of": "go"}}
}

func podSpec() corev1.PodSpec {
	port := intstr.FromString("http")
	return corev1.PodSpec{
		Containers: []corev1.Container{{
			Name: "c", Image: "example.com/i:1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
			Env: []corev1.EnvVar{{Name: "A", Value: "ü"}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				"cpu": resource.MustParse("0.5"), "memory": resource.MustParse("1Gi")}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port}}},
		}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
}

func (c *clients) namespaces() {
	space := &corev1.Namespace{ObjectMeta: named(ns)}
	made := must(c.proto.CoreV1().Namespaces().Create(c.ctx, space, metav1.CreateOptions{}))
	same("the namespace", made, must(c.json.CoreV1().Namespaces().Get(c.ctx, ns, metav1.GetOptions{})))
	account := &corev1.ServiceAccount{ObjectMeta: named("default")}
	if _, err := c.proto.CoreV1().ServiceAccounts(ns).Create(c.ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		fail("%v", err)
	}
	seconds := int64(3600)
	review := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	token := must(c.proto.CoreV1().ServiceAccounts(ns).CreateToken(c.ctx, "default", review, metav1.CreateOptions{}))
	if token.Status.Token == "" || token.Status.ExpirationTimestamp.IsZero() {
		fail("no token: %+v", token)
	}
	access := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: ns}}}
	answer := must(c.proto.AuthorizationV1().SelfSubjectAccessReviews().Create(c.ctx, access, metav1.CreateOptions{}))
	if !answer.Status.Allowed {
		fail("the admin may not get pods: %+v", answer)
	}
}

func (c *clients) workloads() {
	replicas, whole := int32(0), metav1.CreateOptions{}
	secret := &corev1.Secret{ObjectMeta: named("s"), Data: map[string][]byte{"k": {0, 255}, "empty": {}}}
	madeSecret := must(c.proto.CoreV1().Secrets(ns).Create(c.ctx, secret, whole))
	same("the secret", madeSecret, must(c.json.CoreV1().Secrets(ns).Get(c.ctx, "s", metav1.GetOptions{})))
	pod := must(c.proto.CoreV1().Pods(ns).Create(c.ctx, &corev1.Pod{ObjectMeta: named("p"), Spec: podSpec()}, whole))
	same("the pod", pod, must(c.json.CoreV1().Pods(ns).Get(c.ctx, "p", metav1.GetOptions{})))
	pod.Status.Phase = corev1.PodRunning
	pod.Status.StartTime = &metav1.Time{Time: time.Unix(1700000000, 0)}
	pod = must(c.proto.CoreV1().Pods(ns).UpdateStatus(c.ctx, pod, metav1.UpdateOptions{}))
	same("the status", pod, must(c.json.CoreV1().Pods(ns).Get(c.ctx, "p", metav1.GetOptions{})))

	deployment := &appsv1.Deployment{ObjectMeta: named("d"), Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "d"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: named("d"), Spec: podSpec()}}}
	made := must(c.proto.AppsV1().Deployments(ns).Create(c.ctx, deployment, whole))
	same("the deployment", made, must(c.json.AppsV1().Deployments(ns).Get(c.ctx, "d", metav1.GetOptions{})))
	scale := must(c.proto.AppsV1().Deployments(ns).GetScale(c.ctx, "d", metav1.GetOptions{}))
	scale.Spec.Replicas = 3
	scale = must(c.proto.AppsV1().Deployments(ns).UpdateScale(c.ctx, "d", scale, metav1.UpdateOptions{}))
	same("the scale", scale.Spec, autoscalingv1.ScaleSpec{Replicas: 3})
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"example.com/i:2"}]}}}}`)
	made = must(c.proto.AppsV1().Deployments(ns).Patch(c.ctx, "d", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	same("the patched deployment", made, must(c.json.AppsV1().Deployments(ns).Get(c.ctx, "d", metav1.GetOptions{})))

	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{ObjectMeta: named("l"), Spec: coordinationv1.LeaseSpec{RenewTime: &now}}
	madeLease := must(c.proto.CoordinationV1().Leases(ns).Create(c.ctx, lease, whole))
	same("the lease", madeLease, must(c.json.CoordinationV1().Leases(ns).Get(c.ctx, "l", metav1.GetOptions{})))
	event := &eventsv1.Event{ObjectMeta: named("e"), EventTime: now, Action: "a", Reason: "r", Note: "n", Type: "Normal",
		ReportingController: "go", ReportingInstance: "go-0", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: ns}}
	must(c.proto.EventsV1().Events(ns).Create(c.ctx, event, whole))
	same("the event", must(c.proto.EventsV1().Events(ns).Get(c.ctx, "e", metav1.GetOptions{})),
		must(c.json.EventsV1().Events(ns).Get(c.ctx, "e", metav1.GetOptions{})))
	same("the core event", must(c.proto.CoreV1().Events(ns).Get(c.ctx, "e", metav1.GetOptions{})),
		must(c.json.CoreV1().Events(ns).Get(c.ctx, "e", metav1.GetOptions{})))
	pods, inJSON := must(c.proto.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{})), must(c.json.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{}))
	same("the list's metadata", pods.ListMeta.Continue, inJSON.ListMeta.Continue)
	for i := range inJSON.Items {
		inJSON.Items[i].TypeMeta = metav1.TypeMeta{}
	}
	same("the list", pods.Items, inJSON.Items)
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: ns}}
	check(c.proto.PolicyV1().Evictions(ns).Evict(c.ctx, eviction))
}

func (c *clients) errors() {
	maps := c.proto.CoreV1().ConfigMaps(ns)
	if _, err := maps.Get(c.ctx, "x", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		fail("not a NotFound: %v", err)
	}
	made := must(maps.Create(c.ctx, &corev1.ConfigMap{ObjectMeta: named("e")}, metav1.CreateOptions{}))
	if _, err := maps.Create(c.ctx, &corev1.ConfigMap{ObjectMeta: named("e")}, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		fail("not an AlreadyExists: %v", err)
	}
	made.Data = map[string]string{"a": "b"}
	must(maps.Update(c.ctx, made, metav1.UpdateOptions{}))
	if _, err := maps.Update(c.ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		fail("not a Conflict: %v", err)
	}
	bad := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "No"}}
	if _, err := maps.Create(c.ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		fail("not an Invalid: %v", err)
	}
	check(maps.Delete(c.ctx, "e", metav1.DeleteOptions{}))
	check(maps.DeleteCollection(c.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=go"}))
}

// A definition's schema has types that are found nowhere else.
func (c *clients) definitions() {
	yes, lowest := true, 0.5
	props := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
			"list":  {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}},
			"map":   {Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &apiextensionsv1.JSONSchemaProps{Type: "integer"}}},
			"share": {Type: "number", Minimum: &lowest, Default: &apiextensionsv1.JSON{Raw: []byte(`0.75`)}},
			"any":   {XPreserveUnknownFields: &yes},
			"word":  {Type: "string", Enum: []apiextensionsv1.JSON{{Raw: []byte(`"a"`)}, {Raw: []byte(`"b"`)}}},
		}}}}
	definition := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "things.go.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "go.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &props}}}}}
	definitions := c.extensions.ApiextensionsV1().CustomResourceDefinitions()
	must(definitions.Create(c.ctx, definition, metav1.CreateOptions{}))
	found := must(definitions.Get(c.ctx, definition.Name, metav1.GetOptions{}))
	inJSON := must(c.inJSON.ApiextensionsV1().CustomResourceDefinitions().Get(c.ctx, definition.Name, metav1.GetOptions{}))
	same("the schema", found.Spec.Versions, inJSON.Spec.Versions)
	same("the schema that was sent", *found.Spec.Versions[0].Schema.OpenAPIV3Schema, props)
	check(definitions.Delete(c.ctx, definition.Name, metav1.DeleteOptions{}))
}
