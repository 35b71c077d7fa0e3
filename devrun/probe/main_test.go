package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	ready := true
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /quiet", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(mux)
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("APP_PORT", port)
	for _, path := range []string{"/readyz", "/quiet", "/readyz?deep=1"} {
		if err := run(t.Context(), []string{"http://127.0.0.1:${APP_PORT}" + path}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	ready = false
	for target, want := range map[string]string{
		"http://127.0.0.1:${APP_PORT}/readyz":  "answers 503",
		"http://127.0.0.1:${APP_PORT}/missing": "answers 404",
		"http://127.0.0.1:1/readyz":            "connection refused",
		"https://127.0.0.1:${APP_PORT}/readyz": "is no http://",
		"http://127.0.0.1:${UNSET}/readyz":     "is no http://",
	} {
		if err := run(t.Context(), []string{target}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", target, err, want)
		}
	}
	if err := run(t.Context(), nil); err == nil {
		t.Error("no URL: no error")
	}
}

// Who accepts a connection and says nothing is not healthy, and neither is who speaks something else.
func TestProbeDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := run(ctx, []string{"http://" + silent.Addr().String() + "/"}); err == nil {
		t.Error("a silent listener is healthy")
	}

	other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	served := make(chan struct{})
	go func() { // owned: the test waits for served
		defer close(served)
		if conn, err := other.Accept(); err == nil {
			_, _ = conn.Write([]byte("220 mail ready\r\n"))
			_ = conn.Close()
		}
	}()
	if err := run(t.Context(), []string{"http://" + other.Addr().String() + "/"}); err == nil || !strings.Contains(err.Error(), "not HTTP") {
		t.Errorf("a mail server: %v", err)
	}
	<-served
}
