// Command generate writes the files that depend on the catalogue of events: a JSON Schema and a sample of each type, the page
// docs/events.md, and the topic configuration of Microsoft's emulators. Go generate runs it in the contracts folder.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	if err := run("."); err != nil {
		log.Fatal(err)
	}
}

// run writes the generated files and removes those of deleted event types. The root is the folder of the contracts module.
func run(root string) error {
	files, err := render(root)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // a folder of the repository, as open as the others
			return fmt.Errorf("make the folder of %s: %w", name, err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // a file of the repository, as readable as the others
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	stale, err := staleFiles(root, files)
	if err != nil {
		return err
	}
	for _, name := range stale {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// staleFiles returns the files in the generated folders that belong to no event type.
func staleFiles(root string, files map[string][]byte) ([]string, error) {
	var found []string
	for _, folder := range []string{schemasFolder, samplesFolder} {
		names, err := filepath.Glob(filepath.Join(root, folder, "*.json"))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", folder, err)
		}
		for _, name := range names {
			if _, ok := files[name]; !ok {
				found = append(found, name)
			}
		}
	}
	return found, nil
}
