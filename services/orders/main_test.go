package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/platform/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRunWithoutASidecar: the service starts, is alive and not ready, refuses work that it cannot do, and stops cleanly.
func TestRunWithoutASidecar(t *testing.T) {
	nobody := freePort(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	logs, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { // owned: the test waits for ended
		err := run(ctx, []string{"APP_PORT=0", "DAPR_HTTP_PORT=" + nobody, "DAPR_GRPC_PORT=" + nobody, "SWEEP_INTERVAL=10ms"}, stdout)
		ended <- errors.Join(err, stdout.Close())
	}()
	lines := bufio.NewScanner(logs)
	var listening struct {
		Msg     string `json:"msg"`
		Address string `json:"address"`
	}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &listening) != nil || listening.Msg != "listening" {
		t.Fatalf("the first line of the log is %q: %v", lines.Text(), <-ended)
	}
	swept, drained := make(chan struct{}), make(chan struct{})
	go func() { // owned: the test waits for drained
		defer close(drained)
		swept := sync.OnceFunc(func() { close(swept) })
		for lines.Scan() {
			if strings.Contains(lines.Text(), "the sweep of orders that have not ended broke off") {
				swept()
			}
		}
	}()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	order := `{"customer_id":"c","items":[{"product_id":"p","quantity":1,"price":1}],"total_amount":1,"shipping_address":{"street":"a","city":"b","zip":"c"}}`
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, "/healthz", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusServiceUnavailable},
		{http.MethodGet, "/openapi.json", "", http.StatusOK},
		{http.MethodGet, "/docs", "", http.StatusOK},
		{http.MethodGet, "/dapr/subscribe", "", http.StatusOK},
		{http.MethodGet, "/nowhere", "", http.StatusNotFound},
		{http.MethodPost, "/v1/orders", "{", http.StatusBadRequest},
		{http.MethodPost, "/v1/orders", order, http.StatusServiceUnavailable},
		{http.MethodPost, "/v1/orders/ord-1/cancel", "", http.StatusServiceUnavailable},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+listening.Address+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != test.status {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, resp.StatusCode, test.status)
		}
	}

	select {
	case <-swept:
	case <-time.After(20 * time.Second):
		t.Error("the orders that have not ended are not swept")
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

// freePort is a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

func TestRunNamesAPortInUse(t *testing.T) {
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	if err := run(t.Context(), []string{"APP_PORT=" + port}, io.Discard); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v, want an error that names port %s", err, port)
	}
}

func TestConfig(t *testing.T) {
	c, err := config.Parse[Config]([]string{"APP_PORT=8001"})
	got := []time.Duration{time.Duration(c.IdempotencyTTL), time.Duration(c.ReceivedTTL), time.Duration(c.SweepInterval), time.Duration(c.SweepPatience)}
	if want := []time.Duration{24 * time.Hour, 24 * time.Hour, 10 * time.Second, 15 * time.Second}; err != nil || !slices.Equal(got, want) {
		t.Errorf("the defaults are %v, %v", got, err)
	}
	err = run(t.Context(), []string{"IDEMPOTENCY_TTL=-1h", "RECEIVED_TTL=soon", "SWEEP_INTERVAL=0", "SWEEP_PATIENCE=15"}, io.Discard)
	if err == nil {
		t.Fatal("it runs without a port")
	}
	for _, part := range []string{"APP_PORT", "IdempotencyTTL", "ReceivedTTL", "SweepInterval", "SweepPatience"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q leaves out %s", err, part)
		}
	}
}
