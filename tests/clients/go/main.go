// Command go runs client-go, unmodified, against an API server, over protobuf and nothing else.
//
// It reads a kubeconfig's path from its arguments; it writes objects into namespaces of its own and one custom resource
// definition. Every answer must be protobuf; what typed clients, informers and metadata informers see must be what a JSON
// client sees. It ends with code 0 and one line when all of it held, and says what did not otherwise.
//
//	go run ./tests/clients/go KUBECONFIG
//
// With a namespace (see cluster.go) it does there what programs do in a cluster, over JSON. It says `ready`, and waits for
// a line on its standard input, meanwhile the API server is restarted.
//
//	go run ./tests/clients/go KUBECONFIG NAMESPACE
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// Answers in protobuf; any other fails the run.
var answers atomic.Int64

type onlyProtobuf struct{ next http.RoundTripper }

func (o onlyProtobuf) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	if err == nil {
		kind := response.Header.Get("Content-Type")
		if !strings.HasPrefix(kind, protobuf) {
			fail("%s %s was answered in %q", request.Method, request.URL, kind)
		}
		answers.Add(1)
	}
	return response, err
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

// Both must be the same object, read in the two encodings.
func same(what string, a, b any) {
	if !reflect.DeepEqual(a, b) {
		fail("%s differs:\n%+v\n%+v", what, a, b)
	}
}

type clients struct {
	ctx        context.Context
	proto      kubernetes.Interface
	json       kubernetes.Interface
	extensions clientset.Interface
	inJSON     clientset.Interface
	config     *rest.Config
}

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fail("usage: go run ./tests/clients/go KUBECONFIG [NAMESPACE]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	plain := must(clientcmd.BuildConfigFromFlags("", os.Args[1]))
	plain.QPS = -1
	config := rest.CopyConfig(plain)
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return onlyProtobuf{next} })
	c := clients{
		ctx:        ctx,
		proto:      must(kubernetes.NewForConfig(config)),
		json:       must(kubernetes.NewForConfig(plain)),
		extensions: must(clientset.NewForConfig(config)),
		inJSON:     must(clientset.NewForConfig(plain)),
		config:     config,
	}
	if len(os.Args) == 3 {
		c.config = plain
		c.inCluster(os.Args[2])
		fmt.Println("client-go: all held")
		return
	}
	c.namespaces()
	c.workloads()
	c.errors()
	c.definitions()
	c.informers()
	c.metadata()
	fmt.Printf("client-go over protobuf: %d answers\n", answers.Load())
}
