package inbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOldMessagesAreRemovedAtAStart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), messagesName)
	if err := trim(path, 1000); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for n := range 100 {
		fmt.Fprintf(&text, "message %03d\n", n)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int64]string{1200: text.String(), 1199: text.String()[51*12:]} {
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := trim(path, limit); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("of %d bytes with a limit of %d stay %d, want %d: %v", text.Len(), limit, len(got), len(want), err)
		}
	}
}
