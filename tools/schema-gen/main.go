// Command schema-gen writes the data of Knarr's schema table from the published Kubernetes modules.
//
// It reads: the Go types of k8s.io/api, apimachinery, apiextensions-apiserver and kube-aggregator by reflection
// (struct tags), the apply-configuration schema in client-go, apiextensions-apiserver and kube-aggregator (list types,
// map keys, defaults), the tags that declare validation in the source of k8s.io/api, and resources.json beside this file
// (names, verbs, subresources of the served resources).
// It writes: schema.txt, resources.txt and declared.txt in crates/api/src/data. The same input gives the same bytes.
//
//	go run ./tools/schema-gen [-out DIR]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Dir(here)
	out := flag.String("out", filepath.Join(dir, "../../crates/api/src/data"), "folder to write to")
	flag.Parse()
	if err := run(dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "schema-gen:", err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	resources, err := readResources(filepath.Join(dir, "resources.json"))
	if err != nil {
		return err
	}
	apply, err := readApplySchemas(dir)
	if err != nil {
		return err
	}
	graph := newGraph(apply)
	if err := graph.addRoots(resources); err != nil {
		return err
	}
	schema, err := graph.text()
	if err != nil {
		return err
	}
	table, err := resourcesText(resources, graph)
	if err != nil {
		return err
	}
	module, err := moduleDir(dir, "k8s.io/api")
	if err != nil {
		return err
	}
	declared, err := declaredText(module)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "schema.txt"), []byte(schema), 0o644); err != nil {
		return err
	}
	fmt.Printf("schema.txt: %d types, %d bytes\nresources.txt: %d resources, %d bytes\n",
		len(graph.types), len(schema), len(resources), len(table))
	if err := os.WriteFile(filepath.Join(out, "resources.txt"), []byte(table), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "declared.txt"), []byte(declared), 0o644)
}
