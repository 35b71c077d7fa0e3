// Package components gives a run its own copy of the component files. The files in components/local hold the local
// defaults as plain values, so that the Dapr CLI can use them as they are; a run on other ports or other data replaces
// those that Run names, and no other.
package components

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// The values in components/local that a run replaces.
const (
	// DefaultBroker is the embedded broker's usual address.
	DefaultBroker = "127.0.0.1:9092"
	// DefaultData is the usual data folder, seen from the working directory of a sidecar (services/<app>), inside a
	// connection string.
	DefaultData = "file:../../.waybill/"
	// DefaultMail is the inbox's usual SMTP port, as the email component writes it.
	DefaultMail = `value: "1025"`
	// DefaultMailHost is the inbox's usual host, as the email component writes it.
	DefaultMailHost = `value: "127.0.0.1"`
	// DefaultCalls is the inbox's usual address for SMS.
	DefaultCalls = "127.0.0.1:1026"
	// DefaultCompleted and DefaultEnded are how long finished workflows are kept, as config.yaml writes it.
	DefaultCompleted = `completed: "1h"`
	DefaultEnded     = `anyTerminal: "168h"`
	// DefaultCleanup is how often state stores remove what has outlived its TTL, as they write it.
	DefaultCleanup = `value: "5m"`
)

// Run are the values of one run that replace the defaults.
type Run struct {
	Broker    string // host:port
	InboxHost string // for mail; none is the loopback address
	InboxMail int    // port
	InboxHTTP string // host:port
	Data      string // absolute path
	// WorkflowRetention is how long every finished workflow is kept, StateCleanup how often state stores remove what has outlived
	// its TTL. Zero is the default of the files.
	WorkflowRetention, StateCleanup time.Duration
}

// Copy writes every YAML file of the folders in from to the folder to, which it empties first, with run's values in place
// of the defaults.
func Copy(to string, from []string, run Run) error {
	old, err := filepath.Glob(filepath.Join(to, "*.yaml"))
	if err != nil {
		return fmt.Errorf("empty %s: %w", to, err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("empty %s: %w", to, err)
		}
	}
	if err := os.MkdirAll(to, 0o750); err != nil {
		return fmt.Errorf("copy components: %w", err)
	}
	mailHost := run.InboxHost
	if mailHost == "" {
		mailHost = "127.0.0.1"
	}
	values := []string{
		DefaultMailHost, fmt.Sprintf("value: %q", mailHost),
		DefaultBroker, run.Broker,
		DefaultMail, fmt.Sprintf("value: %q", strconv.Itoa(run.InboxMail)),
		DefaultCalls, run.InboxHTTP,
		DefaultData, "file:" + uriPath(run.Data) + "/",
	}
	if run.WorkflowRetention > 0 {
		values = append(values, DefaultCompleted, fmt.Sprintf("completed: %q", run.WorkflowRetention),
			DefaultEnded, fmt.Sprintf("anyTerminal: %q", run.WorkflowRetention))
	}
	if run.StateCleanup > 0 {
		values = append(values, DefaultCleanup, fmt.Sprintf("value: %q", run.StateCleanup))
	}
	replace := strings.NewReplacer(values...)
	for _, dir := range from {
		err := yamlFiles(dir, func(name string, text []byte) error {
			target := filepath.Join(to, strings.TrimSuffix(name, filepath.Ext(name))+".yaml")
			if err := os.WriteFile(target, []byte(replace.Replace(string(text))), 0o600); err != nil {
				return fmt.Errorf("write component: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Types returns the types of all components in the folders, each with one file that names it.
func Types(folders []string) (map[string]string, error) {
	types := map[string]string{}
	for _, dir := range folders {
		err := yamlFiles(dir, func(name string, text []byte) error {
			documents := yaml.NewDecoder(bytes.NewReader(text))
			for {
				var c struct {
					Kind string `yaml:"kind"`
					Spec struct {
						Type string `yaml:"type"`
					} `yaml:"spec"`
				}
				if err := documents.Decode(&c); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return fmt.Errorf("read component file %s: %w", filepath.Join(dir, name), err)
				}
				if c.Kind == "Component" {
					types[c.Spec.Type] = filepath.Join(dir, name)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return types, nil
}

// yamlFiles calls do for every YAML file of the folder.
func yamlFiles(dir string, do func(name string, text []byte) error) error {
	folder := os.DirFS(dir)
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return fmt.Errorf("read components: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if ext := filepath.Ext(name); entry.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		text, err := fs.ReadFile(folder, name)
		if err != nil {
			return fmt.Errorf("read component: %w", err)
		}
		if err := do(name, text); err != nil {
			return err
		}
	}
	return nil
}

// uriPath escapes what has a meaning of its own in SQLite's file: URIs and inside a quoted YAML string.
func uriPath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", `"`, "%22", `\`, "/").Replace(filepath.ToSlash(path))
}
