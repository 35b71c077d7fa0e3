package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/tests/internal/system"
)

// sink is a feed in which everything arrives at once, or that refuses everything.
type sink struct {
	taken *atomic.Int64
	err   error
}

func (s sink) name() string                  { return "sink" }
func (s sink) processes() ([]process, error) { return []process{{"itself", os.Getpid()}}, nil }
func (s sink) arrived(context.Context) (int64, error) {
	return s.taken.Load(), nil
}

func (s sink) hand(_ context.Context, events []contracts.Payload) error {
	s.taken.Add(int64(len(events)))
	return s.err
}

func TestAFlowCountsWhatItHandedIn(t *testing.T) {
	t.Parallel()
	s := sink{taken: &atomic.Int64{}}
	s.taken.Store(7)
	r, err := flow(t.Context(), s, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if want := int(s.taken.Load()) - 7; r.done != want || want == 0 {
		t.Errorf("%d events, want the %d of this flow", r.done, want)
	}
	s.err = errors.New("broken")
	if _, err := flow(t.Context(), s, time.Hour); !errors.Is(err, s.err) {
		t.Errorf("a feed that refuses: %v", err)
	}
}

func TestTheMixOfEvents(t *testing.T) {
	t.Parallel()
	kinds, ids, items := map[string]int{}, map[string]bool{}, map[string]bool{}
	const n = 20 * catalogue
	for _, e := range newShop().batch(n, time.Now()) {
		kinds[e.EventType()]++
		id, _ := factOf(e)
		ids[id] = true
		if view, ok := e.(contracts.ProductViewed); ok {
			items[view.ProductID] = true
		}
	}
	want := map[string]int{contracts.TypeProductViewed: n * 80 / 100, contracts.TypeProductPurchased: n * 15 / 100, contracts.TypeRecommendationGenerated: n * 5 / 100}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
	if len(ids) != n {
		t.Errorf("%d ids, want %d", len(ids), n)
	}
	if len(items) < catalogue/2 {
		t.Errorf("views of %d products, want most of %d", len(items), catalogue)
	}
}

func TestEventsAreHandedInAsLines(t *testing.T) {
	t.Parallel()
	var got []string
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			if req.URL.Query().Get("name") == "total_purchases" {
				http.NotFound(w, req)
				return
			}
			_, _ = io.WriteString(w, `{"count":21}`)
			return
		}
		for lines := json.NewDecoder(req.Body); ; {
			var line struct {
				EventType string `json:"event_type"`
				EventID   string `json:"event_id"`
			}
			if lines.Decode(&line) != nil {
				break
			}
			if line.EventID != "" {
				got = append(got, line.EventType)
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(app.Close)
	c := &counting{url: app.URL}
	events := newShop().batch(20, time.Now())
	if err := c.hand(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	want := make([]string, 0, len(events))
	for _, e := range events {
		want = append(want, e.EventType())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n, err := c.arrived(t.Context()); err != nil || n != 42 {
		t.Errorf("%d arrived, %v; want 42: a metric that is not there yet is 0", n, err)
	}
}

func TestTheBareSubscriberAcknowledgesAll(t *testing.T) {
	t.Parallel()
	b := &bareFeed{}
	app := httptest.NewServer(b.app())
	t.Cleanup(app.Close)
	post := func(body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, app.URL+feedPath, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := app.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.TrimSpace(string(answer))
	}
	code, answer := post(`{"id":"1","entries":[{"entryId":"a","event":{"data":1}},{"entryId":"b","event":{}}]}`)
	const want = `{"statuses":[{"entryId":"a","status":"SUCCESS"},{"entryId":"b","status":"SUCCESS"}]}`
	if code != http.StatusOK || answer != want {
		t.Errorf("%d %s, want %s", code, answer, want)
	}
	if code, _ := post("no JSON"); code != http.StatusInternalServerError {
		t.Errorf("a delivery that cannot be read: %d", code)
	}
	if n, _ := b.arrived(t.Context()); n != 2 {
		t.Errorf("%d arrived, want 2", n)
	}
}

func TestTheBareSubscriberHasABusOfItsOwn(t *testing.T) {
	t.Parallel()
	top, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	components, err := feedComponents(top, t.TempDir(), "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(components, "telemetrybus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"127.0.0.1:1"`, `"bench=bench-events"`, "\n  - bench\n"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the component holds no %q", want)
		}
	}
	if bytes.Contains(text, []byte(`analytics-events,`)) {
		t.Error("the component names the topics of analytics")
	}
}

func TestTheReportOfEvents(t *testing.T) {
	t.Parallel()
	used := func(name string, cpu time.Duration) usage {
		return usage{of: []processUsage{{process: process{name: name}, cpu: cpu}, {process: process{name: everythingElse}}}}
	}
	one := func(subject, name string, done int) result {
		return result{subject: subject, done: done, window: time.Second, span: time.Second, usage: used(name, time.Second)}
	}
	r := &report{plan: quick, events: []result{one("analytics", "app", 6_000), one("bare subscriber", "daprd", 10_000), one("analytics", "app", 8_000), one("bare subscriber", "daprd", 10_000)}}
	parts := r.parts()
	if len(parts) != 1 || parts[0].name != partAnalytics {
		t.Fatalf("%d parts, want that of analytics only", len(parts))
	}
	for _, want := range []string{"6000, 8000", "**70 %**", "142.9", "100.0"} {
		if !strings.Contains(parts[0].text, want) {
			t.Errorf("the report lacks %q:\n%s", want, parts[0].text)
		}
	}
}

func TestAPartThatIsNotThere(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), []string{"-only", "banana"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), partAnalytics) {
		t.Errorf("%v, want an error that names the parts", err)
	}
}
