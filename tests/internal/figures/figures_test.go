package figures_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/figures"
)

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var all []time.Duration
	for n := 100; n > 0; n-- {
		all = append(all, time.Duration(n))
	}
	got := []time.Duration{
		figures.Quantile(all, 0), figures.Quantile(all, 0.5), figures.Quantile(all, 0.99), figures.Quantile(all, 1), figures.Quantile(nil, 0.5),
	}
	if diff := cmp.Diff([]time.Duration{1, 51, 100, 100, 0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestATableLinesUp(t *testing.T) {
	t.Parallel()
	table := figures.NewTable("name", "figure")
	table.Row("a long name", "1")
	const want = "| name        | figure |\n| ----------- | -----: |\n| a long name |      1 |\n"
	if diff := cmp.Diff(want, table.String()); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyTheMeasuredPartIsReplaced(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	const begin, end = "<!-- measured analytics: begin (make bench writes this part) -->\n", "<!-- measured analytics: end -->\n"
	if err := os.WriteFile(page, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := figures.Replace(page, "analytics", "bench", "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("before\n"+begin+"\nnew\n\n"+end+"after\n", string(got)); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(page, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := figures.Replace(page, "analytics", "bench", "new\n"); err == nil || !strings.Contains(err.Error(), "measured analytics: begin") {
		t.Errorf("a page without marks: %v, want an error that names them", err)
	}
}
