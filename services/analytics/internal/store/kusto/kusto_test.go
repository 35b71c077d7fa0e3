package kusto_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/kusto"
	"waybill/services/analytics/internal/store/storetest"
)

func TestStreamed(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return newCluster(t, nil).open(t)
	})
}

// TestQueued runs the suite on a cluster that does not stream: every row goes through a blob and a queue in Azurite.
func TestQueued(t *testing.T) {
	a := startAzurite(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		c := newCluster(t, a.storage(t))
		c.fail(func(int) (int, string, bool) {
			return http.StatusBadRequest, "BadRequest_StreamingIngestionPolicyNotEnabled", false
		})
		return c.open(t)
	})
}

func events(ids ...string) []store.Event {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	all := make([]store.Event, len(ids))
	for i, id := range ids {
		all[i] = store.Event{ID: id, Type: contracts.TypeProductViewed, Timestamp: now, ProcessedAt: now, ProductID: "PROD-001"}
	}
	return all
}

func counted(t *testing.T, s store.Store) int64 {
	t.Helper()
	c, err := s.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Events
}

func TestStreamingFails(t *testing.T) {
	a := startAzurite(t)
	for name, test := range map[string]struct {
		status int
		code   string
		queued bool
	}{
		"unavailable":    {http.StatusServiceUnavailable, "ServiceUnavailable", true},
		"throttled":      {http.StatusTooManyRequests, "TooManyRequests", true},
		"too large":      {http.StatusRequestEntityTooLarge, "TooLarge", true},
		"streaming off":  {http.StatusBadRequest, "StreamingIngestionDisabledForCluster", true},
		"no mapping":     {http.StatusBadRequest, "BadRequest_MappingReferenceWasNotFound", false},
		"no table":       {http.StatusNotFound, "BadRequest_TableNotFound", false},
		"not an allowed": {http.StatusForbidden, "Forbidden", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, a.storage(t))
			c.fail(func(int) (int, string, bool) { return test.status, test.code, false })
			config := c.config()
			config.StreamTimeout = 300 * time.Millisecond
			s, err := kusto.Open(config)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			fresh, err := s.Append(t.Context(), events("a", "b"))
			if test.queued {
				if err != nil || !fresh[0] || !fresh[1] || counted(t, s) != 2 {
					t.Errorf("new %v, %v", fresh, err)
				}
				if _, _, queued := c.seen(); queued != 1 {
					t.Errorf("%d blobs came by the queue, want 1", queued)
				}
				return
			}
			if err == nil {
				t.Error("what the cluster refuses for good is reported as stored")
			}
			if n := counted(t, s); n != 0 {
				t.Errorf("%d events came by the queue", n)
			}
			c.fail(nil)
			if fresh, err = s.Append(t.Context(), events("a", "b")); err != nil || !fresh[0] || !fresh[1] {
				t.Errorf("once more, when the fault is mended: new %v, %v", fresh, err)
			}
		})
	}
}

// TestLostAnswer has the cluster take the lines and answer with an error: they are sent again, and count once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.fail(func(n int) (int, string, bool) {
		if n < 2 {
			return http.StatusBadGateway, "lost", true
		}
		return 0, "", false
	})
	s := c.open(t)
	if _, err := s.Append(t.Context(), events("a", "b")); err != nil {
		t.Fatal(err)
	}
	arrived, streamed, _ := c.seen()
	if n := counted(t, s); arrived != 6 || streamed != 3 || n != 2 {
		t.Errorf("%d lines arrived in %d requests and count as %d, want 6 in 3 as 2", arrived, streamed, n)
	}
}

// TestAnotherProcess starts a second process: an event that the cluster has is not new.
func TestAnotherProcess(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	if _, err := c.open(t).Append(t.Context(), events("a", "b")); err != nil {
		t.Fatal(err)
	}
	fresh, err := c.open(t).Append(t.Context(), events("b", "c"))
	if err != nil || fresh[0] || !fresh[1] {
		t.Errorf("new %v, %v", fresh, err)
	}
	if arrived, _, _ := c.seen(); arrived != 3 {
		t.Errorf("%d lines arrived, want 3", arrived)
	}
}

// TestFailedAppend leaves its events new, also for the callers that waited for them.
func TestFailedAppend(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	first := make(chan struct{})
	proceed := make(chan struct{})
	c.fail(func(n int) (int, string, bool) {
		if n > 0 {
			return 0, "", false
		}
		return http.StatusForbidden, "Forbidden", false
	})
	s := c.openThrough(t, func(r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/rest/ingest/") {
			select {
			case first <- struct{}{}:
				<-proceed
			default:
			}
		}
	})
	failed := make(chan error, 1)
	go func() { _, err := s.Append(context.WithoutCancel(t.Context()), events("a")); failed <- err }()
	<-first
	// This one waits for the first, which fails.
	type result struct {
		fresh []bool
		err   error
	}
	second := make(chan result, 1)
	go func() {
		fresh, err := s.Append(context.WithoutCancel(t.Context()), events("a", "b"))
		second <- result{fresh, err}
	}()
	close(proceed)
	if err := <-failed; err == nil {
		t.Error("the refused append reports success")
	}
	if r := <-second; r.err != nil || !r.fresh[0] || !r.fresh[1] {
		t.Errorf("the append that waited: new %v, %v", r.fresh, r.err)
	}
}

type hooked struct {
	before func(*http.Request)
	next   http.RoundTripper
}

func (h hooked) RoundTrip(r *http.Request) (*http.Response, error) {
	h.before(r)
	return h.next.RoundTrip(r)
}

func (c *cluster) openThrough(t *testing.T, before func(*http.Request)) *kusto.Store {
	t.Helper()
	config := c.config()
	config.Transport = hooked{before, config.Transport}
	s, err := kusto.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWrongToken(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	config := c.config()
	config.Credential = credential{"another"}
	s, err := kusto.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Append(t.Context(), events("a")); err == nil {
		t.Error("the cluster knows nobody with this token, and the append reports success")
	}
}

func TestLargeRows(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	s := c.open(t)
	batch := events("a", "b", "c", "d", "e")
	for i := range batch {
		batch[i].Properties = []byte(`{"text":"` + strings.Repeat("x", 1_000_000) + `"}`)
	}
	if _, err := s.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if _, streamed, _ := c.seen(); streamed != 5 {
		t.Errorf("%d requests, want 5 of a megabyte each", streamed)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]kusto.Config{
		"nothing": {}, "no TLS": {Endpoint: "http://waybill.westeurope.kusto.windows.net", Database: database},
		"a connection string": {Endpoint: "https://a;Password=b", Database: database}, "no database": {Endpoint: "https://waybill.westeurope.kusto.windows.net"},
		"ingestion without TLS": {Endpoint: "https://waybill.westeurope.kusto.windows.net", IngestEndpoint: "ingest", Database: database},
	} {
		if _, err := kusto.Open(c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	s, err := kusto.Open(kusto.Config{Endpoint: "https://waybill.westeurope.kusto.windows.net", Database: database, ClientID: "00000000-0000-0000-0000-000000000001"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSchema checks infra/kusto with Microsoft's parser: syntax, names, types, and that the update policy's rows fit.
func TestSchema(t *testing.T) {
	t.Parallel()
	library := os.Getenv("KUSTO_LANGUAGE")
	node, err := exec.LookPath("node")
	if library == "" || err != nil {
		t.Skip("the KQL files are not checked: npm install @kusto/language-service-next in some folder, and run with KUSTO_LANGUAGE=<folder>/node_modules/@kusto/language-service-next; it needs node")
	}
	out, err := exec.CommandContext(t.Context(), node, "testdata/check.js", library, "../../../../../infra/kusto").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
