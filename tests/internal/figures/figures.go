// Package figures formats measurements: quantiles, tables in Markdown, the machine, and the generated parts of a page.
package figures

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill/tests/internal/system"
)

// Quantile is the duration that the share q of all durations does not exceed, 0 if there are none.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// MS formats a duration in milliseconds.
func MS(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// Table is a Markdown table whose columns line up, so that it reads well in a terminal too.
type Table struct{ lines [][]string }

// NewTable starts a table with its head.
func NewTable(head ...string) *Table { return &Table{[][]string{head}} }

// Row adds a line.
func (t *Table) Row(cells ...string) { t.lines = append(t.lines, cells) }

func (t *Table) String() string {
	width := make([]int, len(t.lines[0]))
	for _, line := range t.lines {
		for i, cell := range line {
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	write := func(cells []string) {
		for i, cell := range cells {
			if i == 0 {
				fmt.Fprintf(&b, "| %-*s ", width[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", width[i], cell)
			}
		}
		b.WriteString("|\n")
	}
	write(t.lines[0])
	for i, w := range width {
		if i == 0 {
			b.WriteString("| " + strings.Repeat("-", max(w, 1)) + " ")
		} else {
			b.WriteString("| " + strings.Repeat("-", max(w-1, 1)) + ": ")
		}
	}
	b.WriteString("|\n")
	for _, line := range t.lines[1:] {
		write(line)
	}
	return b.String()
}

// Machine says when, where and on which commit something was measured.
func Machine(ctx context.Context, at time.Time) string {
	found := []string{fmt.Sprintf("%d processors%s", runtime.NumCPU(), of("/proc/cpuinfo", "model name"))}
	if memory := of("/proc/meminfo", "MemTotal"); memory != "" {
		if kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(memory, " of "), " kB")); err == nil {
			found = append(found, fmt.Sprintf("%.0f GiB of memory", float64(kB)/(1<<20)))
		}
	}
	kernel := answer(ctx, "uname", "-sr")
	found = append(found, strings.TrimSpace(runtime.GOOS+"/"+runtime.GOARCH+" "+kernel), runtime.Version())
	if top, err := system.Root(); err == nil {
		if version := answer(ctx, filepath.Join(top, ".waybill", "bin", "daprd"), "--version"); version != "" {
			found = append(found, "Dapr "+version)
		}
		if commit := answer(ctx, "git", "-C", top, "describe", "--always", "--dirty", "--tags"); commit != "" {
			found = append(found, "revision "+commit)
		}
	}
	return fmt.Sprintf("Measured on %s. %s.\n", at.UTC().Format("2 January 2006, 15:04 MST"), strings.Join(found, "; "))
}

// of reads " of <value>" from a file of "key: value" lines, "" when it is not there.
func of(file, key string) string {
	text, err := os.ReadFile(file) //nolint:gosec // a file of the kernel
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return " of " + strings.TrimSpace(value)
		}
	}
	return ""
}

func answer(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).Output() //nolint:gosec // programs of this package's own choice
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// marks are the lines around the generated part of a page.
func marks(part, target string) (begin, end string) {
	return fmt.Sprintf("<!-- measured %s: begin (make %s writes this part) -->\n", part, target), "<!-- measured " + part + ": end -->\n"
}

// Replace puts text between a part's marks in a page whose other parts are written by hand.
func Replace(path, part, target, text string) error {
	begin, end := marks(part, target)
	page, err := os.ReadFile(path) //nolint:gosec // the page that the caller named
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(path, bytes.Join([][]byte{before, []byte(begin + "\n" + text + "\n" + end), after}, nil), 0o644) //nolint:gosec // a page for everybody
}
