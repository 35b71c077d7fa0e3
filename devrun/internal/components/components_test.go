package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"waybill/contracts"
)

const local = "../../../components/local"

type component struct {
	Spec struct {
		Type     string `yaml:"type"`
		Metadata []struct {
			Name  string `yaml:"name"`
			Value string `yaml:"value"`
		} `yaml:"metadata"`
	} `yaml:"spec"`
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

	config := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(to, "config.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	usual, err := os.ReadFile(filepath.Join(local, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if config() != string(usual) {
		t.Error("the configuration was changed, and nothing else was asked for")
	}

	// A second run on the same data replaces the copy.
	run.Broker = "127.0.0.1:20004"
	run.WorkflowRetention, run.StateCleanup = 90*time.Second, 10*time.Second
	if err := Copy(to, []string{local}, run); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "orderbus.yaml")).value("brokers"); got != "127.0.0.1:20004" {
		t.Errorf("brokers: %q", got)
	}
	for _, want := range []string{`completed: "1m30s"`, `anyTerminal: "1m30s"`} {
		if !strings.Contains(config(), want) {
			t.Errorf("the configuration has no %s:\n%s", want, config())
		}
	}
	for _, name := range []string{contracts.StateStore, contracts.WorkflowStore} {
		if got := read(t, filepath.Join(to, name+".yaml")).value("cleanupInterval"); got != "10s" {
			t.Errorf("%s: cleanupInterval is %q", name, got)
		}
	}
}

// TestTheChannelsAreTheInbox keeps the local output bindings at the inbox, where Copy finds their addresses. Their names and
// scopes are checked in tests/static, with those of all other components.
func TestTheChannelsAreTheInbox(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ component, kind, name, want string }{
		{contracts.Email, "bindings.smtp", "port", "1025"},
		{contracts.SMS, "bindings.http", "url", "http://" + DefaultCalls + "/sms"},
	} {
		got := read(t, filepath.Join(local, c.component+".yaml"))
		if got.Spec.Type != c.kind {
			t.Errorf("%s: of type %q", c.component, got.Spec.Type)
		}
		if value := got.value(c.name); value != c.want {
			t.Errorf("%s: %s is %q, want %q", c.component, c.name, value, c.want)
		}
	}
}
