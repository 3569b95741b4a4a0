package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// What the types of a kind declare of their validation (`+k8s:` tags). Kinds with hand-written validation are not here:
// their tags only repeat it. Of those some fields are validated by their tags alone: only those are told.
var declaring = []struct {
	dir   string
	roots []string
	only  []string
}{
	{"core/v1", []string{"PodSpec"}, []string{"evictionResponders"}},
	{"lifecycle/v1alpha1", []string{"EvictionRequest", "Eviction"}, nil},
	{"resource/v1alpha3", []string{"ResourcePoolStatusRequest"}, nil},
	{"scheduling/v1alpha3", []string{"Workload", "PodGroup", "CompositePodGroup"}, nil},
}

const declaredHeader = `# What types declare of their validation. An indented line is a field that is checked, or has checked fields below it:
# FIELD TYPE CHECK..., in the order of the type; * is a pointer, [] a list.
`

// Of one gate or another, and what only clients see.
var (
	condition = regexp.MustCompile(`^\+k8s:ifEnabled\("?\w+"?\)=`)
	known     = regexp.MustCompile(`^\+k8s:(optional|required|immutable|unionMember|monotonic|customValidation)$` +
		`|^\+k8s:(format|minimum|maximum|maxItems|maxLength|maxBytes|update|listMapKey|listType|unique)=(.+)$`)
	ignored = regexp.MustCompile(`^\+k8s:(alpha|beta|ifDisabled|opaqueType|validation-gen|supportsSubresource)`)
)

type declarations struct {
	roots  []string
	only   []string
	types  map[string]ast.Expr
	closed map[string]bool
	values map[string][]string
	done   map[string]bool
	out    strings.Builder
}

// declaredText is the table of declared validation.
func declaredText(moduleDir string) (string, error) {
	text := declaredHeader
	for _, source := range declaring {
		d := declarations{
			roots: source.roots, only: source.only,
			types: map[string]ast.Expr{}, closed: map[string]bool{}, values: map[string][]string{}, done: map[string]bool{},
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(moduleDir, source.dir, "types.go"), nil, parser.ParseComments)
		if err != nil {
			return "", err
		}
		d.read(file)
		group, _, _ := strings.Cut(source.dir, "/")
		fmt.Fprintf(&d.out, "group %s\n", group)
		for _, root := range source.roots {
			if _, err := d.write(root); err != nil {
				return "", err
			}
		}
		text += d.out.String()
	}
	return text, nil
}

func (d *declarations) read(file *ast.File) {
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				d.types[spec.Name.Name] = spec.Type
				d.closed[spec.Name.Name] = slices.Contains(tags(group.Doc), "+k8s:enum")
			case *ast.ValueSpec:
				if name, ok := spec.Type.(*ast.Ident); ok && len(spec.Values) == 1 {
					if value, ok := spec.Values[0].(*ast.BasicLit); ok {
						d.values[name.Name] = append(d.values[name.Name], strings.Trim(value.Value, `"`))
					}
				}
			}
		}
	}
}

// write tells the fields of a type that are checked, those below them first; whether there are any.
func (d *declarations) write(name string) (bool, error) {
	if has, ok := d.done[name]; ok {
		return has, nil
	}
	d.done[name] = true // a type that holds itself is only asked for where something is checked
	body, ok := d.types[name].(*ast.StructType)
	if !ok {
		d.done[name] = false
		return false, nil
	}
	var lines []string
	for _, field := range body.Fields.List {
		if len(field.Names) == 0 {
			continue
		}
		json, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
		if len(d.only) > 0 && slices.Contains(d.roots, name) && !slices.Contains(d.only, json) {
			continue
		}
		shape, item := goType(field.Type)
		checks, err := checks(field.Doc)
		if err != nil {
			return false, fmt.Errorf("%s.%s: %w", name, json, err)
		}
		if d.closed[item] && strings.TrimPrefix(shape, "*") == item {
			values := d.values[item]
			slices.Sort(values)
			checks = append(checks, "enum="+strings.Join(values, ","))
		}
		deep, err := d.write(item)
		if err != nil {
			return false, err
		}
		if len(checks) > 0 || deep {
			lines = append(lines, " "+strings.Join(append([]string{json, shape}, checks...), " "))
		}
	}
	d.done[name] = len(lines) > 0
	if len(lines) > 0 {
		fmt.Fprintf(&d.out, "type %s\n%s\n", name, strings.Join(lines, "\n"))
	}
	return len(lines) > 0, nil
}

// goType is a field's type as it is written, and the name of what stands in it.
func goType(expr ast.Expr) (string, string) {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		shape, item := goType(expr.X)
		return "*" + shape, item
	case *ast.ArrayType:
		shape, item := goType(expr.Elt)
		return "[]" + shape, item
	case *ast.SelectorExpr:
		return expr.Sel.Name, expr.Sel.Name
	case *ast.Ident:
		return expr.Name, expr.Name
	}
	return "other", ""
}

func tags(doc *ast.CommentGroup) []string {
	var found []string
	if doc == nil {
		return found
	}
	for _, line := range doc.List {
		text := strings.TrimSpace(strings.TrimPrefix(line.Text, "//"))
		if strings.HasPrefix(text, "+k8s:") {
			text, _, _ = strings.Cut(text, " #")
			found = append(found, text)
		}
	}
	return found
}

// checks are the tags of a field in the words of the table.
func checks(doc *ast.CommentGroup) ([]string, error) {
	var found []string
	for _, tag := range tags(doc) {
		if ignored.MatchString(tag) {
			continue
		}
		match := known.FindStringSubmatch(condition.ReplaceAllString(tag, ""))
		switch {
		case match == nil:
			return nil, fmt.Errorf("unknown tag %s", tag)
		case match[2] == "listType" || match[2] == "unique" && match[3] == "map":
			// Told by the keys.
		case match[2] == "listMapKey":
			found = append(found, "key="+match[3])
		case match[2] == "update":
			found = append(found, match[3])
		case match[2] != "":
			found = append(found, match[2]+"="+match[3])
		case match[1] == "customValidation":
			// A function of upstream's, told before what else the field declares.
			found = append([]string{"custom"}, found...)
		case slices.Contains(found, match[1]):
		default:
			found = append(found, match[1])
		}
	}
	return found, nil
}
