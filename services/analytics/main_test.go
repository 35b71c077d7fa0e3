package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waybill/platform/service/servicetest"
)

func TestMain(m *testing.M) {
	servicetest.Main(main)
	os.Exit(m.Run())
}

// The service starts without a sidecar, is alive and not ready, answers requests that need no sidecar, and stops cleanly while a
// live stream is open.
func TestRunWithoutASidecar(t *testing.T) {
	t.Parallel()
	service := servicetest.Start(t, run, "INGEST_WAIT=100ms", "SQLITE_FILE="+filepath.Join(t.TempDir(), "a.sqlite"))
	event := `{"event_id":"e1","event_type":"analytics.product_viewed","product_id":"PROD-001","timestamp":"` + time.Now().UTC().Format(time.RFC3339) + `"}`
	service.Answers(t,
		servicetest.Answer{Method: http.MethodGet, Path: "/v1/analytics/metrics?name=total_views", Status: http.StatusOK},
		servicetest.Answer{Method: http.MethodGet, Path: "/v1/analytics/anomalies", Status: http.StatusOK},
		servicetest.Answer{Method: http.MethodPost, Path: "/v1/analytics/events", Body: "{}", Status: http.StatusUnprocessableEntity},
		servicetest.Answer{Method: http.MethodPost, Path: "/v1/analytics/events", Body: event, Status: http.StatusServiceUnavailable},
	)
	resp := service.Do(t, http.MethodGet, "/dapr/subscribe", "")
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
	watching := service.Do(t, http.MethodGet, "/v1/analytics/live", "")
	defer watching.Body.Close()
	service.Stop(t)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"APP_PORT=8003"})
	if err != nil || c.Store != "sqlite" || c.BatchSize != 100 || c.FollowInterval != 0 || c.pipeline().Check() != nil {
		t.Errorf("the defaults are %+v, %v", c, err)
	}
	c, err = parse([]string{"APP_PORT=8003", "ANALYTICS_STORE=kusto", "KUSTO_ENDPOINT=https://c.westeurope.kusto.windows.net", "KUSTO_DATABASE=analytics", "FOLLOW_INTERVAL=5s"})
	if err != nil || c.kusto().Database != "analytics" || c.processor().Follow != 5*time.Second {
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

func TestEveryMistakeInTheConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	const (
		duration = "a duration is positive and has a unit, such as 5m or 24h"
		count    = "a count is a whole number of at least 1"
		cluster  = "the https address of an Azure Data Explorer cluster is expected"
	)
	counts := []string{
		"INGEST_BATCH_SIZE", "INGEST_LANES", "INGEST_BUFFER_EVENTS", "INGEST_BUFFER_BYTES", "DELIVERY_EVENTS", "MAX_PRODUCTS", "MAX_SESSIONS",
		"MAX_ALGORITHMS", "MAX_EVENT_IDS", "SPIKE_FLOOR", "LIVE_STREAMS",
	}
	durations := []string{
		"INGEST_BATCH_INTERVAL", "INGEST_WAIT", "DELIVERY_AWAIT", "LATENESS", "MAX_AHEAD", "SPIKE_WARM_UP", "REBUILD", "RECORD_INTERVAL",
		"KEEP_EVENTS", "KEEP_METRICS", "KEEP_ANOMALIES", "LIVE_INTERVAL",
	}
	wrong, says := make([]string, 0, 24), make([]string, 0, 25)
	for _, name := range counts {
		wrong, says = append(wrong, name+"=0"), append(says, name+` is "0": `+count)
	}
	for _, name := range durations {
		wrong, says = append(wrong, name+"=soon"), append(says, name+` is "soon": `+duration)
	}
	wrong, says = append(wrong, "FOLLOW_INTERVAL=often"), append(says, "APP_PORT is missing", `FOLLOW_INTERVAL is "often": a duration has a unit`)
	servicetest.Exits(t)
	servicetest.Mistakes[Config](t, run, append(servicetest.Shared(), servicetest.Mistake{Environ: wrong, Says: says}, servicetest.Mistake{
		Environ: []string{
			"APP_PORT=0", "ANALYTICS_STORE=paper", "INGEST_BUFFER_EVENTS=10", "INGEST_BUFFER_BYTES=1", "INGEST_BATCH_SIZE=501", "LATENESS=2h",
			"MAX_AHEAD=3h", "MAX_EVENT_IDS=268435457", "SPIKE_WARM_UP=51m", "CURRENCY=dollars", "REBUILD=1h", "KEEP_EVENTS=1m",
			"RECORD_INTERVAL=7m", "FOLLOW_INTERVAL=-1s",
		},
		Says: []string{
			`ANALYTICS_STORE is "paper": the store is sqlite or kusto`, "INGEST_BUFFER_EVENTS is 10: at least 1000 are expected",
			"INGEST_BUFFER_BYTES is 1: at least 33554432 are expected", "INGEST_BATCH_SIZE is 501: not more than 500 are expected",
			"LATENESS is 2h0m0s: not more than 1h0m0s is expected", "MAX_AHEAD is 3h0m0s: not more than LATENESS is expected",
			"MAX_EVENT_IDS is 268435457: not more than 268435456 are expected", "SPIKE_WARM_UP is 51m0s: not more than 50m0s is expected",
			`CURRENCY is "dollars": an ISO 4217 code is expected, such as USD`, "REBUILD is 1h0m0s: at least 1h and LATENESS is expected",
			"KEEP_EVENTS is 1m0s: not less than REBUILD is expected", "RECORD_INTERVAL is 7m0s: a whole number of minutes is expected",
			"FOLLOW_INTERVAL is -1s: 0 or a duration",
		},
	},
		servicetest.Mistake{
			Environ: []string{"APP_PORT=0", "ANALYTICS_STORE=kusto", "KUSTO_ENDPOINT=http://x", "KUSTO_INGEST_ENDPOINT=x", "AZURE_CLIENT_ID=waybill"},
			Says: []string{
				`KUSTO_ENDPOINT is "http://x": ` + cluster, `KUSTO_INGEST_ENDPOINT is "x": ` + cluster, "KUSTO_DATABASE is missing: the name of a database is expected",
				`AZURE_CLIENT_ID is "waybill": the client id of a managed identity is expected`,
			},
		},
	)...)
	err := run(t.Context(), []string{"APP_PORT=0", "SQLITE_FILE=/no/such/folder/a.sqlite"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "SQLITE_FILE") || !strings.Contains(err.Error(), "/no/such/folder/a.sqlite") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// TestTheWholeSurface: what holds for every route holds for each that the service describes.
func TestTheWholeSurface(t *testing.T) {
	service := servicetest.Start(t, run, "INGEST_WAIT=100ms", "SQLITE_FILE="+filepath.Join(t.TempDir(), "a.sqlite"), servicetest.CORS)
	service.Surface(t)
	service.Stop(t)
}
