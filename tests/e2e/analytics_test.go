package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

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

// The seed's test: a hundred views, each taken with 202; then the views of each product add up. Sent again, nothing changes.
func TestEveryViewIsCountedOnce(t *testing.T) {
	t.Parallel()
	ctx := impatient(t)
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
	ctx := impatient(t)
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

// A batch with faulty events takes the good ones and names each faulty one by its position.
func TestFaultyAnalyticsEventsAreNamed(t *testing.T) {
	t.Parallel()
	ctx := impatient(t)
	run := rand.Text()[:8]
	broken := viewed("", "S", "P")
	broken["event_id"] = 7
	late := viewed(run+"-late", "S", "P")
	late["timestamp"] = "yesterday"
	odd := viewed(run+"-odd", "S", "P")
	odd["event_type"] = "analytics.banana"
	batch := []any{viewed(run+"-1", "S-"+run, "PROD-"+run), broken, late, odd, viewed(run+"-2", "S-"+run, "PROD-"+run)}
	code, _, answer, err := call(ctx, http.MethodPost, waybill.App("analytics").URL+"/v1/analytics/events", batch)
	if err != nil || code != http.StatusUnprocessableEntity {
		t.Fatalf("a batch with faults: %d %s %v, want 422", code, answer, err)
	}
	for _, location := range []string{"body[1].event_id", "body[2].timestamp", "body[3].event_type"} {
		if !bytes.Contains(answer, []byte(`"`+location+`"`)) {
			t.Errorf("%s does not name %s", answer, location)
		}
	}
	if _, err := counted(ctx, waybill, "views_PROD-"+run, 2); err != nil {
		t.Error(err)
	}
}

// analytics, its sidecar and the broker are killed in the middle of many events: each is counted once.
func TestKilledWhileCounting(t *testing.T) {
	const events, batch = 100_000, 500
	for _, victim := range []string{"analytics", "analytics-sidecar", "broker"} {
		t.Run(victim, func(t *testing.T) {
			ctx := impatient(t)
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

// send posts events as NDJSON until they are taken, as a client does that never gives up.
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
