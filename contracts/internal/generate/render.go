package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"waybill/contracts"
)

const (
	schemasFolder = "schemas"
	samplesFolder = "samples"
)

// render returns every generated file by its path.
func render(root string) (map[string][]byte, error) {
	comments, err := fieldComments(root)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range contracts.Catalogue() {
		schema, err := indented(schemaOf(e, comments))
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", e.Type, err)
		}
		sample, err := indented(sampleOf(e))
		if err != nil {
			return nil, fmt.Errorf("sample of %s: %w", e.Type, err)
		}
		files[filepath.Join(root, schemasFolder, e.Type+".json")] = schema
		files[filepath.Join(root, samplesFolder, e.Type+".json")] = sample
	}
	page, err := eventsPage(comments)
	if err != nil {
		return nil, err
	}
	files[filepath.Join(root, "..", "docs", "events.md")] = page
	configs, err := emulators(root)
	if err != nil {
		return nil, err
	}
	maps.Copy(files, configs)
	return files, nil
}

func indented(v any) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return buf.Bytes(), err
}

// sampleOf returns the complete CloudEvent.
func sampleOf(e contracts.Event) object {
	return object{
		{"specversion", "1.0"},
		{"id", "00000000-0000-5000-8000-000000000001"},
		{"type", e.Type},
		{"source", "/waybill/" + contracts.Owner(e.Topic)},
		{"subject", e.Sample.Subject()},
		{"time", time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)},
		{"datacontenttype", "application/json"},
		{"dataversion", contracts.Version},
		{"data", e.Sample},
	}
}

// comments has the doc comments of struct fields by Struct.Field.
type comments map[string]string

// fieldComments reads the comments from the module's source, because reflection does not have them.
func fieldComments(root string) (comments, error) {
	names, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("find the payloads' source: %w", err)
	}
	found := comments{}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read the comments of the payloads: %w", err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if body, ok := spec.Type.(*ast.StructType); ok {
					found.add(spec.Name.Name, body)
				}
				return false
			}
			return true
		})
	}
	return found, nil
}

func (c comments) add(structName string, body *ast.StructType) {
	for _, field := range body.Fields.List {
		for _, name := range field.Names {
			if text := strings.Join(strings.Fields(field.Doc.Text()), " "); text != "" {
				c[structName+"."+name.Name] = text
			}
		}
	}
}
