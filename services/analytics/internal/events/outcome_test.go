package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/eventing/eventingtest"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
	"waybill/services/analytics/internal/stream"
)

// rows is a store of rows that fails under the name "rows".
type rows struct{ store.Store }

func (r rows) Append(ctx context.Context, events []store.Event) ([]bool, error) {
	if err := eventingtest.Fail(ctx, "rows"); err != nil {
		return nil, err
	}
	return r.Store.Append(ctx, events)
}

// passOn is a way to the bus that delivers at once, and fails under the name "bus".
type passOn struct{ windows *stream.Stream }

func (i passOn) Add(ctx context.Context, events []eventing.Event) error {
	if err := eventingtest.Fail(ctx, "bus"); err != nil {
		return err
	}
	return errors.Join(i.windows.Handle(ctx, events)...)
}

// TestEveryHandlerTellsPermanentFromTransient gives every handler a store and a bus that fail, for the whole batch that an event
// is in.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, _ *eventingtest.Client) eventingtest.World {
		t.Helper()
		file, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.sqlite"))
		if err != nil {
			t.Fatal(err)
		}
		windows, err := stream.New(stream.Options{
			Store: rows{file}, Pipeline: pipeline.DefaultConfig(), Announce: func(context.Context, []anomaly.Anomaly) error { return nil },
			MaxAhead: time.Minute, Rebuild: 2 * time.Hour, Record: time.Minute, Logger: slog.New(slog.DiscardHandler),
			Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { windows.Run(running) })
		t.Cleanup(func() {
			stop()
			loops.Wait()
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		})
		edge := &api.API{
			Ingest: passOn{windows}, Windows: windows, MaxAhead: time.Minute,
			Delivery: api.Delivery{Together: 100, Await: time.Second}, Logger: slog.New(slog.DiscardHandler),
		}
		return eventingtest.World{
			Subscriptions: edge.Subscriptions(),
			BatchTypes: map[string][]string{
				contracts.TopicAnalyticsEvents: {contracts.TypeProductViewed, contracts.TypeProductPurchased, contracts.TypeRecommendationGenerated},
				contracts.TopicOrders:          {contracts.TypeOrderFulfilled},
			},
			Needs: map[string]eventingtest.Failure{
				"rows": {Permanent: fmt.Errorf("%w: too large", store.ErrInvalid), Transient: errors.New("the disk is full")},
				"bus":  {Permanent: fmt.Errorf("publish: %w", eventing.ErrRefused), Transient: fmt.Errorf("publish: %w", eventing.ErrUnavailable)},
			},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				text := strings.NewReplacer("ORD-1001", fmt.Sprintf("ORD-%d", n), "EVT-100", fmt.Sprintf("EVT-%d-", n)).Replace(string(contracts.Sample(eventType)))
				var e eventing.Event
				if err := json.Unmarshal([]byte(text), &e); err != nil {
					t.Fatal(err)
				}
				e.ID = fmt.Sprintf("%s-%d", eventType, n)
				return e
			},
		}
	})
}
