package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"waybill/tests/internal/system"
)

// description is the part of docker-compose.yml that describes what runs. An unknown key is an error, because the tests would
// start something else than Compose does.
type description struct {
	Services map[string]service  `yaml:"services"`
	Networks map[string]any      `yaml:"networks"`
	Volumes  map[string]any      `yaml:"volumes"`
	Configs  map[string]struct{} `yaml:"configs"`
}

type service struct {
	Image       string               `yaml:"image"`
	Build       any                  `yaml:"build"`
	Profiles    []string             `yaml:"profiles"`
	Entrypoint  []string             `yaml:"entrypoint"`
	Command     []string             `yaml:"command"`
	Environment map[string]string    `yaml:"environment"`
	Networks    []string             `yaml:"networks"`
	Ports       []string             `yaml:"ports"`
	Volumes     []string             `yaml:"volumes"`
	Tmpfs       []string             `yaml:"tmpfs"`
	DependsOn   map[string]condition `yaml:"depends_on"`
	Restart     string               `yaml:"restart"`
	ReadOnly    bool                 `yaml:"read_only"`
	CapDrop     []string             `yaml:"cap_drop"`
	SecurityOpt []string             `yaml:"security_opt"`
	StopGrace   string               `yaml:"stop_grace_period"`
	Logging     any                  `yaml:"logging"`
	Healthcheck *healthcheck         `yaml:"healthcheck"`
}

type condition struct {
	Condition string `yaml:"condition"`
}

type healthcheck struct {
	Test     []string `yaml:"test"`
	Interval string   `yaml:"interval"`
	Timeout  string   `yaml:"timeout"`
	Retries  int      `yaml:"retries"`
	Disable  bool     `yaml:"disable"`
}

// readCompose reads docker-compose.yml with the defaults of its variables, without services that only a profile starts.
func readCompose() (description, error) {
	var d description
	root, err := system.Root()
	if err != nil {
		return d, err
	}
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		return d, err
	}
	var whole map[string]any
	if err := yaml.Unmarshal(withDefaults(text), &whole); err != nil {
		return d, err
	}
	for key := range whole {
		if strings.HasPrefix(key, "x-") {
			delete(whole, key) // its anchors stand where they are used by now
		}
	}
	plain, err := yaml.Marshal(whole)
	if err != nil {
		return d, err
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(plain)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		return d, fmt.Errorf("docker-compose.yml: %w", err)
	}
	for name, s := range d.Services {
		if len(s.Profiles) > 0 {
			delete(d.Services, name)
		}
	}
	return d, nil
}

var variable = regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`)

func withDefaults(text []byte) []byte { return variable.ReplaceAll(text, []byte("$1")) }

func duration(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	return time.ParseDuration(text)
}

// The first lines of docker-compose.yml say this.
func TestOnlyTheAPIsCanBeReachedAndNobodyHasMoreRightsThanNeeded(t *testing.T) {
	t.Parallel()
	d, err := readCompose()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range d.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read_only %t, cap_drop %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		_, hasSidecar := d.Services[name+"-sidecar"]
		if hasSidecar != (len(s.Ports) == 1) || len(s.Ports) > 1 {
			t.Errorf("%s publishes %v", name, s.Ports)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s, which other machines can reach", name, port)
			}
		}
		if hasSidecar && !slices.Equal(s.Networks, []string{name}) {
			t.Errorf("%s is on the networks %v, want only the one it shares with its sidecar", name, s.Networks)
		}
	}
}
