package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

// What needs a whole cluster: a namespace with a pod `server` that has written `started` and serves its /etc on port 8080.
type program struct {
	clients
	ns   string
	maps dynamic.ResourceInterface
}

var mapsResource = corev1.SchemeGroupVersion.WithResource("configmaps")

func (c *clients) inCluster(ns string) {
	p := program{clients: *c, ns: ns}
	p.maps = must(dynamic.NewForConfig(c.config)).Resource(mapsResource).Namespace(ns)
	p.pages()
	p.patches()
	p.apply()
	p.logs()
	p.exec()
	p.forward()
	p.election()
	p.restart()
}

func (p *program) create(name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"of": "go"}}, "data": map[string]any{"a": "1"}}}
	return must(p.maps.Create(p.ctx, object, metav1.CreateOptions{}))
}

func data(object *unstructured.Unstructured) map[string]string {
	found, _, err := unstructured.NestedStringMap(object.Object, "data")
	check(err)
	return found
}

func (p *program) pages() {
	for number := range 25 {
		p.create(fmt.Sprintf("page-%02d", number))
	}
	options, sizes := metav1.ListOptions{LabelSelector: "of=go", Limit: 10}, []int{}
	for {
		page := must(p.maps.List(p.ctx, options))
		sizes = append(sizes, len(page.Items))
		if options.Continue = page.GetContinue(); options.Continue == "" {
			break
		}
	}
	same("the pages", sizes, []int{10, 10, 5})
	check(p.maps.DeleteCollection(p.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=go"}))
}

func (p *program) patches() {
	stale := p.create("patched")
	patch := func(kind types.PatchType, patch string) map[string]string {
		return data(must(p.maps.Patch(p.ctx, "patched", kind, []byte(patch), metav1.PatchOptions{})))
	}
	same("json", patch(types.JSONPatchType, `[{"op":"add","path":"/data/b","value":"2"}]`), map[string]string{"a": "1", "b": "2"})
	same("merge", patch(types.MergePatchType, `{"data":{"a":null,"c":"3"}}`), map[string]string{"b": "2", "c": "3"})
	same("strategic", patch(types.StrategicMergePatchType, `{"data":{"b":null,"d":"4"}}`), map[string]string{"c": "3", "d": "4"})
	if _, err := p.maps.Update(p.ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		fail("not a Conflict: %v", err)
	}
}

func (p *program) apply() {
	apply := func(manager, value string, force bool) (*corev1.ConfigMap, error) {
		wanted := coreapply.ConfigMap("applied", p.ns).WithData(map[string]string{"owned": value})
		return p.json.CoreV1().ConfigMaps(p.ns).Apply(p.ctx, wanted, metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	must(apply("one", "1", false))
	_, err := apply("two", "2", false)
	if !apierrors.IsConflict(err) || err.Error() != `Apply failed with 1 conflict: conflict with "one": .data.owned` {
		fail("not the conflict: %v", err)
	}
	same("forced", must(apply("two", "2", true)).Data, map[string]string{"owned": "2"})
	owned := must(coreapply.ExtractConfigMap(must(p.json.CoreV1().ConfigMaps(p.ns).Get(p.ctx, "applied", metav1.GetOptions{})), "two"))
	same("what the second owns", owned.Data, map[string]string{"owned": "2"})
}

func (p *program) logs() {
	log := must(p.json.CoreV1().Pods(p.ns).GetLogs("server", &corev1.PodLogOptions{}).DoRaw(p.ctx))
	same("the log", string(log), "started\n")
}

func (p *program) exec() {
	request := p.json.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.ns).Name("server").SubResource("exec")
	request.VersionedParams(&corev1.PodExecOptions{Command: []string{"sh", "-c", "read line; echo out $line; echo err >&2; exit 3"},
		Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	websocket := must(remotecommand.NewWebSocketExecutor(p.config, "GET", request.URL().String()))
	for _, executor := range []remotecommand.Executor{websocket, must(remotecommand.NewSPDYExecutor(p.config, "POST", request.URL()))} {
		var stdout, stderr bytes.Buffer
		err := executor.StreamWithContext(p.ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("put\n"), Stdout: &stdout, Stderr: &stderr})
		code, ok := err.(utilexec.CodeExitError)
		if !ok {
			fail("no exit code: %v", err)
		}
		same("exec", []any{stdout.String(), stderr.String(), code.Code}, []any{"out put\n", "err\n", 3})
	}
}

func (p *program) forward() {
	request := p.json.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.ns).Name("server").SubResource("portforward")
	transport, upgrader, err := spdy.RoundTripperFor(p.config)
	check(err)
	dialers := []httpstream.Dialer{spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", request.URL()),
		must(portforward.NewSPDYOverWebsocketDialer(request.URL(), p.config))}
	for _, dialer := range dialers {
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder := must(portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, os.Stderr))
		go func() { check(forwarder.ForwardPorts()) }()
		<-ready
		answer := must(http.Get(fmt.Sprintf("http://localhost:%d/hostname", must(forwarder.GetPorts())[0].Local)))
		same("port-forward", string(must(io.ReadAll(answer.Body))), "server\n")
		answer.Body.Close()
		close(stop)
	}
}

func (p *program) election() {
	leads := make(chan string)
	run := func(identity string) context.CancelFunc {
		ctx, cancel := context.WithCancel(p.ctx)
		lock := must(resourcelock.New(resourcelock.LeasesResourceLock, p.ns, "go", p.json.CoreV1(), p.json.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: identity}))
		go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 5 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 500 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { leads <- identity }, OnStoppedLeading: func() {}}})
		return cancel
	}
	end := run("one")
	same("the leader", <-leads, "one")
	defer run("two")()
	end()
	same("the next leader", <-leads, "two")
}

func (p *program) restart() {
	options := func(options *metav1.ListOptions) { options.LabelSelector = "of=go" }
	check(p.maps.DeleteCollection(p.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=go"}))
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(must(dynamic.NewForConfig(p.config)), 0, p.ns, options)
	told := follow(factory.ForResource(mapsResource).Informer())
	factory.Start(p.ctx.Done())
	factory.WaitForCacheSync(p.ctx.Done())
	p.create("before")
	p.expect(told, "add "+p.ns+"/before")
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	p.create("after")
	p.expect(told, "add "+p.ns+"/after")
	check(p.maps.Delete(p.ctx, "before", metav1.DeleteOptions{}))
	p.expect(told, "delete "+p.ns+"/before")
}
