package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/processor"
	"waybill/services/analytics/internal/store/storetest"
)

// restarted makes the windows from what the world stored, as the next process would.
func (w *world) restarted() *processor.Processor {
	w.t.Helper()
	windows, err := processor.New(processor.Options{
		Store: w.rows, Pipeline: pipeline.DefaultConfig(), PublishAlerts: func(context.Context, []anomaly.Anomaly) error { return nil },
		MaxAhead: time.Minute, Rebuild: 2 * time.Hour, Record: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	running, stop := context.WithCancel(w.t.Context())
	var loops sync.WaitGroup
	loops.Go(func() { windows.Run(running) })
	w.t.Cleanup(func() { stop(); loops.Wait() })
	// Process waits until the windows are rebuilt.
	if _, err := windows.Process(w.t.Context(), nil); err != nil {
		w.t.Fatal(err)
	}
	if err := windows.Ready(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return windows
}

// sameAfterARestart compares the metrics before and after.
func (w *world) sameAfterARestart(names ...string) {
	w.t.Helper()
	after := w.restarted()
	for _, name := range names {
		before, after := w.live.Statistics(name, metric.Hour), after.Statistics(name, metric.Hour)
		before.From, before.To = after.From, after.To
		if before != after || before.Count == 0 {
			w.t.Errorf("%s was %+v and is %+v after a restart", name, before, after)
		}
	}
}

// TestAwkwardEventsSurviveARestart sends awkward events through the API, in every form of request, over a bus that writes
// JSON as Go does, and makes the windows from the store.
func TestAwkwardEventsSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rewrite = true
	texts := storetest.AwkwardEvents(time.Now())
	half := len(texts) / 2
	for _, c := range []struct {
		media, body string
		sent        int
	}{
		{asJSON, "[" + strings.Join(texts[:half], ",") + "]", half},
		{lines, strings.Join(oneLine(texts[half:]), "\n"), len(texts) - half},
	} {
		status, _, answer := w.send(eventsPath, c.media, strings.NewReader(c.body))
		if want := fmt.Sprintf(`"accepted":%d,`, c.sent); status != http.StatusAccepted || !strings.Contains(string(answer), want) {
			t.Fatalf("%d %.500s, want %s", status, answer, want)
		}
	}
	if got := w.count("total_views"); got != float64(len(texts)/4) {
		t.Errorf("%v views, want %d", got, len(texts)/4)
	}
	w.sameAfterARestart("total_views", "total_purchases", "total_revenue", "purchases_PROD-002", "session_waybill_views", "recommendation_confidence_waybill")
}

// oneLine writes each JSON text without line breaks.
func oneLine(texts []string) []string {
	all := slices.Clone(texts)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "\n", " ")
	}
	return all
}

// TestAnyPropertiesSurviveARestart draws properties.
func TestAnyPropertiesSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rewrite = true
	text := rapid.OneOf(rapid.SampledFrom([]string{"waybill", "", "null", `"`, "\\", "value", "order_id", "$schema"}), rapid.String())
	var value *rapid.Generator[any]
	value = rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 6).Draw(t, "kind") {
		case 0:
			return rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return value }), 0, 2).Draw(t, "list")
		case 1:
			return rapid.MapOfN(text, rapid.Deferred(func() *rapid.Generator[any] { return value }), 0, 2).Draw(t, "object")
		case 2:
			return rapid.Float64().Draw(t, "number")
		case 3:
			return rapid.SampledFrom([]any{nil, true, false, 0, json.Number("12345678901234567890")}).Draw(t, "word")
		default:
			return text.Draw(t, "text")
		}
	})
	properties := rapid.MapOfN(text, value, 0, 3)
	sent := 0
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(properties.Draw(t, "properties"))
		if err != nil || len(data) > event.MaxProperties {
			t.Skip("no such properties")
		}
		sent++
		body := strings.TrimSuffix(view(fmt.Sprintf("drawn-%d", sent), "PROD-001"), "}") + `,"properties":` + string(data) + "}"
		if status, _, answer := w.send(eventsPath, asJSON, strings.NewReader(body)); status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", body, status, answer)
		}
	})
	if got := w.count("views_PROD-001"); got != float64(sent) {
		t.Errorf("%v views, want %d", got, sent)
	}
	w.sameAfterARestart("views_PROD-001")
}

// TestAClientTakesNoPurchaseOfAnOrder sends a view under the id of an order's purchase, and a source that is not its own.
func TestAClientTakesNoPurchaseOfAnOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := strings.TrimSuffix(view("order:R5:1", "PROD-001"), "}") + `,"source":"` + event.SourceOrders + `"}`
	for range 2 {
		if status, _, answer := w.send(eventsPath, asJSON, strings.NewReader(body)); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, answer)
		}
	}
	order, err := eventing.New("R5:"+contracts.TypeOrderFulfilled, "/waybill/orders", contracts.Version, time.Now(), contracts.OrderFulfilled{
		OrderID: "R5", CustomerID: "CUST-123", FulfilledAt: time.Now(), Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 1, Price: 49_9900}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if errs := w.subscriptions[1].Bulk.Handle(t.Context(), []eventing.Event{order}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	if views, purchases := w.count("total_views"), w.count("total_purchases"); views != 1 || purchases != 1 {
		t.Errorf("%v views and %v purchases, want one of each", views, purchases)
	}
	w.sameAfterARestart("total_views", "total_purchases", "total_revenue")
}

// TestEveryTimeOfASeriesIsChecked asks for ranges that no clock, or no JSON, has.
func TestEveryTimeOfASeriesIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for query, location := range map[string]string{
		"to=9999-12-31T23:59:59-01:00":                             "query.to",
		"to=0001-01-01T00:00:00Z":                                  "query.to",
		"from=0001-01-01T00:00:00Z":                                "query.from",
		"from=0000-01-01T00:00:00%2B23:00":                         "query.from",
		"from=1677-01-01T00:00:00Z":                                "query.from",
		"to=2263-01-01T00:00:00Z":                                  "query.to",
		"to=2026-03-14T12:00:00%2B23:00":                           "query.to",
		"to=2026-12-31T23:59:60Z":                                  "query.to",
		"to=2026-03-14t12:00:00z":                                  "query.to",
		"to=2026-03-14T12:00:00":                                   "query.to",
		"to=2026-03-14T12:00:00,5Z":                                "query.to",
		"to=now":                                                   "query.to",
		"from=2026-03-14T12:00:00Z&to=2026-03-14T12:00:00Z":        "query.from",
		"from=2199-12-31T23:59:59Z":                                "query.from",
		"from=2026-03-14T13:00:00%2B01:00&to=2026-03-14T12:00:00Z": "query.from",
	} {
		var p problem
		status := w.get("/v1/analytics/series?name=total_views&"+query, &p)
		if status != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0].Location != location {
			t.Errorf("%s: %d %+v, want a fault of %s", query, status, p, location)
		}
	}
	for _, query := range []string{
		"from=2000-01-01T00:00:00Z&to=2199-12-31T23:59:59.999999999Z", "to=2000-01-01T00:00:00Z", "to=2026-03-14T12:00:00.123456789123Z",
		"from=2026-03-14T12:00:00%2B14:00", "",
	} {
		var got struct{ From, To time.Time }
		if status := w.get("/v1/analytics/series?name=total_views&"+query, &got); status != http.StatusOK || !got.From.Before(got.To) {
			t.Errorf("%s: %d %+v", query, status, got)
		}
	}
	// A cursor is a client's text, too.
	for _, cursor := range []string{"OTIyMzM3MjAzNjg1NDc3NTgwNyB4", "LTkyMjMzNzIwMzY4NTQ3NzU4MDggeA", "MCB4"} {
		var p problem
		if status := w.get("/v1/analytics/anomalies?cursor="+url.QueryEscape(cursor), &p); status != http.StatusUnprocessableEntity || p.Code != "invalid_cursor" {
			t.Errorf("%s: %d %+v", cursor, status, p)
		}
	}
}
