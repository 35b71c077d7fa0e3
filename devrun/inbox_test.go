package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waybill/devrun/internal/inbox"
)

func shownBy(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := showInbox(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestShowInbox(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if got := shownBy(t, "--data", data); !strings.Contains(got, "No messages in "+data) || !strings.Contains(got, "make up") {
		t.Errorf("an empty inbox says %q", got)
	}

	dir := filepath.Join(data, "inbox")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for _, m := range []inbox.Message{
		{Channel: "email", To: "cust-123@example.com", Text: "About ORD-1."},
		{Channel: "sms", To: "+12065550123", Text: "About ORD-2."},
	} {
		if err := json.NewEncoder(&file).Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(inbox.File(dir), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := shownBy(t, "--data", data); strings.Index(got, "ORD-1") > strings.Index(got, "ORD-2") || !strings.Contains(got, "ORD-1") {
		t.Errorf("not oldest first:\n%s", got)
	}
	if got := shownBy(t, "--data", data, "--order", "ORD-2"); strings.Contains(got, "ORD-1") || !strings.Contains(got, "ORD-2") {
		t.Errorf("of ORD-2:\n%s", got)
	}
	if got := shownBy(t, "--data", data, "--order", "ORD-3"); !strings.Contains(got, "No message names order ORD-3; 2 others") {
		t.Errorf("of ORD-3:\n%s", got)
	}
	if got := shownBy(t, "--data", data, "--json"); got != file.String() {
		t.Errorf("as JSON:\n%s", got)
	}
}
