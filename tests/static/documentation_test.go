package static

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestEveryValueIsDocumented keeps the tables in the README of components/azure and components/emulators equal to the environment
// references and secrets in the component files there: a deployment sets what the tables list.
func TestEveryValueIsDocumented(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"azure", "emulators"} {
		asked := map[string]bool{}
		for _, c := range readFolder(t, name).components {
			for _, e := range c.Spec.Metadata {
				if e.EnvRef != "" {
					asked[e.EnvRef] = true
				}
				if e.Secret != nil {
					asked[e.Secret.Key] = true
					if e.Secret.Key != e.Secret.Name {
						t.Errorf("components/%s: %s: a Key Vault secret has no keys, so name and key are the same", name, e.Name)
					}
				}
			}
		}
		path := filepath.Join(root, "components", name, "README.md")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		documented := map[string]bool{}
		// The first column of a row holds one name or several: | `A`, `B` | ...
		for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[A-Za-z_-]+`(?:, )?)+) \\|").FindAllSubmatch(text, -1) {
			for _, value := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(row[1], -1) {
				documented[string(value[1])] = true
			}
		}
		for value := range asked {
			if !documented[value] {
				t.Errorf("components/%s/README.md says nothing of %s, the nearest is %q", name, value, nearest(value, slices.Collect(maps.Keys(documented))))
			}
		}
		for value := range documented {
			if !asked[value] {
				t.Errorf("components/%s/README.md documents %s, for which no component there asks", name, value)
			}
		}
	}
}
