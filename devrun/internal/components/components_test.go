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
		Type     string `yaml:"type"`
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

func TestCopyReplacesTheDefaults(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "copy")
	run := Run{Broker: "127.0.0.1:20001", InboxMail: 20002, InboxHTTP: "127.0.0.1:20003", Data: "/data of/a?run"}
	if err := Copy(to, []string{local}, run); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ component, name, want string }{
		{contracts.OrderBus, "brokers", "127.0.0.1:20001"},
		{contracts.Email, "host", "127.0.0.1"},
		{contracts.Email, "port", "20002"},
		{contracts.SMS, "url", "http://127.0.0.1:20003/sms"},
	} {
		if got := read(t, filepath.Join(to, c.component+".yaml")).value(c.name); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.component, c.name, got, c.want)
		}
	}
	for _, name := range []string{contracts.StateStore, contracts.WorkflowStore} {
		got := read(t, filepath.Join(to, name+".yaml")).value("connectionString")
		if want := "file:/data of/a%3frun/state/{appID}." + name + ".db?_pragma=synchronous(NORMAL)"; got != want {
			t.Errorf("%s is at %q, want %q", name, got, want)
		}
	}

	// A second run on the same data replaces the copy.
	run.Broker = "127.0.0.1:20004"
	if err := Copy(to, []string{local}, run); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "orderbus.yaml")).value("brokers"); got != "127.0.0.1:20004" {
		t.Errorf("brokers: %q", got)
	}
}

// TestTheBusesKnowTheContracts keeps the topics and scopes of each pub/sub component equal to what contracts says.
func TestTheBusesKnowTheContracts(t *testing.T) {
	t.Parallel()
	for _, name := range contracts.Buses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			busKnowsTheContracts(t, name)
		})
	}
}

func busKnowsTheContracts(t *testing.T, name string) {
	t.Helper()
	bus := read(t, filepath.Join(local, name+".yaml"))
	if bus.Metadata.Name != name {
		t.Errorf("component is named %q", bus.Metadata.Name)
	}
	list := func(text string) []string {
		all := strings.Split(text, ",")
		slices.Sort(all)
		return all
	}
	for _, field := range []string{"allowedTopics", "protectedTopics"} {
		if got, want := list(bus.value(field)), contracts.TopicsOf(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", field, got, want)
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
		if contracts.Bus(s.Topic) != name {
			continue
		}
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

// TestTheChannelsAreTheInbox keeps the local output bindings named as contracts names them, at the inbox, and away from
// the apps that do not send.
func TestTheChannelsAreTheInbox(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ component, kind, name, want string }{
		{contracts.Email, "bindings.smtp", "port", "1025"},
		{contracts.SMS, "bindings.http", "url", "http://" + DefaultCalls + "/sms"},
	} {
		got := read(t, filepath.Join(local, c.component+".yaml"))
		if got.Metadata.Name != c.component || got.Spec.Type != c.kind {
			t.Errorf("%s: named %q, of type %q", c.component, got.Metadata.Name, got.Spec.Type)
		}
		if value := got.value(c.name); value != c.want {
			t.Errorf("%s: %s is %q, want %q", c.component, c.name, value, c.want)
		}
		if want := []string{contracts.AppNotifications}; !slices.Equal(got.Scopes, want) {
			t.Errorf("%s: for %v, want %v", c.component, got.Scopes, want)
		}
	}
}
