// Package runfile reads dapr.yaml, the Dapr CLI's multi-app run file, so that the runner and `dapr run -f .` start the same
// system. It owns the file's meaning (defaults, precedence, what paths are relative to) as the CLI defines it, and knows
// nothing of processes.
package runfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Name is the file's name in the root of the repository.
const Name = "dapr.yaml"

// File is a checked run file: every path is absolute and every app has its common settings merged in.
type File struct {
	// Root is the folder the file lies in.
	Root string
	Apps []App
	// PlacementPort and SchedulerPort are the ports of the two addresses, 0 when the file does not name them.
	PlacementPort int
	SchedulerPort int
}

// App is one app and its sidecar.
type App struct {
	ID            string
	Dir           string // working directory of the app and of its sidecar
	Port          int
	Protocol      string
	HTTPPort      int // the sidecar's
	GRPCPort      int // the sidecar's
	MetricsPort   int // the sidecar's; 0 is "any free one"
	ResourcePaths []string
	ConfigFile    string
	LogLevel      string
	MaxBodySize   string
	Command       []string
	Env           map[string]string

	HealthCheck     bool
	HealthCheckPath string
}

// GoPackage reports whether the app's command is `go run .`: the package in Dir, which may as well be built once and run.
func (a App) GoPackage() bool { return slices.Equal(a.Command, []string{"go", "run", "."}) }

// shared is what both `common` and an app may say.
type shared struct {
	ResourcesPath        string            `yaml:"resourcesPath"`
	ResourcesPaths       []string          `yaml:"resourcesPaths"`
	ConfigFilePath       string            `yaml:"configFilePath"`
	AppProtocol          string            `yaml:"appProtocol"`
	PlacementHostAddress string            `yaml:"placementHostAddress"`
	SchedulerHostAddress string            `yaml:"schedulerHostAddress"`
	LogLevel             string            `yaml:"logLevel"`
	MaxBodySize          string            `yaml:"maxBodySize"`
	EnableAppHealthCheck bool              `yaml:"enableAppHealthCheck"`
	AppHealthCheckPath   string            `yaml:"appHealthCheckPath"`
	Env                  map[string]string `yaml:"env"`

	// Read by the CLI, without meaning for the runner: it binds to the loopback interface and owns the logs.
	APIListenAddresses  string `yaml:"apiListenAddresses"`
	AppLogDestination   string `yaml:"appLogDestination"`
	DaprdLogDestination string `yaml:"daprdLogDestination"`
}

type document struct {
	Version int    `yaml:"version"`
	Name    string `yaml:"name"`
	Common  shared `yaml:"common"`
	Apps    []struct {
		shared       `yaml:",inline"`
		AppID        string   `yaml:"appID"`
		AppDirPath   string   `yaml:"appDirPath"`
		AppPort      int      `yaml:"appPort"`
		DaprHTTPPort int      `yaml:"daprHTTPPort"`
		DaprGRPCPort int      `yaml:"daprGRPCPort"`
		MetricsPort  int      `yaml:"metricsPort"`
		Command      []string `yaml:"command"`
	} `yaml:"apps"`
}

// Root walks up from dir to the first folder that holds a run file.
func Root(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, Name))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for %s: %w", Name, err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s in %s or any folder above it", Name, start)
		}
	}
}

// Load reads the run file in root. A setting the runner does not know is an error rather than a setting that silently
// does nothing.
func Load(root string) (*File, error) {
	path := filepath.Join(root, Name)
	text, err := fs.ReadFile(os.DirFS(root), Name)
	if err != nil {
		return nil, fmt.Errorf("read run file: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var doc document
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	file, err := check(root, doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func check(root string, doc document) (*File, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if doc.Version != 1 {
		fault("version is %d, want 1", doc.Version)
	}
	if len(doc.Apps) == 0 {
		fault("no apps")
	}
	file := &File{Root: root}
	var err error
	if file.PlacementPort, err = portOf(doc.Common.PlacementHostAddress); err != nil {
		fault("common: placementHostAddress: %w", err)
	}
	if file.SchedulerPort, err = portOf(doc.Common.SchedulerHostAddress); err != nil {
		fault("common: schedulerHostAddress: %w", err)
	}

	seen := map[string]bool{}
	for i, a := range doc.Apps {
		if a.AppDirPath == "" {
			fault("apps[%d]: appDirPath is missing", i)
			continue
		}
		dir := abs(root, a.AppDirPath)
		app := App{
			ID:              first(a.AppID, filepath.Base(dir)),
			Dir:             dir,
			Port:            a.AppPort,
			Protocol:        first(a.AppProtocol, doc.Common.AppProtocol, "http"),
			HTTPPort:        a.DaprHTTPPort,
			GRPCPort:        a.DaprGRPCPort,
			MetricsPort:     a.MetricsPort,
			LogLevel:        first(a.LogLevel, doc.Common.LogLevel, "info"),
			MaxBodySize:     first(a.MaxBodySize, doc.Common.MaxBodySize),
			Command:         a.Command,
			Env:             map[string]string{},
			HealthCheck:     a.EnableAppHealthCheck || doc.Common.EnableAppHealthCheck,
			HealthCheckPath: first(a.AppHealthCheckPath, doc.Common.AppHealthCheckPath),
		}
		maps.Copy(app.Env, doc.Common.Env)
		maps.Copy(app.Env, a.Env)
		app.ResourcePaths, app.ConfigFile = resources(root, dir, a.shared, doc.Common)

		if seen[app.ID] {
			fault("app %s: appears twice", app.ID)
		}
		seen[app.ID] = true
		if app.Port == 0 || app.HTTPPort == 0 || app.GRPCPort == 0 {
			fault("app %s: appPort, daprHTTPPort and daprGRPCPort are needed", app.ID)
		}
		if len(app.Command) == 0 {
			fault("app %s: command is missing", app.ID)
		}
		if a.PlacementHostAddress != "" || a.SchedulerHostAddress != "" {
			fault("app %s: placementHostAddress and schedulerHostAddress belong into common", app.ID)
		}
		file.Apps = append(file.Apps, app)
	}
	return file, errors.Join(faults...)
}

// resources follows the CLI's precedence: the app's own setting, then the app's .dapr folder, then the common setting.
func resources(root, dir string, app, common shared) (paths []string, config string) {
	local := filepath.Join(dir, ".dapr")
	switch {
	case len(app.ResourcesPaths) > 0 || app.ResourcesPath != "":
		paths = absAll(dir, app.ResourcesPaths, app.ResourcesPath)
	case exists(filepath.Join(local, "resources")):
		paths = []string{filepath.Join(local, "resources")}
	default:
		paths = absAll(root, common.ResourcesPaths, common.ResourcesPath)
	}
	switch {
	case app.ConfigFilePath != "":
		config = abs(dir, app.ConfigFilePath)
	case exists(filepath.Join(local, "config.yaml")):
		config = filepath.Join(local, "config.yaml")
	case common.ConfigFilePath != "":
		config = abs(root, common.ConfigFilePath)
	}
	return paths, config
}

func absAll(base string, paths []string, more string) []string {
	var all []string
	for _, p := range paths {
		all = append(all, abs(base, p))
	}
	if more != "" {
		all = append(all, abs(base, more))
	}
	return all
}

func abs(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func portOf(address string) (int, error) {
	if address == "" {
		return 0, nil
	}
	_, port, found := strings.Cut(address, ":")
	if !found {
		return 0, nil
	}
	var n int
	if _, err := fmt.Sscanf(port, "%d", &n); err != nil || n <= 0 || n > 65535 {
		return 0, fmt.Errorf("%q has no port", address)
	}
	return n, nil
}
