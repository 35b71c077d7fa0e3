package components

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"waybill/contracts"
)

const local = "../../../components/local"

type component struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Metadata []struct {
			Name  string `yaml:"name"`
			Value string `yaml:"value"`
		} `yaml:"metadata"`
	} `yaml:"spec"`
	Scopes []string `yaml:"scopes"`
}

func (c component) value(name string) string {
	for _, m := range c.Spec.Metadata {
		if m.Name == name {
			return m.Value
		}
	}
	return ""
}

func read(t *testing.T, path string) component {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c component
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCopyReplacesBrokerAndData(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "copy")
	if err := Copy(to, []string{local}, "127.0.0.1:20001", "/data of/a?run"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "orderbus.yaml")).value("brokers"); got != "127.0.0.1:20001" {
		t.Errorf("brokers: %q", got)
	}
	for _, name := range []string{contracts.StateStore, contracts.WorkflowStore} {
		got := read(t, filepath.Join(to, name+".yaml")).value("connectionString")
		if want := "file:/data of/a%3frun/state/{appID}." + name + ".db?_pragma=synchronous(NORMAL)"; got != want {
			t.Errorf("%s is at %q, want %q", name, got, want)
		}
	}

	// A second run on the same data replaces the copy.
	if err := Copy(to, []string{local}, "127.0.0.1:20002", "/data"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "orderbus.yaml")).value("brokers"); got != "127.0.0.1:20002" {
		t.Errorf("brokers: %q", got)
	}
}

// TestTheOrderBusKnowsTheContracts keeps orderbus.yaml's topics and scopes equal to what contracts says.
func TestTheOrderBusKnowsTheContracts(t *testing.T) {
	t.Parallel()
	bus := read(t, filepath.Join(local, "orderbus.yaml"))
	if bus.Metadata.Name != contracts.OrderBus {
		t.Errorf("component is named %q", bus.Metadata.Name)
	}
	list := func(text string) []string {
		all := strings.Split(text, ",")
		slices.Sort(all)
		return all
	}
	for _, name := range []string{"allowedTopics", "protectedTopics"} {
		if got, want := list(bus.value(name)), contracts.Topics(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	scopes := func(text string) map[string][]string {
		all := map[string][]string{}
		for scope := range strings.SplitSeq(text, ";") {
			app, topics, _ := strings.Cut(scope, "=")
			all[app] = list(topics)
		}
		return all
	}
	reads, parks := map[string][]string{}, map[string][]string{}
	for _, s := range contracts.Subscriptions() {
		// An app reads its dead-letter topics too, for whoever asks what was parked.
		reads[s.App] = append(reads[s.App], s.Topic, s.DeadLetter())
		parks[s.App] = append(parks[s.App], s.DeadLetter())
	}
	publishes := scopes(bus.value("publishingScopes"))
	for app, want := range reads {
		slices.Sort(want)
		if got := scopes(bus.value("subscriptionScopes"))[app]; !slices.Equal(got, want) {
			t.Errorf("%s may subscribe to %v, want %v", app, got, want)
		}
		for _, topic := range parks[app] {
			if !slices.Contains(publishes[app], topic) {
				t.Errorf("%s may not publish to its dead-letter topic %s", app, topic)
			}
		}
		if !slices.Contains(bus.Scopes, app) {
			t.Errorf("%s does not get the component", app)
		}
	}
}
