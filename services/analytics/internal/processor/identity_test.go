package processor

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
)

// lines are the purchases of an order, under a source.
func lines(t *testing.T, source, orderID string, at time.Time) []event.Event {
	t.Helper()
	purchases, err := event.Purchases(contracts.OrderFulfilled{
		OrderID: orderID, CustomerID: "CUST-123", FulfilledAt: at,
		Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 2, Price: 49_9900}, {ProductID: "PROD-002", Quantity: 1, Price: 1_0000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Event, len(purchases))
	for i := range purchases {
		events[i] = from(source, purchases[i].Payload())
	}
	return events
}

func (w *world) sum(name string, want float64) {
	w.t.Helper()
	if got := w.Statistics(name, metric.Hour).Sum; got != want {
		w.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

// TestNoSourceTakesTheIDOfAnother sends events under the ids of an order's purchases before the order is fulfilled.
func TestNoSourceTakesTheIDOfAnother(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "a.sqlite"))
	w := replica(t, s, nil)
	at := start.Add(time.Second)
	w.done(from(event.SourceClients, contracts.ProductViewed{EventID: "order:R5:1", ProductID: "PROD-001", Timestamp: at}))
	w.done(from(event.SourceClients, contracts.ProductPurchased{EventID: "order:R5:2", ProductID: "PROD-001", Value: 100, OrderID: "R5", Timestamp: at}))
	w.done(from("https://shop.example/web", contracts.ProductViewed{EventID: "order:R5:1", ProductID: "PROD-001", Timestamp: at}))
	for range 2 {
		w.done(lines(t, event.SourceOrders, "R5", at)...)
	}
	for _, w := range []*world{w, replica(t, s, nil)} {
		w.counts("total_views", 2)
		w.counts("total_purchases", 3)
		w.sum("total_revenue", 100.99)
	}
}

// TestWhatTheLastReleaseStoredIsKnown opens a file that release 1.0 wrote, and delivers its events once more: under the source
// that it gave to all of them, as the bus may still have them, and under those of today.
func TestWhatTheLastReleaseStoredIsKnown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	load(t, path, "testdata/release-1.0.sql")
	w := replica(t, open(t, path), nil)
	at := start.Add(time.Second)
	for _, source := range []string{"/waybill/analytics", event.SourceClients} {
		w.done(from(source, contracts.ProductViewed{EventID: "EVT-1", SessionID: "S-1", ProductID: "PROD-001", Timestamp: at}))
	}
	for _, source := range []string{event.SourceOrders, "/waybill/analytics"} {
		w.done(lines(t, source, "ORD-1", at)...)
	}
	w.counts("total_views", 2)
	w.counts("total_purchases", 3)
	w.sum("total_revenue", 100.98)
	w.counts("recommendation_confidence_knn", 1)
}

func load(t *testing.T, path, script string) {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), string(text)); err != nil {
		t.Fatal(err)
	}
}
