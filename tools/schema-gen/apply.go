package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// The apply-configuration schema: what server-side apply knows of a type beyond its Go struct.

type applyType struct {
	Name string     `json:"name"`
	Map  *applyMap  `json:"map"`
	List *applyList `json:"list"`
}

type applyMap struct {
	Fields              []applyField `json:"fields"`
	ElementType         *applyRef    `json:"elementType"`
	ElementRelationship string       `json:"elementRelationship"`
}

type applyList struct {
	ElementType         *applyRef `json:"elementType"`
	ElementRelationship string    `json:"elementRelationship"`
	Keys                []string  `json:"keys"`
}

type applyRef struct {
	NamedType           string     `json:"namedType"`
	Scalar              string     `json:"scalar"`
	Map                 *applyMap  `json:"map"`
	List                *applyList `json:"list"`
	ElementRelationship string     `json:"elementRelationship"`
}

type applyField struct {
	Name    string      `json:"name"`
	Type    applyRef    `json:"type"`
	Default interface{} `json:"default"`
}

func (m *applyMap) field(name string) *applyField {
	for i := range m.Fields {
		if m.Fields[i].Name == name {
			return &m.Fields[i]
		}
	}
	return nil
}

// The schema stands in an internal package, so its source is read as text.
var applySources = []struct{ module, path string }{
	{"k8s.io/client-go", "applyconfigurations/internal/internal.go"},
	{"k8s.io/apiextensions-apiserver", "pkg/client/applyconfiguration/internal/internal.go"},
	{"k8s.io/kube-aggregator", "pkg/client/applyconfiguration/internal/internal.go"},
}

func readApplySchemas(dir string) (map[string]applyType, error) {
	types := map[string]applyType{}
	for _, source := range applySources {
		module, err := moduleDir(dir, source.module)
		if err != nil {
			return nil, err
		}
		text, err := stringVariable(filepath.Join(module, source.path), "schemaYAML")
		if err != nil {
			return nil, err
		}
		var schema struct {
			Types []applyType `json:"types"`
		}
		if err := yaml.Unmarshal([]byte(text), &schema); err != nil {
			return nil, fmt.Errorf("%s: %w", source.module, err)
		}
		for _, t := range schema.Types {
			types[t.Name] = t
		}
	}
	return types, nil
}

// moduleDir is where a module's source lies.
func moduleDir(dir, module string) (string, error) {
	command := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	command.Dir = dir
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("finding module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// stringVariable finds the one string literal in the value of a package variable.
func stringVariable(file, name string) (string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return "", err
	}
	var found string
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != name {
			return true
		}
		ast.Inspect(spec, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				found, _ = strconv.Unquote(literal.Value)
			}
			return true
		})
		return false
	})
	if found == "" {
		return "", fmt.Errorf("%s has no variable %s", file, name)
	}
	return found, nil
}
