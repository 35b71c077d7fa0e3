package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/vapid"
)

// The service starts without a sidecar, is alive and not ready, and stops cleanly while its couriers still wait.
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
		{http.MethodGet, "/v1/notifications", "", http.StatusUnprocessableEntity},
		{http.MethodGet, "/v1/notifications?order_id=ORD-1001", "", http.StatusServiceUnavailable},
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

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"APP_PORT=8004"})
	if err != nil || c.OperatorsEmail != "operators@example.com" || c.AllowLoopbackPush || c.policy() != (message.Policy{Attempts: 30, First: time.Second, Last: 5 * time.Minute}) {
		t.Errorf("the defaults are %+v, %v", c, err)
	}
	keys, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	c, err = parse([]string{"APP_PORT=8004", "VAPID_PUBLIC_KEY=" + keys.Public, "VAPID_PRIVATE_KEY=" + keys.Private})
	if err != nil || strings.Contains(fmt.Sprintf("%+v", c), keys.Private) {
		t.Errorf("configured keys: %v, or the private one is shown", err)
	}
	if got, err := c.keys(state.NewMemory(), slog.New(slog.DiscardHandler))(t.Context()); err != nil || got != keys {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestKeysOutliveTheProcess(t *testing.T) {
	t.Parallel()
	documents, logger := state.NewMemory(), slog.New(slog.DiscardHandler)
	first, err := Config{}.keys(documents, logger)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := (Config{}).keys(documents, logger)(t.Context()); err != nil || second != first || first.Private == "" {
		t.Errorf("%v, then %v, %v", first, second, err)
	}
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{
		"OPERATORS_EMAIL=nobody", "VAPID_PRIVATE_KEY=x", "VAPID_SUBJECT=operators", "SEND_ATTEMPTS=0", "SEND_TIMEOUT=soon", "ALLOW_LOOPBACK_PUSH=perhaps",
	}, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"APP_PORT", "OperatorsEmail", "VAPID_PUBLIC_KEY", "VAPID_SUBJECT", "SendAttempts", "SendTimeout", "AllowLoopbackPush"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}
