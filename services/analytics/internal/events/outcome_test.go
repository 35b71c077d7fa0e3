package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/eventing/eventingtest"
	"waybill/services/analytics/internal/store"
)

// rows is a store of rows that fails under the name "rows".
type rows struct{ store.Store }

func (r rows) Append(ctx context.Context, events []store.Event) ([]bool, error) {
	if err := eventingtest.Fail(ctx, "rows"); err != nil {
		return nil, err
	}
	return r.Store.Append(ctx, events)
}

// buffer delivers at once what is published, and fails under the name "bus".
type buffer struct{ deliver eventing.BulkHandler }

func (b *buffer) Add(ctx context.Context, events []eventing.Event) error {
	if err := eventingtest.Fail(ctx, "bus"); err != nil {
		return err
	}
	return errors.Join(b.deliver(ctx, events)...)
}

// TestEveryHandlerTellsPermanentFromTransient gives every handler a store and a bus that fail, for the whole batch that an event
// is in.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, _ *eventingtest.Client) eventingtest.World {
		t.Helper()
		p := startProcessor(t, func(s store.Store) store.Store { return rows{s} })
		bus := &buffer{}
		subscriptions := subscribe(t, p, bus)
		bus.deliver = subscriptions[0].Bulk.Handle
		return eventingtest.World{
			Subscriptions: subscriptions,
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
