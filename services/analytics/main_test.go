package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The service starts without a sidecar, is alive and not ready, answers what needs none, and stops cleanly although somebody
// watches.
func TestRunWithoutASidecar(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	logs, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { // owned: the test waits for ended
		err := run(ctx, []string{
			"APP_PORT=0", "DAPR_HTTP_PORT=1", "DAPR_GRPC_PORT=1", "INGEST_WAIT=100ms", "SQLITE_FILE=" + filepath.Join(t.TempDir(), "a.sqlite"),
		}, stdout)
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
	do := func(method, path, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+listening.Address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	event := `{"event_id":"e1","event_type":"analytics.product_viewed","product_id":"PROD-001","timestamp":"` + time.Now().UTC().Format(time.RFC3339) + `"}`
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, "/healthz", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusServiceUnavailable},
		{http.MethodGet, "/openapi.json", "", http.StatusOK},
		{http.MethodGet, "/docs", "", http.StatusOK},
		{http.MethodGet, "/v1/analytics/metrics?name=total_views", "", http.StatusOK},
		{http.MethodGet, "/v1/analytics/anomalies", "", http.StatusOK},
		{http.MethodPost, "/v1/analytics/events", "{}", http.StatusUnprocessableEntity},
		{http.MethodPost, "/v1/analytics/events", event, http.StatusServiceUnavailable},
	} {
		resp := do(c.method, c.path, c.body)
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, resp.StatusCode, c.status)
		}
	}
	resp := do(http.MethodGet, "/dapr/subscribe", "")
	described, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{
		`"pubsubname":"telemetrybus","topic":"analytics-events"`, `"deadLetterTopic":"analytics-events.analytics.dead"`,
		`"pubsubname":"telemetrybus","topic":"analytics-events.analytics.dead"`,
		`"pubsubname":"orderbus","topic":"orders"`, `"pubsubname":"orderbus","topic":"orders.analytics.dead"`,
	} {
		if err != nil || !strings.Contains(string(described), want) {
			t.Errorf("it subscribes to %s, %v, which lacks %s", described, err, want)
		}
	}
	watching := do(http.MethodGet, "/v1/analytics/live", "")
	defer watching.Body.Close()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("run ended with %v", err)
		}
	case <-time.After(25 * time.Second):
		t.Fatal("run does not end")
	}
	<-drained
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"APP_PORT=8003"})
	if err != nil || c.Store != "sqlite" || c.BatchSize != 100 || c.FollowInterval != 0 || c.pipeline().Check() != nil {
		t.Errorf("the defaults are %+v, %v", c, err)
	}
	c, err = parse([]string{"APP_PORT=8003", "ANALYTICS_STORE=kusto", "KUSTO_ENDPOINT=https://c.westeurope.kusto.windows.net", "KUSTO_DATABASE=analytics", "FOLLOW_INTERVAL=5s"})
	if err != nil || c.kusto().Database != "analytics" || c.stream().Follow != 5*time.Second {
		t.Errorf("got %+v, %v", c, err)
	}
	rows, err := c.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ environ, names []string }{
		{
			[]string{"INGEST_BATCH_SIZE=0", "LATENESS=soon", "FOLLOW_INTERVAL=often", "LIVE_STREAMS=many"},
			[]string{"APP_PORT", "BatchSize", "Lateness", "FollowInterval", "LiveStreams"},
		}, {
			[]string{
				"APP_PORT=0", "ANALYTICS_STORE=paper", "INGEST_BUFFER_EVENTS=10", "INGEST_BUFFER_BYTES=1", "INGEST_BATCH_SIZE=501", "LATENESS=2h",
				"MAX_AHEAD=3h", "REBUILD=1h", "KEEP_EVENTS=1m", "RECORD_INTERVAL=7m", "FOLLOW_INTERVAL=-1s", "CURRENCY=dollars",
			},
			[]string{
				"ANALYTICS_STORE", "INGEST_BUFFER_EVENTS", "INGEST_BUFFER_BYTES", "INGEST_BATCH_SIZE", "LATENESS", "MAX_AHEAD", "REBUILD",
				"KEEP_EVENTS", "RECORD_INTERVAL", "FOLLOW_INTERVAL", "CURRENCY",
			},
		},
		{[]string{"APP_PORT=0", "ANALYTICS_STORE=kusto", "KUSTO_ENDPOINT=http://x"}, []string{"KUSTO_ENDPOINT", "KUSTO_DATABASE"}},
		{[]string{"APP_PORT=0", "SQLITE_FILE=/no/such/folder/a.sqlite"}, []string{"/no/such/folder/a.sqlite"}},
	} {
		err := run(t.Context(), c.environ, io.Discard)
		if err == nil {
			t.Fatalf("%v: no error", c.environ)
		}
		for _, want := range c.names {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not name %s", err, want)
			}
		}
	}
}
