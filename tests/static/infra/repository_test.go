// Package infra holds infra/bicep, infra/deploy.sh and docs/operations.md against what they must agree with: contracts,
// components/azure, and the configuration of the services. It works out what the templates would ask Azure for, with its own
// small interpreter of Bicep; no compiler of Bicep and no Azure is asked, so what Azure makes of it is not known here.
package infra

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"waybill/tests/internal/bicep"
)

// top is the repository's folder, seen from here.
const top = "../../.."

// read are the folders and files that the checks read.
var read = []string{"infra", "components", "contracts", "docs/operations.md", "dapr.yaml", "services", "platform", "Dockerfile"}

// repository is the repository, or a copy with something wrong in it.
type repository struct {
	root string
	// plans are what main.bicep comes to, by the name of the parameters.
	plans map[string]*bicep.Deployment
}

// checks are all that is asked of a repository; each names what is wrong, as file:line: text.
var checks = map[string]func(repository) []string{
	"resource types and versions": resourceTypes,
	"names":                       names,
	"parameters":                  parameters,
	"secrets":                     secrets,
	"roles":                       roles,
	"who may do what":             rights,
	"Service Bus":                 serviceBus,
	"Event Hubs":                  eventHubs,
	"Cosmos DB":                   cosmos,
	"Azure Data Explorer":         kusto,
	"managed components":          managedComponents,
	"apps":                        apps,
	"fulfillment's sidecar":       ownSidecar,
	"environment variables":       variables,
	"scale rules":                 scaleRules,
	"alerts":                      alerts,
	"images":                      images,
}

// open works the templates out, with each parameter file and, if that is asked for, with the longest names that the parameters
// allow.
func open(root string, longest bool) (repository, error) {
	r := repository{root: root, plans: map[string]*bicep.Deployment{}}
	given := map[string]*bicep.Value{}
	// What infra/deploy.sh adds to the files; the test of the script compares the two.
	for name, value := range map[string]string{"registryName": "waybill0123456789abc", "imageTag": "3f2a1b0", "release": "3f2a1b0-1767225600"} {
		given[name] = bicep.Text(value)
	}
	given["clientAddresses"] = bicep.Texts("203.0.113.0/24", "198.51.100.7/32")
	for _, name := range []string{"dev", "prod"} {
		file, err := bicep.Load(filepath.Join(root, "infra/bicep", name+".parameters.json"))
		if err != nil {
			return r, err
		}
		set := maps.Clone(given)
		for key, value := range file.At("parameters").Fields {
			set[key] = value.At("value")
		}
		if r.plans[name], err = bicep.Deploy(filepath.Join(root, "infra/bicep/main.bicep"), set); err != nil {
			return r, err
		}
		if !longest {
			continue
		}
		set["environmentName"] = bicep.Text("staged")
		set["locations"] = bicep.Texts("germanywestcentral", "australiasoutheast", "southafricanorth", "westeurope", "northeurope")
		set["fulfillmentLocation"] = bicep.Text("australiasoutheast")
		if r.plans[name+" at its longest"], err = bicep.Deploy(filepath.Join(root, "infra/bicep/main.bicep"), set); err != nil {
			return r, err
		}
	}
	var err error
	r.plans["registry"], err = bicep.Deploy(filepath.Join(root, "infra/bicep/registry.bicep"), nil)
	return r, err
}

// systems are the plans of the whole system.
func (r repository) systems() map[string]*bicep.Deployment {
	systems := maps.Clone(r.plans)
	delete(systems, "registry")
	return systems
}

// relative names files from the repository's folder on.
func (r repository) relative(fault string) string { return strings.ReplaceAll(fault, r.root+"/", "") }

// run gives what a check finds, sorted.
func (r repository) run(name string) []string {
	found := checks[name](r)
	for i := range found {
		found[i] = r.relative(found[i])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// at is one fault.
func at(pos fmt.Stringer, format string, args ...any) string {
	return pos.String() + ": " + fmt.Sprintf(format, args...)
}

// line finds the place of a text in a file, for faults that no value stands for.
func (r repository) line(file, text string) string {
	content, err := os.ReadFile(filepath.Join(r.root, file))
	if err != nil {
		return file
	}
	before, _, found := strings.Cut(string(content), text)
	if !found {
		return file
	}
	return fmt.Sprintf("%s:%d", file, strings.Count(before, "\n")+1)
}

var opened = sync.OnceValues(func() (repository, error) { return open(top, true) })

func TestInfrastructure(t *testing.T) {
	t.Parallel()
	r, err := opened()
	if err != nil {
		t.Fatal(r.relative(err.Error()))
	}
	for name := range checks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, fault := range r.run(name) {
				t.Error(fault)
			}
		})
	}
}

// copied is a copy of what the checks read.
func copied(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, part := range read {
		err := filepath.WalkDir(filepath.Join(top, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			target := filepath.Join(to, strings.TrimPrefix(path, top))
			if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
				return err
			}
			return os.WriteFile(target, content, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestMistakesAreFound makes one mistake at a time and wants it named with its file and line.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	root := copied(t)
	tried := map[string]bool{}
	for _, m := range mistakes {
		tried[m.check] = true
		t.Run(m.check+": "+m.name(), func(t *testing.T) {
			path := filepath.Join(root, m.file)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(content), m.old) {
				t.Fatalf("%s does not hold %q any more", m.file, m.old)
			}
			if err := os.WriteFile(path, []byte(strings.Replace(string(content), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Error(err)
				}
			}()
			r, err := open(root, m.check == "names")
			var found []string
			if err != nil {
				found = []string{r.relative(err.Error())}
			} else {
				found = r.run(m.check)
			}
			named := regexp.MustCompile(`^[\w./-]+:\d+: `)
			for _, fault := range found {
				if strings.Contains(fault, m.want) && named.MatchString(fault) {
					return
				}
			}
			t.Errorf("found %q, want a place and %q", found, m.want)
		})
	}
	for name := range checks {
		if !tried[name] {
			t.Errorf("no mistake is tried for the check of %s", name)
		}
	}
}

// last is the last part of a resource's name.
func last(r *bicep.Resource) string { return r.Name[strings.LastIndex(r.Name, "/")+1:] }
