package static

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated part of docs/configuration.md")

// setting is a field of a Config struct with an env tag, or several adjacent fields that share one comment.
type setting struct {
	names, standards []string
	text             string
	last             int // the line of the last field
}

const (
	settingsBegin = "<!-- settings: begin (make generate writes this part from the Config structs) -->\n"
	settingsEnd   = "<!-- settings: end -->\n"
)

// TestTheSettingsAreDocumented keeps docs/configuration.md equal to the Config structs of the services: name, default, and
// the comment of each field.
func TestTheSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	path := filepath.Join(root, "docs", "configuration.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), settingsBegin)
	_, after, ok2 := strings.Cut(rest, settingsEnd)
	if !ok || !ok2 {
		t.Fatalf("docs/configuration.md lacks the marks %q and %q", settingsBegin, settingsEnd)
	}
	table := "| setting | service | default | what it does |\n| --- | --- | --- | --- |\n"
	shared, err := settings("platform/config", "Service")
	if err != nil {
		t.Fatal(err)
	}
	table += rowsOf(t, "every", shared)
	for _, app := range []string{"orders", "fulfillment", "notifications", "analytics"} {
		own, err := settings("services/"+app, "Config")
		if err != nil {
			t.Fatal(err)
		}
		if len(own) == 0 {
			t.Errorf("services/%s: the Config struct has no settings", app)
		}
		table += rowsOf(t, app, own)
	}
	want := before + settingsBegin + table + settingsEnd + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(text), "\n")); diff != "" {
		t.Errorf("docs/configuration.md is not current; run make generate (-want +got):\n%s", diff)
	}
}

func rowsOf(t *testing.T, app string, all []setting) string {
	t.Helper()
	var rows strings.Builder
	for _, s := range all {
		if s.text == "" {
			t.Errorf("%s: the fields of %q have no comment", app, s.names)
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", strings.Join(s.names, ", "), app, strings.Join(s.standards, ", "), strings.ReplaceAll(s.text, "|", `\|`))
	}
	return rows.String()
}

// settings are the fields with an env tag of the struct named typeName in the folder, those of its parts included. A service's
// embedded config.Service is left out: it is the same for all.
func settings(folder, typeName string) ([]setting, error) {
	set := token.NewFileSet()
	packages, err := parser.ParseDir(set, filepath.Join(root, filepath.FromSlash(folder)), nil, parser.ParseComments) //nolint:staticcheck // the struct is read without its types; go/packages would need every dependency
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		for name, file := range p.Files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, d := range file.Decls {
				declared, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, spec := range declared.Specs {
					named, ok := spec.(*ast.TypeSpec)
					if !ok || named.Name.Name != typeName {
						continue
					}
					fields, ok := named.Type.(*ast.StructType)
					if !ok {
						return nil, nil // a type with a value, such as a duration
					}
					return fieldsOf(set, folder, file, fields)
				}
			}
		}
	}
	return nil, fmt.Errorf("%s has no type %s", folder, typeName)
}

func fieldsOf(set *token.FileSet, folder string, file *ast.File, fields *ast.StructType) ([]setting, error) {
	var all []setting
	var errs []error
	for _, f := range fields.Fields.List {
		tag := reflect.StructTag("")
		if f.Tag != nil {
			text, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return nil, err
			}
			tag = reflect.StructTag(text)
		}
		name, options, _ := strings.Cut(tag.Get("env"), ",")
		if name == "" {
			parts, err := partsOf(folder, file, f.Type)
			all, errs = append(all, parts...), append(errs, err)
			continue
		}
		standard := "none"
		if value, ok := tag.Lookup("envDefault"); ok {
			standard = "`" + value + "`"
		}
		if strings.Contains(options, "required") {
			standard = "required"
		}
		text, line := described(f, namesOf(fields)), set.Position(f.Pos()).Line
		if n := len(all) - 1; text == "" && n >= 0 && all[n].last == line-1 { // one comment for several fields
			all[n].names, all[n].standards, all[n].last = append(all[n].names, "`"+name+"`"), append(all[n].standards, standard), line
			continue
		}
		all = append(all, setting{[]string{"`" + name + "`"}, []string{standard}, text, line})
	}
	return all, errors.Join(errs...)
}

// partsOf are the settings of a field that is a struct of this repository.
func partsOf(folder string, file *ast.File, kind ast.Expr) ([]setting, error) {
	switch kind := kind.(type) {
	case *ast.Ident:
		if !ast.IsExported(kind.Name) && unicode.IsLower(rune(kind.Name[0])) && kind.Obj == nil {
			return nil, nil // a basic type
		}
		return settings(folder, kind.Name)
	case *ast.SelectorExpr:
		qualifier, ok := kind.X.(*ast.Ident)
		if !ok || qualifier.Name == "config" && kind.Sel.Name == "Service" {
			return nil, nil
		}
		for _, i := range file.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if rest, ours := strings.CutPrefix(path, "waybill/"); ours && strings.HasSuffix(path, "/"+qualifier.Name) {
				return settings(rest, kind.Sel.Name)
			}
		}
	}
	return nil, nil
}

// described is the comment of a field as a sentence that names settings and not fields.
func described(f *ast.Field, names map[string]string) string {
	text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
	own := f.Names[0].Name
	for _, verb := range []string{" is ", " are "} {
		if rest, ok := strings.CutPrefix(text, own+verb); ok {
			text = strings.ToUpper(rest[:1]) + rest[1:]
		}
	}
	return word.ReplaceAllStringFunc(text, func(w string) string {
		name, ok := names[w]
		// A field such as Store has the name of an ordinary word, unless it begins the comment.
		if ordinary := strings.ToLower(w[1:]) == w[1:]; !ok || ordinary && !strings.HasPrefix(text, own) {
			return w
		}
		return "`" + name + "`"
	})
}

var word = regexp.MustCompile(`\b[A-Z]\w+`)

// namesOf are the settings by the names of their fields.
func namesOf(fields *ast.StructType) map[string]string {
	names := map[string]string{}
	for _, f := range fields.Fields.List {
		if f.Tag == nil || len(f.Names) == 0 {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("env"), ",")
		if name != "" {
			names[f.Names[0].Name] = name
		}
	}
	return names
}
