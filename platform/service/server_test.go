package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type running struct {
	*server
	router *chi.Mux
	client *http.Client
	stop   context.CancelFunc
	ended  chan error
}

func newServer(t *testing.T, reports map[string]func() any, checks ...Check) *running {
	t.Helper()
	s, err := listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	x := &running{server: s, router: chi.NewMux(), client: &http.Client{Transport: &http.Transport{}}, ended: make(chan error, 1)}
	s.mountHealth(x.router, reports, checks...)
	return x
}

func (x *running) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	x.stop = cancel
	go func() { x.ended <- x.run(ctx, x.router); close(x.ended) }() // owned: the cleanup waits for it
	t.Cleanup(func() {
		x.client.CloseIdleConnections()
		cancel()
		if err := <-x.ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
}

func (x *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+x.address()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := x.client.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(body)
}

func TestAPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	if _, err := listen(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("listening on %s again: %v", address, err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	x := newServer(t, map[string]func() any{"admission": func() any { return map[string]int{"open": 3} }}, Check{Name: "sidecar", Ask: func(context.Context) error { return nil }},
		Check{Name: "state_store", Ask: func(context.Context) error {
			if failing.Load() {
				return errors.New("password of the database: database or disk is full (13)")
			}
			return nil
		}})
	x.start(t)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if got, _ := x.get(t, path); got != want {
			t.Errorf("%s is %d, want %d", path, got, want)
		}
	}
	failing.Store(true)
	if got, _ := x.get(t, "/healthz"); got != 200 {
		t.Errorf("a failing check makes /healthz %d", got)
	}
	const want = `{"admission":{"open":3},"checks":[{"name":"sidecar","status":"ok"},{"name":"state_store","status":"failed","reason":"the disk is full"}],"status":"not_ready"}`
	if got, body := x.get(t, "/readyz"); got != 503 || strings.TrimSpace(body) != want {
		t.Errorf("a failing check makes /readyz %d %s, want 503 %s", got, body, want)
	}
	failing.Store(false)
	if got, body := x.get(t, "/readyz"); got != 200 || !strings.Contains(body, `"status":"ready"`) {
		t.Errorf("when no check fails any more /readyz is %d %s", got, body)
	}
}

func TestAHangingCheckIsNotReady(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	x := newServer(t, nil, Check{Name: "engine", Ask: hangs}, Check{Name: "sidecar", Ask: func(context.Context) error { return nil }})
	x.start(t)
	const want = `[{"name":"engine","status":"failed","reason":"no answer in time"},{"name":"sidecar","status":"ok"}]`
	if got, body := x.get(t, "/readyz"); got != 503 || !strings.Contains(body, want) {
		t.Errorf("/readyz is %d %s, want 503 and %s", got, body, want)
	}
}

// hold adds a route that answers when the returned function is called.
func (x *running) hold() (arrived chan struct{}, release func()) {
	arrived, released := make(chan struct{}), make(chan struct{})
	x.router.Get("/slow", func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-released
		if r.Context().Err() != nil {
			http.Error(w, "the request's context ended", http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, "whole")
	})
	return arrived, func() { close(released) }
}

func TestStopping(t *testing.T) {
	t.Parallel()
	x := newServer(t, nil)
	arrived, release := x.hold()
	x.start(t)
	answer := make(chan string, 1)
	go func() { _, body := x.get(t, "/slow"); answer <- body }() // owned: received below
	<-arrived
	x.stop()

	deadline := time.Now().Add(5 * time.Second)
	// Asked in process, because a stopping server accepts no new connection.
	for ready(t, x.router) != http.StatusServiceUnavailable {
		if time.Now().After(deadline) {
			t.Fatal("a stopping server is still ready")
		}
	}
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(t.Context(), "tcp", x.address())
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("a stopping server accepts new connections")
		}
	}
	select {
	case err := <-x.ended:
		t.Errorf("the server ended while a request was in flight: %v", err)
	default:
	}
	release()
	if got := <-answer; got != "whole" {
		t.Errorf("the request in flight was answered %q", got)
	}
}

func ready(t *testing.T, router http.Handler) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &recorder{header: http.Header{}}
	router.ServeHTTP(w, req)
	return w.status
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

func TestLimits(t *testing.T) {
	t.Parallel()
	x := newServer(t, nil)
	x.start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+x.address()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Large", strings.Repeat("x", 128<<10))
	resp, err := x.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("128 KiB of headers are answered %s", resp.Status)
	}
}

func TestServingThatFails(t *testing.T) {
	t.Parallel()
	x := newServer(t, nil)
	// The listener is closed by a first run, so a second one cannot serve.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.run(ctx, x.router); err != nil {
		t.Fatal(err)
	}
	if err := x.run(t.Context(), x.router); err == nil {
		t.Error("a server without a listener ended without an error")
	}
}
