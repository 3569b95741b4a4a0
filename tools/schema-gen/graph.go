package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// The type graph: every named Go type that a served kind is made of.

type graph struct {
	apply  map[string]applyType
	types  map[reflect.Type]bool
	scheme *runtime.Scheme
}

// learnFromUses fills in types that the apply schema does not name itself: structs that stand only inline in another
// (their fields are listed there), and named lists and maps (described where a field has them).
func (g *graph) learnFromUses() {
	var types []reflect.Type
	for t := range g.types {
		if t.Kind() == reflect.Struct {
			types = append(types, t)
		}
	}
	sort.Slice(types, func(i, j int) bool { return fullName(types[i]) < fullName(types[j]) })
	for _, t := range types {
		outer := g.apply[fullName(t)].Map
		if outer == nil {
			continue
		}
		for i := range t.NumField() {
			field := t.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			inner := field.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.PkgPath() == "" {
				continue
			}
			if _, known := g.apply[fullName(inner)]; known {
				continue
			}
			if name == "" && field.Anonymous && inner.Kind() == reflect.Struct {
				g.apply[fullName(inner)] = applyType{Map: &applyMap{Fields: outer.Fields}}
			} else if use := outer.field(name); use != nil && (inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map) {
				g.apply[fullName(inner)] = applyType{Map: use.Type.Map, List: use.Type.List}
			}
		}
	}
}

func newGraph(apply map[string]applyType) *graph {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err) // the published modules register without conflict
		}
	}
	return &graph{apply: apply, types: map[reflect.Type]bool{}, scheme: scheme}
}

// Group versions that are no served resources but stand on the wire.
var otherVersions = []schema.GroupVersion{
	{Group: "admission.k8s.io", Version: "v1"},
}

func (g *graph) addRoots(resources []resource) error {
	wanted := map[schema.GroupVersion]bool{}
	for _, r := range resources {
		wanted[schema.GroupVersion{Group: r.Group, Version: r.Version}] = true
	}
	for _, gv := range otherVersions {
		wanted[gv] = true
	}
	for gvk, t := range g.scheme.AllKnownTypes() {
		if wanted[gvk.GroupVersion()] && !strings.HasPrefix(gvk.Kind, "__") && gvk.Kind != "WatchEvent" {
			if err := g.add(t); err != nil {
				return fmt.Errorf("%v: %w", gvk, err)
			}
		}
	}
	for _, t := range metaRoots {
		if err := g.add(t); err != nil {
			return err
		}
	}
	return nil
}

// packageName turns a Go path into the package of the OpenAPI model names: k8s.io/api/core/v1 is io.k8s.api.core.v1.
func packageName(path string) string {
	parts := strings.Split(path, "/")
	host := strings.Split(parts[0], ".")
	for i, j := 0, len(host)-1; i < j; i, j = i+1, j-1 {
		host[i], host[j] = host[j], host[i]
	}
	parts[0] = strings.Join(host, ".")
	return strings.Join(parts, ".")
}

func fullName(t reflect.Type) string { return packageName(t.PkgPath()) + "." + t.Name() }

func alias(pkg string) string {
	parts := strings.Split(pkg, ".")
	return strings.Join(parts[len(parts)-2:], ".")
}

// Types that read and write their own JSON, by full name.
var scalars = map[string]string{
	"io.k8s.apimachinery.pkg.apis.meta.v1.Time":       "time",
	"io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime":  "microtime",
	"io.k8s.apimachinery.pkg.apis.meta.v1.Duration":   "duration",
	"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1":   "fieldsv1",
	"io.k8s.apimachinery.pkg.api.resource.Quantity":   "quantity",
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
	"io.k8s.apimachinery.pkg.runtime.RawExtension":    "raw",
	apiext + "JSON":                         "json",
	apiext + "JSONSchemaPropsOrBool":        "schemaorbool",
	apiext + "JSONSchemaPropsOrArray":       "schemaorarray",
	apiext + "JSONSchemaPropsOrStringArray": "schemaorstrings",
}

// Fields that are refused when they are empty, and left out otherwise.
var notEmpty = map[string]bool{
	"io.k8s.api.autoscaling.v2.HPAScalingRules.policies": true,
	apiext + "JSONSchemaProps.dependencies":              true,
}

const apiext = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

var (
	unmarshaler = reflect.TypeOf((*json.Unmarshaler)(nil)).Elem()
	marshaler   = reflect.TypeOf((*interface{ Marshal() ([]byte, error) })(nil)).Elem()
)

// add takes in a type and everything it is made of.
func (g *graph) add(t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		return g.add(t.Elem())
	}
	if t.PkgPath() != "" {
		if g.types[t] {
			return nil
		}
		g.types[t] = true
		if scalars[fullName(t)] != "" {
			return nil
		}
		if reflect.PointerTo(t).Implements(unmarshaler) {
			return fmt.Errorf("%s reads its own JSON and is not in the list of scalars", fullName(t))
		}
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			if tag := field.Tag.Get("json"); tag == "-" || !field.IsExported() {
				continue
			}
			if err := g.add(field.Type); err != nil {
				return fmt.Errorf("%s.%s: %w", fullName(t), field.Name, err)
			}
		}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return g.add(t.Elem())
		}
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("map with keys of %v", t.Key())
		}
		return g.add(t.Elem())
	case reflect.Bool, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float64, reflect.String, reflect.Interface:
	default:
		return fmt.Errorf("unsupported Go kind %v", t.Kind())
	}
	return nil
}

const header = `# The type graph of the published Kubernetes types. Generated by tools/schema-gen; do not edit.
# How to read a line: crates/meta/src/schema/text.rs
`

func (g *graph) text() (string, error) {
	g.learnFromUses()
	byPackage := map[string][]reflect.Type{}
	for t := range g.types {
		pkg := packageName(t.PkgPath())
		byPackage[pkg] = append(byPackage[pkg], t)
	}
	var packages []string
	aliases := map[string]string{}
	for pkg := range byPackage {
		packages = append(packages, pkg)
		if other := aliases[alias(pkg)]; other != "" {
			return "", fmt.Errorf("%s and %s have the same alias", pkg, other)
		}
		aliases[alias(pkg)] = pkg
	}
	sort.Strings(packages)
	var out strings.Builder
	out.WriteString(header)
	for _, pkg := range packages {
		fmt.Fprintf(&out, "package %s %s\n", pkg, alias(pkg))
		types := byPackage[pkg]
		sort.Slice(types, func(i, j int) bool { return types[i].Name() < types[j].Name() })
		for _, t := range types {
			if err := g.writeType(&out, pkg, t); err != nil {
				return "", err
			}
		}
	}
	return out.String(), nil
}

func (g *graph) writeType(out *strings.Builder, pkg string, t reflect.Type) error {
	if word := scalars[fullName(t)]; word != "" {
		fmt.Fprintf(out, "type %s %s\n", t.Name(), word)
		return nil
	}
	apply, known := g.apply[fullName(t)]
	if t.Kind() != reflect.Struct {
		mark := ""
		if t.Kind() == reflect.Slice && reflect.PointerTo(t).Implements(marshaler) {
			mark = "!"
		}
		var ref *applyRef
		if known {
			ref = &applyRef{Map: apply.Map, List: apply.List}
		}
		fmt.Fprintf(out, "type%s %s %s\n", mark, t.Name(), g.content(pkg, t, ref))
		return nil
	}
	mark := ""
	if known && apply.Map != nil && apply.Map.ElementRelationship == "atomic" {
		mark = "!"
	}
	fmt.Fprintf(out, "struct%s %s\n", mark, t.Name())
	for i := range t.NumField() {
		if err := g.writeField(out, pkg, t, t.Field(i), apply.Map); err != nil {
			return err
		}
	}
	return nil
}

func (g *graph) writeField(out *strings.Builder, pkg string, t reflect.Type, field reflect.StructField, apply *applyMap) error {
	tag := field.Tag.Get("json")
	if tag == "-" || !field.IsExported() {
		return nil
	}
	name, options, _ := strings.Cut(tag, ",")
	flags := ""
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "omitempty":
			flags += "o"
		case "omitzero":
			flags += "z"
		}
	}
	if notEmpty[fullName(t)+"."+name] {
		flags += "e"
	}
	number, protoName := protobuf(field.Tag.Get("protobuf"))
	inline := name == "" && field.Anonymous
	if field.Type.Kind() == reflect.Pointer {
		flags += "p"
	}
	if inline {
		flags = strings.ReplaceAll(flags, "o", "") + "i"
		if name = protoName; name == "" {
			name = strings.ToLower(field.Name[:1]) + field.Name[1:]
		}
	} else if name == "" {
		return fmt.Errorf("%s.%s has no JSON name", fullName(t), field.Name)
	}
	var known *applyField
	if apply != nil && !inline {
		known = apply.field(name)
	}
	extras := patchTags(field)
	expr := ""
	if known != nil {
		expr = g.expr(pkg, field.Type, &known.Type)
		if known.Type.NamedType != "" {
			switch known.Type.ElementRelationship {
			case "atomic":
				flags += "a"
			case "separable":
				flags += "g"
			}
		}
		if isZero(known.Default) {
			flags += "d"
		} else if known.Default != nil {
			text, err := json.Marshal(known.Default)
			if err != nil {
				return err
			}
			extras += " default=" + string(text)
		}
	} else {
		expr = g.expr(pkg, field.Type, nil)
	}
	if flags == "" {
		flags = "-"
	}
	fmt.Fprintf(out, " %s %d %s %s%s\n", name, number, flags, expr, extras)
	return nil
}

func patchTags(field reflect.StructField) string {
	extras := ""
	if key := field.Tag.Get("patchMergeKey"); key != "" {
		extras += " merge=" + key
	}
	if strategy := field.Tag.Get("patchStrategy"); strategy != "" {
		extras += " strategy=" + strategy
	}
	return extras
}

func protobuf(tag string) (int, string) {
	parts := strings.Split(tag, ",")
	if len(parts) < 2 {
		return 0, ""
	}
	number, _ := strconv.Atoi(parts[1])
	for _, part := range parts {
		if name, ok := strings.CutPrefix(part, "name="); ok {
			return number, name
		}
	}
	return number, ""
}

func isZero(value interface{}) bool {
	switch v := value.(type) {
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	case int64:
		return v == 0
	case map[string]interface{}:
		return len(v) == 0
	case []interface{}:
		return len(v) == 0
	}
	return false
}

// expr spells a use of a type: its name when it has one.
func (g *graph) expr(pkg string, t reflect.Type, apply *applyRef) string {
	if t.Kind() == reflect.Pointer {
		return g.expr(pkg, t.Elem(), apply)
	}
	if t.PkgPath() == "" {
		return g.content(pkg, t, apply)
	}
	if own := packageName(t.PkgPath()); own != pkg {
		return alias(own) + "." + t.Name()
	}
	return t.Name()
}

// content spells what a type is made of.
func (g *graph) content(pkg string, t reflect.Type, apply *applyRef) string {
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		kind := "[]"
		var element *applyRef
		if apply != nil && apply.List != nil {
			element = apply.List.ElementType
			if apply.List.ElementRelationship == "associative" {
				kind = "[set]"
				if len(apply.List.Keys) > 0 {
					kind = "[map:" + strings.Join(apply.List.Keys, ",") + "]"
				}
			}
		}
		return kind + g.expr(pkg, t.Elem(), element)
	case reflect.Map:
		kind := "{}"
		var element *applyRef
		if apply != nil && apply.Map != nil {
			element = apply.Map.ElementType
			if apply.Map.ElementRelationship == "atomic" {
				kind = "{!}"
			}
		}
		return kind + g.expr(pkg, t.Elem(), element)
	case reflect.Interface:
		return "json"
	}
	return t.Kind().String()
}
