package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"waybill/tests/internal/system"
)

// metric is what the tests read of GET /v1/analytics/metrics.
type metric struct {
	Count int
	Sum   float64
}

func metricOf(ctx context.Context, s *system.System, name string) (metric, error) {
	query := url.Values{"name": {name}, "window": {"1h"}}
	code, _, answer, err := call(ctx, http.MethodGet, s.App("analytics").URL+"/v1/analytics/metrics?"+query.Encode(), nil)
	var m metric
	switch {
	case err != nil:
		return m, err
	case code == http.StatusNotFound:
		return m, nil // nothing was counted yet
	case code != http.StatusOK:
		return m, fmt.Errorf("metric %s: %d %s", name, code, answer)
	}
	return m, json.Unmarshal(answer, &m)
}

// counted waits until a metric has the count.
func counted(ctx context.Context, s *system.System, name string, want int) (metric, error) {
	for {
		m, err := metricOf(ctx, s, name)
		if err == nil && m.Count == want {
			return m, nil
		}
		if err == nil && m.Count > want {
			return m, fmt.Errorf("%s is %d, want %d", name, m.Count, want)
		}
		if !wait(ctx, 20*time.Millisecond) {
			return m, fmt.Errorf("%s is %d, not %d, in time: %w", name, m.Count, want, errors.Join(err, ctx.Err()))
		}
	}
}

func viewed(id, session, product string) map[string]any {
	return map[string]any{
		"event_type": "analytics.product_viewed", "event_id": id, "user_id": "USER-1", "session_id": session, "product_id": product,
		"timestamp": time.Now().UTC().Format(time.RFC3339Nano),
	}
}

// The test of the original workshop: 100 views, each answered with 202; then the views of each product add up. Sent again, they
// change nothing.
func TestEveryViewIsCountedOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	run := rand.Text()[:8]
	const views, products = 100, 5
	for range 2 {
		for i := range views {
			event := viewed(fmt.Sprintf("%s-%d", run, i), fmt.Sprintf("SESSION-%s-%d", run, i%20), fmt.Sprintf("PROD-%s-%d", run, i%products))
			code, _, answer, err := call(ctx, http.MethodPost, waybill.App("analytics").URL+"/analytics/event", event)
			if err != nil || code != http.StatusAccepted {
				t.Fatalf("view %d: %d %s %v", i, code, answer, err)
			}
		}
		for p := range products {
			if _, err := counted(ctx, waybill, fmt.Sprintf("views_PROD-%s-%d", run, p), views/products); err != nil {
				t.Error(err)
			}
		}
	}
}

// Every line of a fulfilled order is one purchase.
func TestAFulfilledOrderIsPurchases(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	product := "PROD-BOUGHT-" + rand.Text()[:8]
	setStock(t, waybill, product, 10)
	id, err := place(ctx, waybill, product, orderBody("CUST-BOUGHT", 30, line(product, 2, 10), line(product, 1, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	if _, err := counted(ctx, waybill, "purchases_"+product, 2); err != nil {
		t.Error(err)
	}
	if m, err := counted(ctx, waybill, "revenue_"+product, 2); err != nil || m.Sum != 30 {
		t.Errorf("revenue %+v, %v; want 30", m, err)
	}
}

// Events whose ids and properties look like Waybill's own are counted once, replace no event of an order, and are not counted
// again after the service was killed.
func TestAwkwardEventsSurviveARestart(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	s := ownSystem(ctx, t)
	const product = "PROD-AWKWARD"
	setStock(t, s, product, 10)
	view := viewed("order:AWKWARD-1:1", "waybill", product)
	view["source"] = "/waybill/analytics/orders"
	view["properties"] = map[string]any{"utm_source": "waybill", "waybill": map[string]any{"value": 1}, "": "null"}
	for range 2 {
		if code, _, answer, err := call(ctx, http.MethodPost, s.App("analytics").URL+"/v1/analytics/events", view); err != nil || code != http.StatusAccepted {
			t.Fatalf("%d %s %v", code, answer, err)
		}
	}
	body := orderBody("CUST-AWKWARD", 20, line(product, 2, 10))
	body["order_id"] = "AWKWARD-1"
	id, err := place(ctx, s, product, body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, s, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	for restarted := range 2 {
		if restarted == 1 {
			if err := s.Kill(ctx, "analytics"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := counted(ctx, s, "views_"+product, 1); err != nil {
			t.Error(err)
		}
		if m, err := counted(ctx, s, "revenue_"+product, 1); err != nil || m.Sum != 20 {
			t.Errorf("revenue %+v, %v; want 20", m, err)
		}
	}
}

// aView is the JSON of a view with some members replaced, or left out if their text is empty.
func aView(id, product string, replaced map[string]string) string {
	members := map[string]string{
		"event_type": `"analytics.product_viewed"`, "event_id": strconv.Quote(id), "session_id": `"S-` + product + `"`, "product_id": strconv.Quote(product),
		"timestamp": strconv.Quote(time.Now().UTC().Format(time.RFC3339Nano)),
	}
	maps.Copy(members, replaced)
	var text []string
	for name, value := range members {
		if value != "" {
			text = append(text, strconv.Quote(name)+":"+value)
		}
	}
	return "{" + strings.Join(text, ",") + "}"
}

// faults are invalid events: which member of a view is replaced, and which path and rule the refusal names.
var faults = map[string]struct {
	replaced       map[string]string
	field, because string
}{
	"no type":         {map[string]string{"event_type": ""}, "event_type", "is required"},
	"unknown type":    {map[string]string{"event_type": `"analytics.banana"`}, "event_type", "must be one of"},
	"bad time":        {map[string]string{"timestamp": `"yesterday"`}, "timestamp", "must be an RFC 3339 time"},
	"text as number":  {map[string]string{"value": `"49.99"`}, "value", "must be a number"},
	"number as text":  {map[string]string{"product_id": "7"}, "product_id", "must be text"},
	"no number":       {map[string]string{"value": "NaN"}, "value", "must be a finite number"},
	"a megabyte":      {map[string]string{"properties": `{"a":"` + strings.Repeat("x", 1_000_000) + `"}`}, "", "must not be larger than 16 KiB"},
	"many properties": {map[string]string{"properties": `{"a":"` + strings.Repeat("x", 10_000) + `"}`}, "properties", "must not be larger than 8 KiB"},
}

// A request with invalid events: the valid ones are accepted, and the answer names each invalid one by its position.
func TestFaultyAnalyticsEventsAreNamed(t *testing.T) {
	t.Parallel()
	for media, form := range map[string]struct{ first, between, last, place string }{
		"application/json": {"[", ",", "]", "body"}, "application/x-ndjson": {"", "\n", "\n", "lines"},
	} {
		ctx := bounded(t)
		run := rand.Text()[:8]
		product := "PROD-" + run
		events := append(make([]string, 0, len(faults)+2), aView(run+"-1", product, nil))
		type fault struct{ Location, Message string }
		want := make([]fault, 0, len(faults))
		for _, name := range slices.Sorted(maps.Keys(faults)) {
			f := faults[name]
			location := fmt.Sprintf("%s[%d]", form.place, len(events))
			if f.field != "" {
				location += "." + f.field
			}
			want = append(want, fault{location, f.because})
			events = append(events, aView(run+"-"+name, product, f.replaced))
		}
		events = append(events, aView(run+"-2", product, nil))
		body := form.first + strings.Join(events, form.between) + form.last
		code, _, answer, err := call(ctx, http.MethodPost, waybill.App("analytics").URL+"/v1/analytics/events", []byte(body), "Content-Type", media)
		var problem struct{ Errors []fault }
		if err != nil || code != http.StatusUnprocessableEntity || json.Unmarshal(answer, &problem) != nil {
			t.Fatalf("%s: %d %s %v, want 422", media, code, answer, err)
		}
		if diff := cmp.Diff(want, problem.Errors, cmp.Comparer(func(a, b fault) bool {
			return a.Location == b.Location && (strings.HasPrefix(a.Message, b.Message) || strings.HasPrefix(b.Message, a.Message))
		})); diff != "" {
			t.Errorf("%s: faults (-want +got):\n%s", media, diff)
		}
		if _, err := counted(ctx, waybill, "views_"+product, 2); err != nil {
			t.Errorf("%s: %v", media, err)
		}
	}
}

// An invalid event from the bus is dead-lettered with its reason; the valid events of its batch are counted.
func TestFaultyAnalyticsEventsFromTheBusAreDeadLettered(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	bus := foreign(t, kgo.ProducerBatchMaxBytes(1<<20))
	run := rand.Text()[:8]
	product := "PROD-BUS-" + run
	var records []*kgo.Record
	add := func(value string) {
		records = append(records, &kgo.Record{Topic: "analytics-events", Key: []byte(run), Value: []byte(value)})
	}
	event := func(id, data string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"type":"analytics.product_viewed","source":"/another/system","data":%s}`, id, data)
	}
	reasons := map[string]string{}
	good := 0
	for name, f := range faults {
		good++
		id := run + "-" + name
		add(event(fmt.Sprintf("%s-good-%d", run, good), aView(fmt.Sprintf("%s-good-%d", run, good), product, nil)))
		switch name {
		case "no number": // this is no JSON, which the sidecar finds out and says no more of
		case "no type": // the envelope names the type
			add(strings.Replace(event(id, aView(id, product, f.replaced)), `"type":"analytics.product_viewed",`, "", 1))
			reasons[id] = "no type"
			continue
		default:
			reasons[id] = f.because
		}
		add(event(id, aView(id, product, f.replaced)))
	}
	unreadable := "no JSON, says " + run
	add(unreadable)
	good++
	add(event(run+"-last", aView(run+"-last", product, nil)))
	if err := bus.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := counted(ctx, waybill, "views_"+product, good); err != nil {
		t.Error(err)
	}
	for id, reason := range reasons {
		if l := awaitDeadLetter(ctx, t, "analytics", "analytics-events", "open", ofEvent(id)); !strings.Contains(l.Reason, reason) || l.DeadLetterBy != "analytics" {
			t.Errorf("%s is dead-lettered by %s because %q, want %q", id, l.DeadLetterBy, l.Reason, reason)
		}
	}
	for _, text := range []string{unreadable, run + "-no number"} {
		awaitDeadLetter(ctx, t, "analytics", "analytics-events", "open", func(l letter) bool { return strings.Contains(string(l.Raw), text) })
	}
}

// analytics, its sidecar and the broker are killed while many events are sent: each event is counted once.
func TestKilledWhileCounting(t *testing.T) {
	const events, batch = 100_000, 500
	for _, victim := range []string{"analytics", "analytics-sidecar", "broker"} {
		t.Run(victim, func(t *testing.T) {
			ctx := bounded(t)
			run := rand.Text()[:8]
			product := "PROD-COUNT-" + run
			var work errgroup.Group
			work.SetLimit(4)
			for first := 0; first < events; first += batch {
				if first == events/2 {
					work.Go(func() error { return waybill.Kill(ctx, victim) })
				}
				work.Go(func() error {
					var lines bytes.Buffer
					for i := first; i < first+batch; i++ {
						if err := json.NewEncoder(&lines).Encode(viewed(fmt.Sprintf("%s-%d", run, i), fmt.Sprintf("S-%d", i%100), product)); err != nil {
							return err
						}
					}
					return send(ctx, waybill, lines.Bytes())
				})
			}
			if err := work.Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := counted(ctx, waybill, "views_"+product, events); err != nil {
				t.Error(err)
			}
		})
	}
}

// send posts events as NDJSON and retries until they are accepted.
func send(ctx context.Context, s *system.System, lines []byte) error {
	for {
		code, _, answer, err := call(ctx, http.MethodPost, s.App("analytics").URL+"/v1/analytics/events", lines, "Content-Type", "application/x-ndjson")
		switch {
		case err == nil && code == http.StatusAccepted:
			return nil
		case err == nil && code != http.StatusServiceUnavailable:
			return fmt.Errorf("send events: %d %s", code, answer)
		}
		if !wait(ctx, 100*time.Millisecond) {
			return errors.Join(fmt.Errorf("send events: %d %s", code, answer), err, ctx.Err())
		}
	}
}
