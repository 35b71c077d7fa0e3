// Package components gives a run its own copy of the component files. The files in components/local hold the local
// defaults as plain values, so that the Dapr CLI can use them as they are; a run on other ports or other data replaces
// exactly two of them.
package components

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The values in components/local that a run replaces.
const (
	// DefaultBroker is the embedded broker's usual address.
	DefaultBroker = "127.0.0.1:9092"
	// DefaultData is the usual data folder, seen from the working directory of a sidecar (services/<app>), inside a
	// connection string.
	DefaultData = "file:../../.waybill/"
)

// Copy writes every YAML file of the folders in from to the folder to, which it empties first, with broker (host:port) and
// data (an absolute path) in place of the defaults.
func Copy(to string, from []string, broker, data string) error {
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
	replace := strings.NewReplacer(
		DefaultBroker, broker,
		DefaultData, "file:"+uriPath(data)+"/",
	)
	for _, dir := range from {
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
			target := filepath.Join(to, strings.TrimSuffix(name, filepath.Ext(name))+".yaml")
			if err := os.WriteFile(target, []byte(replace.Replace(string(text))), 0o600); err != nil {
				return fmt.Errorf("write component: %w", err)
			}
		}
	}
	return nil
}

// uriPath escapes what has a meaning of its own in SQLite's file: URIs and inside a quoted YAML string.
func uriPath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", `"`, "%22", `\`, "/").Replace(filepath.ToSlash(path))
}
