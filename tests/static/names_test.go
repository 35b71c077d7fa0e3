package static

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"waybill/contracts"
)

var apps = []string{contracts.AppOrders, contracts.AppFulfillment, contracts.AppAnalytics, contracts.AppNotifications}

// inboxWriters publish to the notifications topic, which is an inbox and has no owner.
var inboxWriters = []string{contracts.AppFulfillment}

// rights are the topics that an app may use on a bus, by app.
type rights map[string][]string

func (r rights) add(app string, topics ...string) { r[app] = append(r[app], topics...) }

func (r rights) sorted() rights {
	for _, topics := range r {
		slices.Sort(topics)
	}
	return r
}

// wantRights follow from contracts: an owner publishes to its topics; a subscriber reads the topic, publishes to its own
// dead-letter topic and reads that.
func wantRights(bus string) (publish, subscribe rights) {
	publish, subscribe = rights{}, rights{}
	for _, topic := range contracts.EventTopics() {
		switch {
		case contracts.Bus(topic) != bus:
		case topic == contracts.TopicNotifications:
			for _, app := range inboxWriters {
				publish.add(app, topic)
			}
		default:
			publish.add(contracts.Owner(topic), topic)
		}
	}
	for _, s := range contracts.Subscriptions() {
		if contracts.Bus(s.Topic) == bus {
			publish.add(s.App, s.DeadLetter())
			subscribe.add(s.App, s.Topic, s.DeadLetter())
		}
	}
	return publish.sorted(), subscribe.sorted()
}

// wantScopes are the components that every folder must have, with the apps that get each.
func wantScopes() map[string][]string {
	want := map[string][]string{
		contracts.StateStore:    apps,
		contracts.WorkflowStore: {contracts.AppFulfillment},
		contracts.Email:         {contracts.AppNotifications},
		contracts.SMS:           {contracts.AppNotifications},
	}
	for _, bus := range contracts.Buses() {
		publish, subscribe := wantRights(bus)
		all := slices.Concat(slices.Collect(maps.Keys(publish)), slices.Collect(maps.Keys(subscribe)))
		slices.Sort(all)
		want[bus] = slices.Compact(all)
	}
	for _, scopes := range want {
		slices.Sort(scopes)
	}
	return want
}

// TestTheComponentsKnowTheContracts keeps the names, scopes and topics of all component files equal to those in contracts, and so
// the folders equal to each other.
func TestTheComponentsKnowTheContracts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"local", "azure", "emulators"} {
		f := readFolder(t, name)
		want := wantScopes()
		users := map[string][]string{} // of secret stores
		for file, c := range f.components {
			path := "components/" + name + "/" + file
			if c.Auth.SecretStore != "" {
				users[c.Auth.SecretStore] = append(users[c.Auth.SecretStore], c.Scopes...)
			}
			if strings.HasPrefix(c.Spec.Type, "secretstores.") {
				continue
			}
			scopes, ok := want[c.Metadata.Name]
			if !ok {
				t.Errorf("%s: contracts knows no component %q, the nearest is %q", path, c.Metadata.Name, nearest(c.Metadata.Name, slices.Collect(maps.Keys(want))))
				continue
			}
			delete(want, c.Metadata.Name)
			if got := slices.Sorted(slices.Values(c.Scopes)); !slices.Equal(got, scopes) {
				t.Errorf("%s: scopes are %v, want %v", path, got, scopes)
			}
			if engine := c.value("actorStateStore") == "true"; engine != (c.Metadata.Name == contracts.WorkflowStore) {
				t.Errorf("%s: actorStateStore is %v; the workflow engine's state is in %s alone", path, engine, contracts.WorkflowStore)
			}
			if slices.Contains(contracts.Buses(), c.Metadata.Name) {
				checkTopics(t, path, c)
			}
		}
		for missing := range want {
			t.Errorf("components/%s has no %s", name, missing)
		}
		for store, scopes := range users {
			slices.Sort(scopes)
			c, ok := f.components[store+".yaml"]
			if got := slices.Sorted(slices.Values(c.Scopes)); !ok || !slices.Equal(got, slices.Compact(scopes)) {
				t.Errorf("components/%s/%s.yaml: scopes are %v, want those of the components that keep secrets there, %v", name, store, got, scopes)
			}
		}
		checkResiliency(t, f)
	}
}

func checkTopics(t *testing.T, path string, bus component) {
	t.Helper()
	for _, field := range []string{"allowedTopics", "protectedTopics"} {
		got := strings.Split(bus.value(field), ",")
		slices.Sort(got)
		if diff := cmp.Diff(contracts.TopicsOf(bus.Metadata.Name), got); diff != "" {
			t.Errorf("%s: %s differs from contracts.TopicsOf (-want +got):\n%s", path, field, diff)
		}
	}
	publish, subscribe := wantRights(bus.Metadata.Name)
	for field, want := range map[string]rights{"publishingScopes": publish, "subscriptionScopes": subscribe} {
		got := rights{}
		for scope := range strings.SplitSeq(bus.value(field), ";") {
			app, topics, _ := strings.Cut(scope, "=")
			got.add(app, strings.Split(topics, ",")...)
		}
		if diff := cmp.Diff(want, got.sorted()); diff != "" {
			t.Errorf("%s: %s differs from what contracts allows (-want +got):\n%s", path, field, diff)
		}
	}
}

// checkResiliency fails for a policy that names no component of ours: Dapr would silently ignore it.
func checkResiliency(t *testing.T, f folder) {
	t.Helper()
	for file, other := range f.others {
		if other["kind"] != "Resiliency" {
			continue
		}
		spec, _ := other["spec"].(map[string]any)
		targets, _ := spec["targets"].(map[string]any)
		components, _ := targets["components"].(map[string]any)
		if got := slices.Sorted(maps.Keys(components)); !slices.Equal(got, contracts.Buses()) {
			t.Errorf("components/%s/%s: there are policies for %v, want %v", f.name, file, got, contracts.Buses())
		}
	}
}

// TestTheRunFileKnowsTheContracts keeps dapr.yaml and the addresses in docs/api.md equal.
func TestTheRunFileKnowsTheContracts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "dapr.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var run struct {
		Common struct {
			ResourcesPaths []string `yaml:"resourcesPaths"`
			ConfigFilePath string   `yaml:"configFilePath"`
		} `yaml:"common"`
		Apps []struct {
			AppID      string `yaml:"appID"`
			AppDirPath string `yaml:"appDirPath"`
			AppPort    int    `yaml:"appPort"`
			HTTPPort   int    `yaml:"daprHTTPPort"`
			GRPCPort   int    `yaml:"daprGRPCPort"`
			Metrics    int    `yaml:"metricsPort"`
		} `yaml:"apps"`
	}
	if err := yaml.Unmarshal(text, &run); err != nil {
		t.Fatalf("dapr.yaml: %v", err)
	}
	for _, path := range append(run.Common.ResourcesPaths, run.Common.ConfigFilePath) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Errorf("dapr.yaml: %v", err)
		}
	}
	documented := documentedPorts(t)
	left := slices.Clone(apps)
	for _, app := range run.Apps {
		i := slices.Index(left, app.AppID)
		if i < 0 {
			t.Errorf("dapr.yaml: contracts knows no app %q that is not there already, the nearest is %q", app.AppID, nearest(app.AppID, apps))
			continue
		}
		left = slices.Delete(left, i, i+1)
		if want := "./services/" + app.AppID; app.AppDirPath != want {
			t.Errorf("dapr.yaml: %s is in %s, want %s", app.AppID, app.AppDirPath, want)
		}
		if app.AppPort != documented[app.AppID] {
			t.Errorf("dapr.yaml: %s has appPort %d, and docs/api.md says %d", app.AppID, app.AppPort, documented[app.AppID])
		}
		// The last digit of all ports of an app is the same.
		for name, port := range map[string]int{"daprHTTPPort": app.HTTPPort - 3500, "daprGRPCPort": app.GRPCPort - 50010, "metricsPort": app.Metrics - 9100} {
			if port != app.AppPort-8000 {
				t.Errorf("dapr.yaml: %s has appPort %d, and a %s that does not go with it", app.AppID, app.AppPort, name)
			}
		}
	}
	for _, app := range left {
		t.Errorf("dapr.yaml has no app %s", app)
	}
}

// documentedPorts are the ports in the table of routes in docs/api.md, whose rows begin with "| orders, 8001 |".
func documentedPorts(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z]+), (80\d\d) \|`).FindAllSubmatch(text, -1) {
		port := 0
		for _, digit := range row[2] {
			port = port*10 + int(digit-'0')
		}
		ports[string(row[1])] = port
	}
	return ports
}

// TestOnlyContractsNamesComponents fails for code with a component's name of its own: it would not follow a change in contracts.
func TestOnlyContractsNamesComponents(t *testing.T) {
	t.Parallel()
	var names []string
	for name := range wantScopes() {
		if name != contracts.Email && name != contracts.SMS { // also the names of channels
			names = append(names, regexp.QuoteMeta(name))
		}
	}
	literal := regexp.MustCompile(`"(` + strings.Join(names, "|") + `|[a-z-]+\.[a-z]+\.dead)"`)
	files := 0
	for _, dir := range []string{"services", "platform", "devrun"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			text, err := os.ReadFile(path)
			for _, found := range literal.FindAll(text, -1) {
				t.Errorf("%s names %s; contracts has a name for it", path, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}
