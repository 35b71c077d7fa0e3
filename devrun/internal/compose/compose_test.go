package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"waybill/contracts"
	"waybill/devrun/internal/runfile"
)

const root = "../../.."

// described is what this test reads of docker-compose.yml.
type described struct {
	Services map[string]struct {
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		Ports       []string          `yaml:"ports"`
	} `yaml:"services"`
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// One system is described three times, for processes, for containers, and by the images themselves; the descriptions agree.
func TestDockerComposeDescribesTheSystemOfDaprYAML(t *testing.T) {
	t.Parallel()
	file, err := runfile.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	var compose described
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &compose); err != nil {
		t.Fatal(err)
	}
	dockerfile := read(t, "Dockerfile")
	known := []string{contracts.AppOrders, contracts.AppFulfillment, contracts.AppAnalytics, contracts.AppNotifications}
	var apps []string
	for _, app := range file.Apps {
		apps = append(apps, app.ID)
		port := strconv.Itoa(app.Port)
		service, ok := compose.Services[app.ID]
		if !ok {
			t.Errorf("docker-compose.yml has no service %s", app.ID)
			continue
		}
		if want := "127.0.0.1:${" + strings.ToUpper(app.ID) + "_PORT:-" + port + "}:" + port; !slices.Equal(service.Ports, []string{want}) {
			t.Errorf("%s publishes %q, want %q as in dapr.yaml", app.ID, service.Ports, want)
		}
		if want := app.ID + "-sidecar"; service.Environment["DAPR_HOST"] != want {
			t.Errorf("%s looks for its sidecar at %q, want %q", app.ID, service.Environment["DAPR_HOST"], want)
		}
		for _, name := range []string{"STATE_CALLS", "GOGC"} {
			if got, want := service.Environment[name], app.Env[name]; got != want || want == "" {
				t.Errorf("%s: %s is %q, want %q as in dapr.yaml", app.ID, name, got, want)
			}
		}
		want := []string{"--app-id=" + app.ID, "--app-port=" + port, "--app-channel-address=" + app.ID}
		if got := compose.Services[app.ID+"-sidecar"].Command; !slices.Equal(got, want) {
			t.Errorf("%s's sidecar is started with %q, want %q", app.ID, got, want)
		}
		if !regexp.MustCompile(`(?s)FROM base AS base-` + app.ID + `\n[^#]*?ENV APP_HOST=0\.0\.0\.0 APP_PORT=` + port + `\b.*?\nENTRYPOINT`).MatchString(dockerfile) {
			t.Errorf("the Dockerfile does not give %s the port %s", app.ID, port)
		}
		if usualPorts[app.ID] != port {
			t.Errorf("`make compose-up` looks for %s on port %q, want %s", app.ID, usualPorts[app.ID], port)
		}
	}
	slices.Sort(known)
	slices.Sort(apps)
	if !slices.Equal(apps, known) {
		t.Errorf("dapr.yaml has the apps %v, contracts %v", apps, known)
	}
}
