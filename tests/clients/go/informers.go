package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// What an informer tells, as it tells it.
func follow(informer cache.SharedIndexInformer) chan string {
	told := make(chan string, 1000)
	tell := func(what string) func(any) {
		return func(object any) {
			key, _ := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
			told <- what + " " + key
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell("add"), DeleteFunc: tell("delete"),
		UpdateFunc: func(_, object any) { tell("update")(object) },
	})
	check(err)
	return told
}

func (c *clients) expect(told chan string, want string) {
	select {
	case got := <-told:
		same("what the informer told", got, want)
	case <-c.ctx.Done():
		fail("the informer never told %q", want)
	}
}

// Makes, changes and deletes a config map, which the informer tells.
func (c *clients) change(told chan string, name string) {
	maps := c.proto.CoreV1().ConfigMaps(ns)
	made := must(maps.Create(c.ctx, &corev1.ConfigMap{ObjectMeta: named(name)}, metav1.CreateOptions{}))
	c.expect(told, fmt.Sprintf("add %s/%s", ns, name))
	made.Labels["more"] = "yes"
	must(maps.Update(c.ctx, made, metav1.UpdateOptions{}))
	c.expect(told, fmt.Sprintf("update %s/%s", ns, name))
	check(maps.Delete(c.ctx, name, metav1.DeleteOptions{}))
	c.expect(told, fmt.Sprintf("delete %s/%s", ns, name))
}

func (c *clients) informers() {
	maps := c.proto.CoreV1().ConfigMaps(ns)
	must(maps.Create(c.ctx, &corev1.ConfigMap{ObjectMeta: named("first"), Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}))
	factory := informers.NewSharedInformerFactoryWithOptions(c.proto, 0, informers.WithNamespace(ns))
	told := follow(factory.Core().V1().ConfigMaps().Informer())
	factory.Start(c.ctx.Done())
	factory.WaitForCacheSync(c.ctx.Done())
	c.expect(told, "add "+ns+"/first")
	cached := must(factory.Core().V1().ConfigMaps().Lister().ConfigMaps(ns).Get("first"))
	same("the cached object", cached.Data, map[string]string{"k": "v"})
	c.change(told, "second")
}

func (c *clients) metadata() {
	client := must(metadata.NewForConfig(c.config))
	factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, ns, nil)
	told := follow(factory.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps")).Informer())
	factory.Start(c.ctx.Done())
	factory.WaitForCacheSync(c.ctx.Done())
	c.expect(told, "add "+ns+"/first")
	c.change(told, "third")
}
