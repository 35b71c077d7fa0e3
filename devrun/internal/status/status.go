// Package status is the description of the running system that other processes read: the end-to-end tests find addresses
// and process ids in it.
package status

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// System is the content of system.json.
type System struct {
	// Ready says that every process is ready and the sample data is there.
	Ready bool `json:"ready"`
	// Runner is the runner's own process id.
	Runner    int            `json:"runner"`
	Broker    string         `json:"broker"`
	Inbox     Inbox          `json:"inbox"`
	Apps      map[string]App `json:"apps"`
	Processes []Process      `json:"processes"`
	// AppAPIToken is what a sidecar presents to its app; who knows it can play the sidecar.
	AppAPIToken string `json:"app_api_token"`
	Logs        string `json:"logs"`
}

// App is where an app and its sidecar answer.
type App struct {
	URL      string `json:"url"`
	DaprHTTP string `json:"dapr_http"`
	DaprGRPC string `json:"dapr_grpc"`
}

// Inbox is where mail, SMS and push messages are received, and the file that keeps them.
type Inbox struct {
	SMTP string `json:"smtp"` // host:port
	HTTP string `json:"http"` // http://host:port
	File string `json:"file"`
}

// Process is one child of the runner. PID is 0 while it is not running.
type Process struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	PID      int    `json:"pid"`
	Ready    bool   `json:"ready"`
	Restarts int    `json:"restarts"`
}

// Read reads the file at path; fs.ErrNotExist says that nothing has run here.
func Read(path string) (System, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return System{}, fmt.Errorf("read system file: %w", err)
	}
	var system System
	if err := json.Unmarshal(text, &system); err != nil {
		return System{}, fmt.Errorf("read system file: %w", err)
	}
	return system, nil
}

// Write replaces the file at path as a whole, so that a reader never sees half of it. Only the owner may read it.
func Write(path string, system System) error {
	text, err := json.MarshalIndent(system, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write system file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write system file: %w", err)
	}
	return nil
}
