package sidecar_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/internal/fakedapr"
	"waybill/platform/sidecar"
	"waybill/platform/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, c sidecar.Config) *sidecar.Sidecar {
	t.Helper()
	c.Host = "127.0.0.1"
	s, err := sidecar.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serve runs a gRPC server on the address until the returned function is called.
func serve(t *testing.T, address string, server *grpc.Server) (port int, stop func()) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // owned: stop waits for it
	return listener.Addr().(*net.TCPAddr).Port, func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func healthPort(t *testing.T, handler http.HandlerFunc) int {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestWaitHealthy(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	port := healthPort(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1.0/healthz/outbound":
			w.WriteHeader(http.StatusNotFound)
		case asked.Add(1) < 3:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s := dial(t, sidecar.Config{HTTPPort: sidecar.Port(port), GRPCPort: 1})
	if err := s.Healthy(t.Context()); err == nil {
		t.Error("a sidecar that answers 500 is healthy")
	}
	if err := s.WaitHealthy(t.Context()); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// A sidecar that is away for more than three seconds is missed aloud.
func TestLogWait(t *testing.T) {
	t.Parallel()
	var missed atomic.Bool
	port := healthPort(t, func(w http.ResponseWriter, _ *http.Request) {
		if !missed.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := dial(t, sidecar.Config{GRPCPort: 1, HTTPPort: sidecar.Port(port)})
	var said strings.Builder // of LogWait's goroutine, which is this one
	log := slog.New(slog.NewTextHandler(writer(func(line []byte) (int, error) {
		missed.Store(true)
		return said.Write(line)
	}), nil))
	s.LogWait(t.Context(), log)
	if got := said.String(); strings.Count(got, "waiting for the sidecar") != 1 || !strings.Contains(got, "sidecar available") {
		t.Errorf("the log is %q", got)
	}
	said.Reset()
	s.LogWait(t.Context(), log)
	if said.Len() > 0 {
		t.Errorf("a sidecar that is there is logged: %q", said.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestWaitHealthyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"it is not ready": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"it hangs":        func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dial(t, sidecar.Config{HTTPPort: sidecar.Port(healthPort(t, handler)), GRPCPort: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := s.WaitHealthy(ctx); err == nil || time.Since(began) > 2*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		})
	}
}

func TestReconnects(t *testing.T) {
	t.Parallel()
	var fake fakedapr.Server
	port, stop := serve(t, "127.0.0.1:0", fake.GRPC())
	s := dial(t, sidecar.Config{GRPCPort: sidecar.Port(port)})
	publish := func() error { return s.Client.PublishEvent(t.Context(), "orderbus", "orders", []byte("{}")) }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	stop()

	// While it is away a call fails at once, often enough that gRPC's pauses have grown to their longest.
	for away := time.Now(); time.Since(away) < 3*time.Second; {
		began := time.Now()
		if err := publish(); status.Code(err) != codes.Unavailable || time.Since(began) > 2*time.Second {
			t.Fatalf("with the sidecar away, after %v: %v", time.Since(began), err)
		}
		wait(t, 20*time.Millisecond)
	}

	_, stop = serve(t, fmt.Sprintf("127.0.0.1:%d", port), fake.GRPC())
	defer stop()
	back := time.Now()
	for publish() != nil {
		if time.Since(back) > 10*time.Second {
			t.Fatal("it was not found again")
		}
		wait(t, 20*time.Millisecond)
	}
	// 1.2 s is the longest pause with its jitter; the rest is for a slow machine.
	if took := time.Since(back); took > 3*time.Second {
		t.Errorf("it was found again after %v", took)
	}
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

func TestAPIToken(t *testing.T) {
	t.Parallel()
	for _, token := range []sidecar.Secret{"", "the-token"} {
		var fake fakedapr.Server
		port, stop := serve(t, "127.0.0.1:0", fake.GRPC())
		s := dial(t, sidecar.Config{GRPCPort: sidecar.Port(port), APIToken: token})
		if err := s.Client.PublishEvent(t.Context(), "orderbus", "orders", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		var want []string
		if token != "" {
			want = []string{string(token)}
		}
		if got := fake.Calls("PublishEvent")[0].Metadata.Get("dapr-api-token"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the token sent is %q, want %q", got, want)
		}
		stop()
	}
}

func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	var fake fakedapr.Server
	port, stop := serve(t, "127.0.0.1:0", fake.GRPC())
	defer stop()
	s := state.NewDapr(dial(t, sidecar.Config{GRPCPort: sidecar.Port(port)}).Client, "statestore")
	keys := []string{"1", "2", "3", "4"}
	for _, key := range keys {
		if err := s.Create(t.Context(), key, strings.Repeat("x", 1_500_000)); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := s.GetMany(t.Context(), keys); err != nil || len(found) != len(keys) {
		t.Errorf("read %d of %d documents: %v", len(found), len(keys), err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := sidecar.Config{APIToken: "the-token"}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%q", c.APIToken), string(asJSON)} {
		if strings.Contains(printed, "the-token") {
			t.Errorf("the token is printed: %s", printed)
		}
	}
}
