package console

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestEveryLineHasItsPrefix(t *testing.T) {
	t.Parallel()
	var out, file bytes.Buffer
	c := New(&out, false, 8)
	s := c.Stream("orders", &file, All)
	w := s.Writer()
	for _, part := range []string{"one\ntw", "o\r\nthree", "\n", "unfinished"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %q: %v", n, part, err)
		}
	}
	if got, want := out.String(), "orders   | one\norders   | two\norders   | three\n"; got != want {
		t.Errorf("terminal:\n%s\nwant:\n%s", got, want)
	}
	if got, want := file.String(), "one\ntwo\nthree\n"; got != want {
		t.Errorf("file: %q, want %q", got, want)
	}
}

func TestLinesOfManyProcessesStayWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := New(&out, true, 3)
	var writers sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		s := c.Stream(name, io.Discard, All)
		writers.Go(func() {
			w := s.Writer()
			for i := range 200 {
				fmt.Fprintf(w, "%s says %d\n", name, i)
			}
		})
	}
	writers.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 600 {
		t.Fatalf("%d lines, want 600", len(lines))
	}
	for _, line := range lines {
		prefix, rest, _ := strings.Cut(line, reset+" ")
		var who string
		var n int
		if _, err := fmt.Sscanf(rest, "%s says %d", &who, &n); err != nil || !strings.Contains(prefix, who+" ") {
			t.Fatalf("torn line %q", line)
		}
	}
}

func TestOnlyWarningsOfDaprAreShown(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`time="2026-01-02T03:04:05Z" level=info msg="all is well" app_id=orders`:                         "",
		`time="2026-01-02T03:04:05Z" level=warning msg="mTLS is disabled. Skipping certificate request"`: "",
		`time="2026-01-02T03:04:05Z" level=error msg="no \"broker\"" app_id=orders`:                      `ERROR no "broker"`,
		`{"level":"info","ts":"2026-01-02T03:04:05Z","msg":"starting an etcd server"}`:                   "",
		`{"level":"error","ts":"2026-01-02T03:04:05Z","msg":"cannot listen","error":"address in use"}`:   "ERROR cannot listen: address in use",
		`panic: runtime error: index out of range`:                                                       "panic: runtime error: index out of range",
		``: "",
	} {
		got, show := Dapr(line)
		if show != (want != "") || got != want {
			t.Errorf("%s\nshown as %q (%v), want %q", line, got, show, want)
		}
	}
}

func TestAppLinesAreReadable(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"level":"WARN","msg":"slow","order_id":"o-1","took":1.5,"why":"no luck","trace_id":"abc"}`: `WARN  slow order_id=o-1 took=1.5 why="no luck"`,
		`plain text`:        `plain text`,
		`{"not":"a record"`: `{"not":"a record"`,
	} {
		if got, _ := App(line); got != want {
			t.Errorf("%s\nshown as %q, want %q", line, got, want)
		}
	}
}

func TestLastIsTheFailure(t *testing.T) {
	t.Parallel()
	s := New(io.Discard, false, 0).Stream("x", io.Discard, All)
	w := s.Writer()
	fmt.Fprintln(w, "starting")
	fmt.Fprintln(w, `time="2026-01-02T03:04:05Z" level=fatal msg="no broker"`)
	fmt.Fprintln(w, "bye")
	if got, want := s.Last(), "FATAL no broker"; got != want {
		t.Errorf("last is %q, want %q", got, want)
	}
	s.Forget()
	fmt.Fprintln(w, "again")
	if got := s.Last(); got != "again" {
		t.Errorf("last is %q after forgetting", got)
	}
}

func TestLogFilesStayBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.log")
	f, err := OpenFile(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		fmt.Fprintf(f, "line %03d\n", i)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 100 || len(before) > 100 || !strings.HasSuffix(string(text), "line 099\n") {
		t.Errorf("%d and %d bytes, ending in %q", len(text), len(before), text)
	}
}
