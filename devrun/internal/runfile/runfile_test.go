package runfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, Name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

const good = `
version: 1
common:
  resourcesPaths: [./components/local]
  configFilePath: ./components/local/config.yaml
  placementHostAddress: 127.0.0.1:50005
  schedulerHostAddress: 127.0.0.1:50006
  env: {SHARED: common, MINE: common}
apps:
  - appID: orders
    appDirPath: ./services/orders
    appPort: 8001
    daprHTTPPort: 3501
    daprGRPCPort: 50011
    command: ["go", "run", "."]
    env: {MINE: own}
  - appDirPath: ./services/other
    appPort: 8002
    daprHTTPPort: 3502
    daprGRPCPort: 50012
    resourcesPaths: [./res]
    command: ["./other", "--fast"]
`

func TestLoad(t *testing.T) {
	t.Parallel()
	root := write(t, good)
	file, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if file.PlacementPort != 50005 || file.SchedulerPort != 50006 {
		t.Errorf("placement %d, scheduler %d", file.PlacementPort, file.SchedulerPort)
	}
	orders, other := file.Apps[0], file.Apps[1]
	if !orders.GoPackage() || other.GoPackage() {
		t.Error("only `go run .` is a package to build")
	}
	if other.ID != "other" {
		t.Errorf("an app without an id is named for its folder, not %q", other.ID)
	}
	if orders.Env["SHARED"] != "common" || orders.Env["MINE"] != "own" {
		t.Errorf("env is %v", orders.Env)
	}
	if got, want := orders.ResourcePaths[0], filepath.Join(root, "components", "local"); got != want {
		t.Errorf("common resources: %s, want %s", got, want)
	}
	if got, want := other.ResourcePaths[0], filepath.Join(root, "services", "other", "res"); got != want {
		t.Errorf("an app's own resources: %s, want %s", got, want)
	}
	if got, want := orders.ConfigFile, filepath.Join(root, "components", "local", "config.yaml"); got != want {
		t.Errorf("config: %s, want %s", got, want)
	}
	if orders.Protocol != "http" || orders.LogLevel != "info" {
		t.Errorf("defaults: %q, %q", orders.Protocol, orders.LogLevel)
	}
}

func TestLoadNamesEveryFault(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"unknown setting": {strings.Replace(good, "appPort: 8001", "appPrt: 8001", 1), "appPrt"},
		"version":         {strings.Replace(good, "version: 1", "version: 2", 1), "version is 2"},
		"no ports":        {strings.Replace(good, "daprHTTPPort: 3501", "", 1), "app orders: appPort, daprHTTPPort and daprGRPCPort are needed"},
		"no command":      {strings.Replace(good, `command: ["go", "run", "."]`, "", 1), "app orders: command is missing"},
		"twice":           {strings.Replace(good, "- appDirPath", "- appID: orders\n    appDirPath", 1), "app orders: appears twice"},
		"no folder":       {strings.Replace(good, "appDirPath: ./services/orders", "", 1), "apps[0]: appDirPath is missing"},
		"address":         {strings.Replace(good, ":50005", ":none", 1), "placementHostAddress"},
		"no apps":         {"version: 1\napps: []\n", "no apps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(write(t, test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestRoot(t *testing.T) {
	t.Parallel()
	root := write(t, good)
	deep := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Root(deep); err != nil || got != root {
		t.Errorf("found %q (%v), want %q", got, err, root)
	}
	if got, err := Root(t.TempDir()); err == nil {
		t.Errorf("found %q where there is none", got)
	}
}

// TestTheRepositorysOwnFile keeps dapr.yaml readable for the runner.
func TestTheRepositorysOwnFile(t *testing.T) {
	t.Parallel()
	root, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	file, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range file.Apps {
		if !a.GoPackage() {
			t.Errorf("%s is not started with `go run .`", a.ID)
		}
		if a.MetricsPort == 0 {
			t.Errorf("%s has no metricsPort: the Dapr CLI would choose any", a.ID)
		}
	}
}
