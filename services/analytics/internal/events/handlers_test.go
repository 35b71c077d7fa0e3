package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/events"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/processor"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// startProcessor starts a Processor; wrap may replace its store.
func startProcessor(t *testing.T, wrap func(store.Store) store.Store) *processor.Processor {
	t.Helper()
	file, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := processor.New(processor.Options{
		Store: wrap(file), Pipeline: pipeline.DefaultConfig(), PublishAlerts: func(context.Context, []anomaly.Anomaly) error { return nil },
		MaxAhead: time.Minute, Rebuild: 2 * time.Hour, Record: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	loops.Go(func() { p.Run(running) })
	t.Cleanup(func() {
		stop()
		loops.Wait()
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// subscribe connects handlers to a Processor and a buffer.
func subscribe(t *testing.T, p *processor.Processor, b events.Buffer) []eventing.Subscription {
	t.Helper()
	handlers, err := events.New(events.Options{
		Processor: p, Publisher: &events.Publisher{Buffer: b}, MaxAhead: time.Minute, BatchSize: 100, BatchWait: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return handlers.Subscriptions()
}

// recorder is a buffer that keeps what is published and delivers it at once.
type recorder struct {
	deliver   eventing.BulkHandler
	published []string
	refuse    error
}

func (r *recorder) Add(ctx context.Context, batch []eventing.Event) error {
	if r.refuse != nil {
		return r.refuse
	}
	for i := range batch {
		r.published = append(r.published, batch[i].ID)
	}
	return errors.Join(r.deliver(ctx, batch)...)
}

// world is the handlers with a Processor.
type world struct {
	t             *testing.T
	processor     *processor.Processor
	bus           *recorder
	subscriptions []eventing.Subscription
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, bus: &recorder{}, processor: startProcessor(t, func(s store.Store) store.Store { return s })}
	w.subscriptions = subscribe(t, w.processor, w.bus)
	w.bus.deliver = w.subscriptions[0].Bulk.Handle
	return w
}

func (w *world) wantCount(name string, want int64) {
	w.t.Helper()
	if got := w.processor.Statistics(name, metric.Hour).Count; got != want {
		w.t.Errorf("%s is %d, want %d", name, got, want)
	}
}

func view(t *testing.T, id string) eventing.Event {
	t.Helper()
	e, err := eventing.New("bus-id", event.SourceClients, contracts.Version, time.Now(), contracts.ProductViewed{EventID: id, ProductID: "PROD-001", Timestamp: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func raw(kind, data string) eventing.Event {
	return eventing.Event{ID: "bus", Type: kind, Data: json.RawMessage(data)}
}

func TestInvalidEventsAreRejectedAndTheOthersCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	handle := w.subscriptions[0].Bulk.Handle
	at := `"timestamp":"` + time.Now().UTC().Format(time.RFC3339) + `"`
	n := int64(0)
	for name, invalid := range map[string]eventing.Event{
		"unknown type":           raw("analytics.product_stolen", `{"event_id":"b1","product_id":"P",`+at+`}`),
		"bad time":               raw(contracts.TypeProductViewed, `{"event_id":"b2","product_id":"P","timestamp":"yesterday"}`),
		"far future":             raw(contracts.TypeProductViewed, `{"event_id":"b3","product_id":"P","timestamp":"2099-03-14T09:26:00Z"}`),
		"NaN":                    raw(contracts.TypeProductPurchased, `{"event_id":"b4","product_id":"P","value":NaN,`+at+`}`),
		"a string for a number":  raw(contracts.TypeProductPurchased, `{"event_id":"b5","product_id":"P","value":"49.99",`+at+`}`),
		"no product":             raw(contracts.TypeProductViewed, `{"event_id":"b6","product_id":null,`+at+`}`),
		"1 MB of properties":     raw(contracts.TypeProductViewed, `{"event_id":"b7","product_id":"P",`+at+`,"properties":{"x":"`+strings.Repeat("x", 1<<20)+`"}}`),
		"a type of another kind": raw(contracts.TypeProductViewed, `{"event_id":"b8","event_type":"analytics.product_purchased","product_id":"P",`+at+`}`),
		"no object":              raw(contracts.TypeProductViewed, `[1]`),
		"no data":                raw(contracts.TypeProductViewed, ``),
	} {
		errs := handle(t.Context(), []eventing.Event{view(t, fmt.Sprintf("v%d", n)), invalid, view(t, fmt.Sprintf("w%d", n))})
		if errs[0] != nil || errs[2] != nil || !eventing.Rejected(errs[1]) {
			t.Errorf("%s: %v", name, errs)
		}
		n++
	}
	w.wantCount("total_views", 2*n)
}

func TestOldTypeNamesAndTimesWithoutZoneAreAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := time.Now().UTC().Format("2006-01-02T15:04:05.000000")
	old := raw(contracts.AliasProductViewed, `{"product_id":"PROD-1","user_id":"USER-1","timestamp":"`+at+`"}`)
	old.ID = "1"
	if err := errors.Join(w.subscriptions[0].Bulk.Handle(t.Context(), []eventing.Event{old, old})...); err != nil {
		t.Fatal(err)
	}
	w.wantCount("views_PROD-1", 1)
}

func TestAFulfilledOrderIsOnePurchaseForEachLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	order, err := eventing.New("ORD-1001:Order.Fulfilled", "/waybill/orders", contracts.Version, time.Now(), contracts.OrderFulfilled{
		OrderID: "ORD-1001", CustomerID: "CUST-123", Currency: "USD", FulfilledAt: time.Now(),
		Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 2, Price: 49_9900}, {ProductID: "PROD-002", Quantity: 1, Price: 1_0000}, {ProductID: "PROD-001", Quantity: 1, Price: 49_9900}},
	})
	if err != nil {
		t.Fatal(err)
	}
	orders := w.subscriptions[1]
	if orders.Topic != contracts.TopicOrders || orders.Component != contracts.OrderBus || orders.DeadLetter != "orders.analytics.dead" {
		t.Errorf("the subscription is %+v", orders)
	}
	bad := order
	bad.Data = json.RawMessage(`{"order_id":"ORD-1002","items":[{"product_id":"","quantity":1,"price":1}]}`)
	broken := order
	broken.Data = json.RawMessage(`{"items":7}`)
	other := eventing.Event{ID: "x", Type: contracts.TypeOrderCreated, Data: json.RawMessage(`{}`)}
	errs := orders.Bulk.Handle(t.Context(), []eventing.Event{bad, order, other, broken, order})
	if !eventing.Rejected(errs[0]) || errs[1] != nil || errs[2] != nil || !eventing.Rejected(errs[3]) || errs[4] != nil {
		t.Errorf("got %v", errs)
	}
	if ids := w.bus.published; !slices.Equal(ids[:3], []string{"order:ORD-1001:1", "order:ORD-1001:2", "order:ORD-1001:3"}) {
		t.Errorf("published %v", ids)
	}
	w.wantCount("total_purchases", 3)
	w.wantCount("purchases_PROD-001", 2)
	if got := w.processor.Statistics("total_revenue", metric.Hour).Sum; got != 150.97 {
		t.Errorf("the revenue is %v", got)
	}
	w.bus.refuse = ingest.ErrFull
	if errs := orders.Bulk.Handle(t.Context(), []eventing.Event{bad, order}); !eventing.Rejected(errs[0]) || !eventing.Retryable(errs[1]) {
		t.Errorf("with a full buffer %v, want a retryable error for the order", errs)
	}
}

// topics records what is published to each topic.
type topics map[string][]eventing.Event

func (p topics) PublishAll(_ context.Context, topic string, batch []eventing.Event) error {
	p[topic] = append(p[topic], batch...)
	return nil
}

func TestEverythingIsPublishedToItsTopic(t *testing.T) {
	t.Parallel()
	bus := topics{}
	publisher := &events.Publisher{Bus: bus}
	at := time.Date(2026, time.March, 14, 9, 26, 0, 0, time.UTC)
	found := []anomaly.Anomaly{{ID: "view_spike:PROD-001:1", Kind: contracts.AnomalyViewSpike, Product: "PROD-001", At: at}}
	if err := publisher.PublishAlerts(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	if err := events.ToBus(bus)(t.Context(), []eventing.Event{view(t, "v1")}); err != nil {
		t.Fatal(err)
	}
	alerts := bus[contracts.TopicAlerts]
	if len(alerts) != 1 || alerts[0].ID != found[0].ID || alerts[0].Source != "/waybill/analytics" || alerts[0].Type != contracts.TypeAnomalyDetected || !alerts[0].Time.Equal(at) {
		t.Errorf("published the alerts %+v", alerts)
	}
	if len(bus[contracts.TopicAnalyticsEvents]) != 1 {
		t.Errorf("published %+v", bus)
	}
}
