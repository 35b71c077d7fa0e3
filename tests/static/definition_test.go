// Package static checks what can be known without running anything: that the files which describe the system to Dapr and to
// Azure agree with each other, with contracts, and with what the Dapr components themselves say they take.
package static

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"
)

// root is the repository's folder, relative to this package.
const root = "../.."

// definition is a component's own description of itself, a metadata.yaml of components-contrib.
type definition struct {
	Type     string  `yaml:"type"`
	Name     string  `yaml:"name"`
	Version  string  `yaml:"version"`
	Metadata []field `yaml:"metadata"`
	Profiles []struct {
		Title    string  `yaml:"title"`
		Metadata []field `yaml:"metadata"`
	} `yaml:"authenticationProfiles"`
	BuiltinProfiles []struct {
		Name     string  `yaml:"name"`
		Metadata []field `yaml:"metadata"`
	} `yaml:"builtinAuthenticationProfiles"`
}

type field struct {
	Name     string   `yaml:"name"`
	Type     string   `yaml:"type"`
	Required bool     `yaml:"required"`
	Allowed  []string `yaml:"allowedValues"`
}

// definitions are all components of the Dapr release that the local runner builds, by type and version.
type definitions struct {
	byType map[string]map[string]definition
	// azure are the fields of every component that can authenticate with Microsoft Entra ID. No metadata.yaml lists them.
	azure []field
}

// contrib reads the definitions once for all tests.
var contrib = sync.OnceValues(func() (definitions, error) {
	// The module is in the cache wherever the runtime was built; elsewhere this downloads it.
	cmd := exec.Command("go", "mod", "download", "-json", "github.com/dapr/components-contrib")
	cmd.Dir = filepath.Join(root, "devrun", "runtime")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return definitions{}, fmt.Errorf("find components-contrib: %w: %s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil || module.Dir == "" {
		return definitions{}, fmt.Errorf("find components-contrib: %w in %s", err, out)
	}
	return readDefinitions(os.DirFS(module.Dir))
})

func readDefinitions(module fs.FS) (definitions, error) {
	all := definitions{byType: map[string]map[string]definition{}}
	err := fs.WalkDir(module, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "metadata.yaml" {
			return err
		}
		text, err := fs.ReadFile(module, path)
		if err != nil {
			return err
		}
		var d definition
		if err := yaml.Unmarshal(text, &d); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		kind := d.Type + "." + d.Name
		if all.byType[kind] == nil {
			all.byType[kind] = map[string]definition{}
		}
		all.byType[kind][d.Version] = d
		return nil
	})
	if err != nil {
		return definitions{}, fmt.Errorf("read components-contrib: %w", err)
	}
	source, err := fs.ReadFile(module, "common/authentication/azure/metadata-properties.go")
	if err != nil {
		return definitions{}, fmt.Errorf("read components-contrib: %w", err)
	}
	for _, name := range regexp.MustCompile(`"(azure[A-Za-z]+)"`).FindAllStringSubmatch(string(source), -1) {
		all.azure = append(all.azure, field{Name: name[1]})
	}
	return all, nil
}

func knownComponents(t *testing.T) definitions {
	t.Helper()
	known, err := contrib()
	if err != nil {
		t.Fatal(err)
	}
	if len(known.byType) < 100 || !slices.ContainsFunc(known.azure, func(f field) bool { return f.Name == "azureClientId" }) {
		t.Fatalf("components-contrib describes %d components, and %v", len(known.byType), known.azure)
	}
	return known
}

// nearest is the candidate that differs least from word, to suggest a correction.
func nearest(word string, candidates []string) string {
	best, least := "", len(word)
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to change, add or remove to make b from a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
