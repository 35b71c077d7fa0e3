package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The service starts without a sidecar, is alive and not ready, and stops cleanly while its workflow worker still waits.
func TestRunWithoutASidecar(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	logs, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { // owned: the test waits for ended
		err := run(ctx, []string{"APP_PORT=0", "DAPR_HTTP_PORT=1", "DAPR_GRPC_PORT=1"}, stdout)
		ended <- errors.Join(err, stdout.Close())
	}()
	lines := bufio.NewScanner(logs)
	var listening struct{ Msg, Address string }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &listening) != nil || listening.Msg != "listening" {
		t.Fatalf("the first line of the log is %q", lines.Text())
	}
	drained := make(chan struct{})
	go func() { // owned: the test waits for drained
		defer close(drained)
		for lines.Scan() {
			continue
		}
	}()
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, "/healthz", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusServiceUnavailable},
		{http.MethodGet, "/openapi.json", "", http.StatusOK},
		{http.MethodGet, "/docs", "", http.StatusOK},
		{http.MethodGet, "/dapr/subscribe", "", http.StatusOK},
		{http.MethodGet, "/v1/inventory/PROD-001", "", http.StatusServiceUnavailable},
		{http.MethodPut, "/v1/inventory/PROD-001", `{"on_hand": 1}`, http.StatusServiceUnavailable},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+listening.Address+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, resp.StatusCode, c.status)
		}
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("run ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("run does not end")
	}
	<-drained
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{"RESERVATION_TIMEOUT=soon", "STEP_ATTEMPTS=0"}, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"APP_PORT", "ReservationTimeout", "StepAttempts"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}
