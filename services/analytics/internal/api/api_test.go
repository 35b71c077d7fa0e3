package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/events"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/processor"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// world is the API with a real processor and store, and a bus that delivers at once, by a call.
type world struct {
	t             *testing.T
	live          *processor.Processor
	subscriptions []eventing.Subscription
	server        *httptest.Server
	rows          store.Store

	// rewrite writes and reads every event on its way, as a real bus does.
	rewrite bool

	mu        sync.Mutex
	published []eventing.Event
	refuse    error
}

// Add is that of events.Buffer: it publishes the events and delivers them at once.
func (w *world) Add(ctx context.Context, batch []eventing.Event) error {
	w.mu.Lock()
	if w.refuse != nil {
		w.mu.Unlock()
		return w.refuse
	}
	w.published = append(w.published, batch...)
	w.mu.Unlock()
	if w.rewrite {
		delivered := make([]eventing.Event, len(batch))
		for i := range batch {
			// encoding/json escapes what a sidecar may escape.
			text, err := json.Marshal(batch[i])
			if err == nil {
				err = json.Unmarshal(text, &delivered[i])
			}
			if err != nil {
				return err
			}
		}
		batch = delivered
	}
	return errors.Join(w.subscriptions[0].Bulk.Handle(ctx, batch)...)
}

func (w *world) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]string, len(w.published))
	for i := range w.published {
		ids[i] = w.published[i].ID
	}
	return ids
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// A busy machine may take its time over a request.
	return newWorldWith(t, time.Minute)
}

// newWorldWith gives a request, and its answer, that long.
func newWorldWith(t *testing.T, deadline time.Duration) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.rows, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.sqlite")); err != nil {
		t.Fatal(err)
	}
	if w.live, err = processor.New(processor.Options{
		Store: w.rows, Pipeline: pipeline.DefaultConfig(), PublishAlerts: func(context.Context, []anomaly.Anomaly) error { return nil },
		MaxAhead: time.Minute, Rebuild: 2 * time.Hour, Record: time.Minute, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	publisher := &events.Publisher{Buffer: w}
	handlers, err := events.New(events.Options{Processor: w.live, Publisher: publisher, MaxAhead: time.Minute, BatchSize: 100, BatchWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.subscriptions = handlers.Subscriptions()
	running, stop := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	loops.Go(func() { w.live.Run(running) })
	stopping := make(chan struct{})
	edge := &api.API{
		Publisher: publisher, Live: w.live, History: w.rows, MaxAhead: time.Minute, PublishTimeout: 10 * time.Second,
		LiveInterval: 5 * time.Millisecond, MaxLiveStreams: 2, Stopping: stopping, Logger: slog.New(slog.DiscardHandler),
	}
	router, surface := rest.New(api.Info(), slog.New(slog.DiscardHandler))
	edge.Mount(router, surface)
	w.server = httptest.NewUnstartedServer(router)
	w.server.Config.ReadTimeout, w.server.Config.WriteTimeout = deadline, deadline
	w.server.Start()
	t.Cleanup(func() {
		close(stopping)
		w.server.Close()
		stop()
		loops.Wait()
		if err := w.rows.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// problem is an answer that is one.
type problem struct {
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Errors  []rest.Fault
	Related struct{ Accepted, Rejected int }
}

func (w *world) send(path, media string, body io.Reader) (int, http.Header, []byte) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	return w.do(req)
}

func (w *world) do(req *http.Request) (int, http.Header, []byte) {
	w.t.Helper()
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, text
}

func (w *world) get(path string, into any) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	status, _, text := w.do(req)
	if err := json.Unmarshal(text, into); err != nil {
		w.t.Fatalf("%s answered %d %s", path, status, text)
	}
	return status
}

func (w *world) count(name string) float64 {
	w.t.Helper()
	var m struct{ Count float64 }
	if status := w.get("/v1/analytics/metrics?window=1h&name="+name, &m); status != http.StatusOK {
		w.t.Fatalf("%s answered %d", name, status)
	}
	return m.Count
}

func (w *world) refused(status int, text []byte, want int) problem {
	w.t.Helper()
	var p problem
	if err := json.Unmarshal(text, &p); err != nil || status != want {
		w.t.Fatalf("answered %d %s, want %d", status, text, want)
	}
	return p
}

func at() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func view(id, product string) string {
	return fmt.Sprintf(`{"event_id":%q,"event_type":"analytics.product_viewed","product_id":%q,"session_id":"S-1","timestamp":%q}`, id, product, at())
}

func purchase(id, product, value string) string {
	return fmt.Sprintf(`{"event_id":%q,"event_type":"analytics.product_purchased","product_id":%q,"value":%s,"timestamp":%q}`, id, product, value, at())
}

const (
	eventsPath = "/v1/analytics/events"
	asJSON     = "application/json"
	lines      = "application/x-ndjson"
)

func TestEventsAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	many := make([]string, api.MaxEvents)
	for i := range many {
		many[i] = view(fmt.Sprintf("m%d", i), "PROD-002")
	}
	for _, c := range []struct {
		media, body string
		accepted    int
	}{
		{asJSON, view("one", "PROD-001"), 1},
		{asJSON, " [ " + view("two", "PROD-001") + "\n, " + purchase("three", "PROD-001", "49.99") + " ] ", 2},
		{"application/json; charset=utf-8", "[" + strings.Join(many, ",") + "]", api.MaxEvents},
		{asJSON, "[]", 0},
		{lines, view("four", "PROD-001") + "\n\n" + view("five", "PROD-001") + "\r\n" + view("six", "PROD-001"), 3},
		{lines, "", 0},
		{asJSON, view("one", "PROD-001"), 1}, // again
	} {
		status, _, text := w.send(eventsPath, c.media, strings.NewReader(c.body))
		var got struct{ Accepted, Rejected int }
		if err := json.Unmarshal(text, &got); err != nil || status != http.StatusAccepted || got.Accepted != c.accepted || got.Rejected != 0 {
			t.Errorf("%.80s: %d %s, want %d accepted", c.body, status, text, c.accepted)
		}
	}
	if got := w.count("total_views"); got != 1005 {
		t.Errorf("%v views, want 1005", got)
	}
	if first := w.published[0]; first.ID != "one" || first.Type != contracts.TypeProductViewed || first.Key != "S-1" || first.Source != event.SourceClients {
		t.Errorf("published %+v", first)
	}
}

func TestTheFormerRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	naive := time.Now().UTC().Format("2006-01-02T15:04:05.000000")
	body := `{"event_type":"Analytics.ProductViewed","timestamp":"` + naive + `","user_id":"USER-1","session_id":"SESSION-1","product_id":"PROD-1","properties":{"source":"test"}}`
	for range 2 { // the same event again
		if status, _, text := w.send("/analytics/event", asJSON, strings.NewReader(body)); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
	}
	if got := w.count("views_PROD-1"); got != 1 {
		t.Errorf("%v views, want 1", got)
	}
	status, _, text := w.send(eventsPath, asJSON, strings.NewReader(body))
	p := w.refused(status, text, http.StatusUnprocessableEntity)
	if len(p.Errors) != 2 {
		t.Errorf("the strict route said %s, want the time and the id", text)
	}
}

func TestFaultyEventsAreNamedAndTheOthersCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stamp := `"timestamp":"` + at() + `"`
	bad := []struct{ body, path string }{
		{`{"event_id":"b","product_id":"P",` + stamp + `}`, ".event_type"},
		{`{"event_id":"b","event_type":"analytics.product_viewed","product_id":"P","timestamp":"yesterday"}`, ".timestamp"},
		{`{"event_id":"b","event_type":"analytics.product_viewed","product_id":"P","timestamp":"2099-01-01T00:00:00Z"}`, ".timestamp"},
		{`{"event_id":"b","event_type":"analytics.product_purchased","product_id":"P","value":NaN,` + stamp + `}`, ".value"},
		{`{"event_id":"b","event_type":"analytics.product_purchased","product_id":"P","value":"49.99",` + stamp + `}`, ".value"},
		{`{"event_id":"b","event_type":"analytics.product_stolen","product_id":"P",` + stamp + `}`, ".event_type"},
		{`{"event_id":"b","event_type":"analytics.product_viewed","product_id":null,` + stamp + `}`, ".product_id"},
		{`{"event_id":"b","event_type":"analytics.product_viewed","product_id":"P",` + stamp + `,"properties":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`, ""},
		{`7`, ""},
		{`"text, with [brackets} and \" quotes"`, ""},
		{`nonsense`, ""},
	}
	for i, c := range bad {
		good := [2]string{view(fmt.Sprintf("a%d", i), "PROD-001"), view(fmt.Sprintf("z%d", i), "PROD-001")}
		for media, sent := range map[string]struct{ body, at string }{
			asJSON: {"[" + good[0] + "," + c.body + "," + good[1] + "]", "body[1]"},
			lines:  {good[0] + "\n" + c.body + "\n" + good[1] + "\n", "lines[1]"},
		} {
			status, _, text := w.send(eventsPath, media, strings.NewReader(sent.body))
			p := w.refused(status, text, http.StatusUnprocessableEntity)
			if p.Code != "invalid_event" || len(p.Errors) != 1 || p.Errors[0].Location != sent.at+c.path || p.Related.Accepted != 2 || p.Related.Rejected != 1 {
				t.Errorf("%s %.100s: %.300s, want the fault at %s", media, c.body, text, sent.at+c.path)
			}
		}
	}
	if got := w.count("total_views"); got != float64(2*len(bad)) {
		t.Errorf("%v views, want %d", got, 2*len(bad))
	}
	status, _, text := w.send(eventsPath, asJSON, strings.NewReader(bad[7].body))
	if p := w.refused(status, text, http.StatusUnprocessableEntity); p.Errors[0].Location != "body" {
		t.Errorf("a large event alone: %s", text)
	}
}

func TestWhatIsNoEventsIsMalformed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := view("one", "PROD-001")
	for body, want := range map[string]int{
		"":                http.StatusBadRequest,
		"7":               http.StatusBadRequest,
		"[":               http.StatusBadRequest,
		"[" + one:         http.StatusBadRequest,
		"[" + one + ",]":  http.StatusBadRequest,
		"[," + one + "]":  http.StatusBadRequest,
		"[" + one + "] x": http.StatusBadRequest,
		one + one:         http.StatusUnprocessableEntity,
		"[" + strings.Repeat("1,", api.MaxEvents) + "1]": http.StatusBadRequest,
	} {
		status, _, text := w.send(eventsPath, asJSON, strings.NewReader(body))
		if status != want {
			t.Errorf("%.60q: %d %.200s, want %d", body, status, text, want)
		}
	}
	if status, _, text := w.send(eventsPath, "text/csv", strings.NewReader("a,b")); status != http.StatusUnsupportedMediaType {
		t.Errorf("%d %s", status, text)
	}
	if status, _, text := w.send(eventsPath, asJSON, bytes.NewReader(make([]byte, 20<<20))); status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", status, text)
	}
	if ids := w.ids(); len(ids) != 0 {
		t.Errorf("published %v", ids)
	}
}

func TestBackPressureIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for err, code := range map[error]string{
		ingest.ErrFull: "buffer_full", ingest.ErrClosed: "unavailable",
		fmt.Errorf("publish: %w", eventing.ErrUnavailable): "unavailable", context.DeadlineExceeded: "unavailable",
	} {
		w.refuse = err
		for _, media := range []string{asJSON, lines} {
			status, header, text := w.send(eventsPath, media, strings.NewReader(view("one", "PROD-001")))
			if p := w.refused(status, text, http.StatusServiceUnavailable); p.Code != code || header.Get("Retry-After") != "1" {
				t.Errorf("%v: %s %v", err, text, header)
			}
		}
	}
	w.refuse = errors.New("not allowed to publish")
	status, _, text := w.send(eventsPath, asJSON, strings.NewReader(view("one", "PROD-001")))
	if p := w.refused(status, text, http.StatusInternalServerError); strings.Contains(p.Detail, "allowed") {
		t.Errorf("%s shows the inside", text)
	}
}

// A stream of events is passed on while it comes.
func TestAStreamIsTakenAsItComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body, writer := io.Pipe()
	answered := make(chan int, 1)
	go func() { // owned: the test reads answered
		status, _, _ := w.send(eventsPath, lines, body)
		answered <- status
	}()
	const n = 1200
	for i := range n {
		if _, err := io.WriteString(writer, view(fmt.Sprintf("s%d", i), "PROD-001")+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	for len(w.ids()) < 1000 { // two chunks are there before the stream ends
		select {
		case <-time.After(time.Millisecond): // until they are, or the test's own time is over
		case status := <-answered:
			t.Fatalf("answered %d before the end", status)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if status := <-answered; status != http.StatusAccepted || len(w.ids()) != n {
		t.Errorf("%d, published %d, want %d", status, len(w.ids()), n)
	}
}

// What is odd about a stream of lines hurts nothing but itself.
func TestOddLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := view("good", "PROD-001")
	long := `{"event_id":"` + strings.Repeat("x", 100_000) + `"}`
	for body, want := range map[string]struct {
		status, accepted, rejected int
		faulty                     string
	}{
		"":                                      {http.StatusAccepted, 0, 0, ""},
		"\n \n\r\n":                             {http.StatusAccepted, 0, 0, ""},
		good:                                    {http.StatusAccepted, 1, 0, ""},
		good + "\r\n" + good + "\n":             {http.StatusAccepted, 2, 0, ""},
		good + "\n" + good[:len(good)/2]:        {http.StatusUnprocessableEntity, 1, 1, "lines[1]"},
		good + "\n" + long + "\n" + good:        {http.StatusUnprocessableEntity, 2, 1, "lines[1]"},
		long:                                    {http.StatusUnprocessableEntity, 0, 1, "lines[0]"},
		good + "\n[" + good + "]\n" + good:      {http.StatusUnprocessableEntity, 2, 1, "lines[1]"},
		good + "\n" + good + good + "\n" + good: {http.StatusUnprocessableEntity, 2, 1, "lines[1]"},
	} {
		status, _, text := w.send(eventsPath, lines, strings.NewReader(body))
		var answer struct {
			Accepted, Rejected int
			Related            struct{ Accepted, Rejected int }
			Errors             []struct{ Location string }
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatal(err)
		}
		if want.rejected > 0 {
			answer.Accepted, answer.Rejected = answer.Related.Accepted, answer.Related.Rejected
		}
		if status != want.status || answer.Accepted != want.accepted || answer.Rejected != want.rejected ||
			want.faulty != "" && (len(answer.Errors) != 1 || answer.Errors[0].Location != want.faulty) {
			t.Errorf("%.80q: %d %.300s, want %+v", body, status, text, want)
		}
	}
}

// A client that goes away in the middle of a line was not told of success: what it sent before counts, half a line does not.
func TestAClientThatGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, leave := context.WithCancel(t.Context())
	body, writer := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.server.URL+eventsPath, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", lines)
	gone := make(chan error, 1)
	go func() { // owned: the test reads gone
		resp, err := w.server.Client().Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		gone <- err
	}()
	for i := range 600 { // more than are passed on at a time, so that the server reads on
		if _, err := io.WriteString(writer, view(fmt.Sprintf("gone-%d", i), "PROD-001")+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(writer, view("half", "PROD-001")[:20]); err != nil {
		t.Fatal(err)
	}
	for len(w.ids()) < 500 {
		select {
		case <-time.After(time.Millisecond): // until they are there, or the test's own time is over
		case <-t.Context().Done():
			t.Fatal("nothing is passed on")
		}
	}
	leave()
	_ = writer.CloseWithError(context.Canceled) // the client reads its body until its end
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	w.send(eventsPath, asJSON, strings.NewReader(view("after", "PROD-001")))
	if ids := w.ids(); slices.Contains(ids, "half") || !slices.Contains(ids, "after") {
		t.Errorf("published %d events, with half a line's: %v", len(ids), slices.Contains(ids, "half"))
	}
}

// A live stream's place is free again when its client goes away, whether or not the client ever read.
func TestAWatcherThatGoesAwayLeavesItsPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	watch := func() (status int, leave func()) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/v1/analytics/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.server.Client().Do(req) //nolint:bodyclose // leave closes it
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, func() {
			cancel()
			_ = resp.Body.Close()
		}
	}
	_, leaveFirst := watch()
	_, leaveSecond := watch()
	defer leaveSecond()
	status, leave := watch()
	leave()
	if status != http.StatusServiceUnavailable {
		t.Fatalf("a third stream: %d", status)
	}
	leaveFirst()
	for status != http.StatusOK {
		status, leave = watch()
		leave()
		if t.Context().Err() != nil {
			t.Fatalf("the place is not free: %d", status)
		}
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := make([]string, 0, 50)
	for i := range 30 {
		body = append(body, view(fmt.Sprintf("v%d", i), fmt.Sprintf("PROD-%03d", i%3)))
	}
	for i := range 12 {
		body = append(body, purchase(fmt.Sprintf("p%d", i), "PROD-001", "10.00"))
	}
	body = append(body, purchase("much", "PROD-001", "9999.99"), purchase("other", "PROD-002", "10500"))
	if status, _, text := w.send(eventsPath, asJSON, strings.NewReader("["+strings.Join(body, ",")+"]")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	var m struct {
		Name, Window         string
		Count, Sum, Min, Max float64
	}
	w.get("/v1/analytics/metrics?name=total_revenue&window=5m", &m)
	if m.Count != 14 || m.Sum != 20619.99 || m.Min != 10 || m.Max != 10500 || m.Name != "total_revenue" || m.Window != "5m" {
		t.Errorf("the revenue: %+v", m)
	}
	if got := w.count("views_NOBODY"); got != 0 {
		t.Errorf("%v views of what was never seen", got)
	}
	var top struct {
		Items []struct {
			ProductID        string `json:"product_id"`
			Views, Purchases int
			Revenue          float64
		}
	}
	w.get("/v1/analytics/top?by=revenue&limit=2", &top)
	if len(top.Items) != 2 || top.Items[0].ProductID != "PROD-002" || top.Items[1].Purchases != 13 || top.Items[1].Views != 10 {
		t.Errorf("the top: %+v", top)
	}
	var anomalies struct {
		Items []struct {
			AnomalyID string `json:"anomaly_id"`
			Kind      string
		}
		Cursor string `json:"next_cursor"`
	}
	w.get("/v1/analytics/anomalies?product_id=PROD-001", &anomalies)
	if len(anomalies.Items) != 1 || anomalies.Items[0].Kind != contracts.AnomalyUnusualPurchase || anomalies.Cursor != "" {
		t.Errorf("the anomalies: %+v", anomalies)
	}
	end := time.Now().UTC().Truncate(time.Minute)
	if err := w.rows.PutMetrics(t.Context(), []store.Metric{{Name: "total_views", Window: "1m", Timestamp: end, Count: 7, ComputedAt: end}}); err != nil {
		t.Fatal(err)
	}
	var series struct {
		Points []struct {
			From, To time.Time
			Count    int
		}
	}
	for _, query := range []string{"", "&from=" + end.Format(time.RFC3339) + "&to=" + end.Add(time.Second).Format(time.RFC3339)} {
		w.get("/v1/analytics/series?name=total_views&window=1m"+query, &series)
		if len(series.Points) != 1 || series.Points[0].Count != 7 || !series.Points[0].From.Equal(end.Add(-time.Minute)) {
			t.Errorf("the series%s: %+v", query, series)
		}
	}
	for _, path := range []string{
		"metrics?name=views_", "metrics?name=nonsense", "metrics", "metrics?name=total_views&window=2m", "top?by=luck", "top?limit=0",
		"series?name=nonsense", "series?name=total_views&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "anomalies?cursor=x", "anomalies?kind=odd",
		"live?names=nonsense", "metrics?name=total_views&naem=x",
	} {
		var p problem
		if status := w.get("/v1/analytics/"+path, &p); status != http.StatusUnprocessableEntity || len(p.Errors) == 0 {
			t.Errorf("%s: %d %+v, want 422", path, status, p)
		}
	}
}

func TestAnomaliesComeInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Second)
	rows := make([]store.Anomaly, 25)
	for i := range rows {
		rows[i] = store.Anomaly{
			ID: fmt.Sprintf("view_spike:PROD-001:%02d", i), Type: contracts.AnomalyViewSpike, ProductID: "PROD-001",
			Timestamp: now.Add(-time.Duration(i/4) * time.Minute), UpdatedAt: now,
		}
	}
	if err := w.rows.PutAnomalies(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	var got []string
	for cursor, pages := "", 0; ; pages++ {
		var page struct {
			Items []struct {
				AnomalyID string `json:"anomaly_id"`
			}
			Next string `json:"next_cursor"`
		}
		at := "/v1/analytics/anomalies?limit=10"
		if cursor != "" {
			at += "&cursor=" + cursor
		}
		w.get(at, &page)
		for _, item := range page.Items {
			got = append(got, item.AnomalyID)
		}
		if cursor = page.Next; cursor == "" || pages > 5 {
			break
		}
	}
	want := make([]string, len(rows))
	for i := range rows {
		want[i] = rows[i].ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// watch opens a live stream.
func (w *world) watch(query string) (status int, header http.Header, live *bufio.Scanner) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.server.URL+"/v1/analytics/live"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	return resp.StatusCode, resp.Header, bufio.NewScanner(resp.Body)
}

func TestLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, header, live := w.watch("?names=total_views,total_purchases&window=1h")
	if got := header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("it is %s", got)
	}
	until := func(text string) {
		t.Helper()
		for live.Scan() {
			if strings.Contains(live.Text(), text) {
				return
			}
		}
		t.Fatalf("the stream ended without %s: %v", text, live.Err())
	}
	until(`"count":0`)
	body := make([]string, 0, 20)
	for i := range 12 {
		body = append(body, purchase(fmt.Sprintf("p%d", i), "PROD-001", "10.00"))
	}
	w.send(eventsPath, asJSON, strings.NewReader("["+strings.Join(append(body, purchase("much", "PROD-001", "9999.99")), ",")+"]"))
	until("event: anomaly")
	until(`"kind":"unusual_purchase_amount"`)
	until(`"name":"total_purchases","window":"1h"`)
	_, _, other := w.watch("")
	for other.Scan() && !strings.Contains(other.Text(), `"name":"total_revenue"`) {
		continue
	}
	if status, header, _ := w.watch(""); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("a third stream: %d", status)
	}
}

// Streams may last longer than the server gives any other request.
func TestStreamsOutlastTheServersDeadlines(t *testing.T) {
	t.Parallel()
	// A real server's is longer, and so are its streams.
	const deadline = 2 * time.Second
	w := newWorldWith(t, deadline)
	over := time.After(3 * deadline)
	_, _, live := w.watch("")
	body, writer := io.Pipe()
	answered := make(chan string, 1)
	go func() { // owned: the test reads answered
		status, _, text := w.send(eventsPath, lines, body)
		answered <- fmt.Sprint(status, string(text))
	}()
	sent := 0
	for waiting := true; waiting; sent++ {
		select {
		case <-over:
			waiting = false
		default:
		}
		if !live.Scan() {
			t.Fatalf("the live stream ended: %v", live.Err())
		}
		if _, err := io.WriteString(writer, view(fmt.Sprintf("s%d", sent), "PROD-001")+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; !strings.HasPrefix(got, "202") || w.count("total_views") != float64(sent) {
		t.Errorf("%s, %v counted of %d", got, w.count("total_views"), sent)
	}
}

func TestTheDescriptionShowsHowEventsAreSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct{ Content map[string]any }
			Responses   map[string]any
		}
	}
	w.get("/openapi.json", &doc)
	for _, path := range []string{eventsPath, "/analytics/event"} {
		post := doc.Paths[path]["post"]
		if len(post.RequestBody.Content) != 2 || post.Responses["202"] == nil || post.Responses["422"] == nil || post.Responses["503"] == nil {
			t.Errorf("%s is described as %+v", path, post)
		}
	}
	for _, path := range []string{"metrics", "top", "series", "anomalies", "live"} {
		if doc.Paths["/v1/analytics/"+path]["get"].Responses["200"] == nil {
			t.Errorf("%s is not described", path)
		}
	}
}
