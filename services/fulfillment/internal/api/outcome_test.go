package api_test

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
	edge "waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/saga"
	"waybill/services/fulfillment/internal/store"
)

// engine runs nothing: it knows which sagas were started, and fails under the name "engine".
type engine struct{ saga.Engine }

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

// announcer publishes what a saga says.
type announcer struct{ publisher *eventing.Publisher }

func (a announcer) Publish(ctx context.Context, id string, payload contracts.Payload) error {
	e, err := eventing.New(id, "test", contracts.Version, now, payload)
	if err != nil {
		return err
	}
	return a.publisher.Publish(ctx, contracts.TopicFulfillment, e)
}

func (a announcer) PublishAll(ctx context.Context, events ...saga.Event) error {
	for _, e := range events {
		if err := a.Publish(ctx, e.ID, e.Payload); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryHandlerTellsPermanentFromTransient gives every handler a store, a bus and an engine that fail.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, client *eventingtest.Client) eventingtest.World {
		t.Helper()
		logger := slog.New(slog.DiscardHandler)
		publisher, err := eventing.NewPublisher(client, contracts.OrderBus)
		if err != nil {
			t.Fatal(err)
		}
		control := saga.NewControl(saga.ControlOptions{
			Engine: engine{}, Records: store.NewSagas(eventingtest.NewDocuments(), "writer", time.Now),
			Events: announcer{publisher}, StuckAfter: time.Hour, Logger: logger, Now: time.Now,
		})
		a := edge.API{Sagas: starter{&sagas{}, control}, Logger: logger}
		return eventingtest.World{
			Subscriptions: a.Subscriptions(),
			Needs:         map[string]eventingtest.Failure{"store": eventingtest.Store, "engine": eventingtest.Engine, "bus": eventingtest.Bus},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				if eventType == contracts.TypeOrderCancellationRequested { // of a saga that runs
					if err := control.Start(t.Context(), contracts.Order{
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

// starter is the edge's Sagas, started and cancelled for real.
type starter struct {
	*sagas

	control *saga.Control
}

func (s starter) Start(ctx context.Context, o contracts.Order) error { return s.control.Start(ctx, o) }

func (s starter) Cancel(ctx context.Context, r contracts.OrderCancellationRequested) error {
	return s.control.Cancel(ctx, r)
}

// sampleOf is the contract's sample of a type, about the n-th order.
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
