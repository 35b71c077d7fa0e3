package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/eventing/eventingtest"
	"waybill/services/fulfillment/internal/events"
	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/store"
)

// engine runs nothing and knows no saga. It fails under the name "engine".
type engine struct{ operations.Engine }

func (engine) ScheduleWorkflow(ctx context.Context, _ string, _ ...workflow.NewWorkflowOptions) (string, error) {
	return "", eventingtest.Fail(ctx, "engine")
}

func (engine) FetchWorkflowMetadata(ctx context.Context, _ string, _ ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error) {
	if err := eventingtest.Fail(ctx, "engine"); err != nil {
		return nil, err
	}
	return nil, api.ErrInstanceNotFound
}

func (engine) RaiseEvent(ctx context.Context, _, _ string, _ ...workflow.RaiseEventOptions) error {
	return eventingtest.Fail(ctx, "engine")
}

// TestEveryHandlerTellsPermanentFromTransient gives every handler a store, a bus and an engine that fail.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, client *eventingtest.Client) eventingtest.World {
		t.Helper()
		publisher, err := eventing.NewPublisher(client, contracts.OrderBus)
		if err != nil {
			t.Fatal(err)
		}
		sagas := operations.New(operations.Options{
			Engine: engine{}, Records: store.NewSagas(eventingtest.NewDocuments(), "writer", time.Now),
			Events: events.Publisher{Bus: publisher}, StuckAfter: time.Hour, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		return eventingtest.World{
			Subscriptions: events.Subscriptions(sagas),
			Needs:         map[string]eventingtest.Failure{"store": eventingtest.Store, "engine": eventingtest.Engine, "bus": eventingtest.Bus},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				if eventType == contracts.TypeOrderCancellationRequested { // the saga must have started
					if err := sagas.Start(t.Context(), contracts.Order{
						OrderID: fmt.Sprintf("ORD-%d", n), CustomerID: "CUST-123", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 1}},
					}); err != nil {
						t.Fatal(err)
					}
				}
				return sampleOf(t, eventType, n)
			},
		}
	})
}

// sampleOf returns the contract's sample of a type, for the n-th order.
func sampleOf(t *testing.T, eventType string, n int) eventing.Event {
	t.Helper()
	text := strings.ReplaceAll(string(contracts.Sample(eventType)), "ORD-1001", fmt.Sprintf("ORD-%d", n))
	var e eventing.Event
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	e.ID = fmt.Sprintf("%s-%d", eventType, n)
	return e
}
