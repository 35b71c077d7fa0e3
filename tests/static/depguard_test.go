package static

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestEveryPackageHasAnImportRule fails for a package that no rule of depguard names (.golangci.yml): its imports would be free.
func TestEveryPackageHasAnImportRule(t *testing.T) {
	t.Parallel()
	rules := importRules(t)
	used := map[string]bool{}
	for _, pkg := range allPackages(t) {
		covered := false
		for name, files := range rules {
			if files.match(pkg + "/file.go") {
				covered, used[name] = true, true
			}
		}
		if !covered {
			t.Errorf("no depguard rule in .golangci.yml names the package %s; add it to a list of files", pkg)
		}
	}
	for name := range rules {
		if !used[name] {
			t.Errorf("the depguard rule %q in .golangci.yml names no package", name)
		}
	}
}

// TestEveryFileListNamesAPackage fails for a pattern of a depguard rule that matches nothing, as it does after a package was renamed.
func TestEveryFileListNamesAPackage(t *testing.T) {
	t.Parallel()
	packages := allPackages(t)
	for name, files := range importRules(t) {
		for i, pattern := range files.include {
			found := false
			for _, pkg := range packages {
				found = found || pattern.MatchString("/waybill/"+pkg+"/file.go")
			}
			if !found {
				t.Errorf("the depguard rule %q names %s, which matches no package", name, files.text[i])
			}
		}
	}
}

// fileList is the files of one rule, without its variables such as !$test.
type fileList struct {
	text             []string
	include, exclude []*regexp.Regexp
}

func (f fileList) match(path string) bool {
	path = "/waybill/" + path // depguard compares whole paths
	for _, pattern := range f.exclude {
		if pattern.MatchString(path) {
			return false
		}
	}
	for _, pattern := range f.include {
		if pattern.MatchString(path) {
			return true
		}
	}
	return false
}

func importRules(t *testing.T) map[string]fileList {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Files []string `yaml:"files"`
					} `yaml:"rules"`
				} `yaml:"depguard"`
			} `yaml:"settings"`
		} `yaml:"linters"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	rules := map[string]fileList{}
	for name, rule := range config.Linters.Settings.Depguard.Rules {
		var files fileList
		for _, pattern := range rule.Files {
			switch {
			case strings.HasPrefix(pattern, "$"), strings.HasPrefix(pattern, "!$"):
			case strings.HasPrefix(pattern, "!"):
				files.exclude = append(files.exclude, globbed(pattern[1:]))
			default:
				files.text = append(files.text, pattern)
				files.include = append(files.include, globbed(pattern))
			}
		}
		rules[name] = files
	}
	if len(rules) == 0 {
		t.Fatal("no depguard rules in .golangci.yml")
	}
	return rules
}

// globbed translates a pattern of depguard: ** stands for any text, * for any text without a slash.
func globbed(pattern string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(pattern)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	return regexp.MustCompile("^" + quoted + "$")
}

// allPackages are the folders with Go files that are not tests, by their path from the root.
func allPackages(t *testing.T) []string {
	t.Helper()
	packages := map[string]bool{}
	for path := range ownText(t) {
		if filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") {
			packages[filepath.ToSlash(filepath.Dir(path))] = true
		}
	}
	return slices.Sorted(maps.Keys(packages))
}
