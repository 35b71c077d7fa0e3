package images

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// sbom lists what the program at path is made of, as CycloneDX: the modules that Go's linker recorded in it, and Go itself.
// The same program makes for the same text.
func sbom(name, path string) ([]byte, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what %s is made of: %w", name, err)
	}
	bom := cyclonedx.NewBOM()
	program := cyclonedx.Component{
		BOMRef: info.Path, Type: cyclonedx.ComponentTypeApplication, Name: name, PackageURL: packageURL(info.Main.Path, ""),
		Properties: settings(info),
	}
	bom.Metadata = &cyclonedx.Metadata{Component: &program}

	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	parts := []cyclonedx.Component{library("std", goVersion)}
	for _, module := range info.Deps {
		if module.Replace != nil && !strings.HasPrefix(module.Replace.Path, ".") {
			module = module.Replace
		}
		version := module.Version
		if version == "(devel)" || module.Replace != nil { // a module of this repository
			version = ""
		}
		parts = append(parts, library(module.Path, version))
	}
	bom.Components = &parts
	refs := make([]string, 0, len(parts))
	for _, part := range parts {
		refs = append(refs, part.BOMRef)
	}
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}

	var out bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON)
	if err := encoder.SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("write what %s is made of: %w", name, err)
	}
	return out.Bytes(), nil
}

func library(module, version string) cyclonedx.Component {
	purl := packageURL(module, version)
	return cyclonedx.Component{
		BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: module, Version: version, PackageURL: purl,
		Scope: cyclonedx.ScopeRequired,
	}
}

// packageURL names a Go module as a package URL (purl).
func packageURL(module, version string) string {
	parts := strings.Split(module, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	purl := "pkg:golang/" + strings.Join(parts, "/")
	if version != "" {
		purl += "@" + url.PathEscape(version)
	}
	return purl
}

// settings are how the program was built, as far as its users may want to know.
func settings(info *debug.BuildInfo) *[]cyclonedx.Property {
	properties := []cyclonedx.Property{{Name: "go:version", Value: info.GoVersion}}
	for _, s := range info.Settings {
		switch s.Key {
		case "CGO_ENABLED", "GOOS", "GOARCH", "-tags":
			properties = append(properties, cyclonedx.Property{Name: "go:build:" + s.Key, Value: s.Value})
		}
	}
	return &properties
}
