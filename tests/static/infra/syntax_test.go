package infra

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSyntax needs node and some packages of npm; make test-infra installs them. TestInfrastructure reads the same files with
// the interpreter of this repository, without either.
func TestSyntax(t *testing.T) {
	t.Parallel()
	modules := os.Getenv("NODE_MODULES")
	if modules == "" {
		t.Skip("Bicep files are not read with tree-sitter's grammar, and queries not with Microsoft's parser: run make test-infra")
	}
	syntax := func(folder string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "node", "syntax.js", modules, folder).CombinedOutput()
		return string(out), err
	}
	if out, err := syntax(filepath.Join(top, "infra/bicep")); err != nil {
		t.Errorf("%v:\n%s", err, out)
	} else {
		t.Log(out)
	}
	// It finds what is wrong, where it is.
	folder := filepath.Join(copied(t), "infra/bicep")
	faults := []struct{ file, old, new, want string }{
		{"modules/cosmos.bicep", "kind: 'GlobalDocumentDB'", "kind = 'GlobalDocumentDB'", "cosmos.bicep:31: not Bicep"},
		{"queries/saga-stuck.kql", "summarize since", "sumarize since", "saga-stuck.kql:5: KS"},
		{"queries/saga-restarted.kql", "parse_json(Log)", "parse_json(Logs)", "saga-restarted.kql:3: KS"},
		{"workbook.json", "by ContainerAppName, Reason", "by ContainerAppName, Raeson", "workbook.json:"},
	}
	for _, m := range faults {
		path := filepath.Join(folder, m.file)
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), m.old) {
			t.Fatalf("%s does not hold %q: %v", m.file, m.old, err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(content), m.old, m.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := syntax(folder)
	for _, m := range faults {
		if err == nil || !strings.Contains(out, m.want) {
			t.Errorf("%s with %q: %v, want %q:\n%s", m.file, m.new, err, m.want, out)
		}
	}
}
