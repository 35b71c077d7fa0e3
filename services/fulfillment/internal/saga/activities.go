package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// Partners are what the activities call. Every method is idempotent by order. Their errors contain no customer data, because the
// workflow's history keeps the text of errors.
type Partners struct {
	Payments  Payments
	Inventory Inventory
	Carrier   Carrier
	Records   Records
	Events    Events
	Logger    *slog.Logger
	// Now is the clock of the activities. The workflow uses the engine's.
	Now func() time.Time
}

// Payments is the payment provider.
type Payments interface {
	// Charge charges the order's total. A refusal is a Reason.
	Charge(ctx context.Context, order contracts.Order, key string) (transactionID string, refused *partner.Reason, err error)
	// Refund refunds what was charged. The amount is 0 if nothing was.
	Refund(ctx context.Context, order contracts.Order, key string) (amount contracts.Amount, transactionID string, err error)
}

// Inventory is the warehouse.
type Inventory interface {
	// Reserve reserves every line or none. A refusal is a Reason.
	Reserve(ctx context.Context, order contracts.Order) (refused *partner.Reason, err error)
	// Release releases what is reserved. It returns false if nothing was.
	Release(ctx context.Context, order contracts.Order) (bool, error)
	// Ship turns reserved pieces into shipped ones, Unship reverts that.
	Ship(ctx context.Context, order contracts.Order) error
	Unship(ctx context.Context, order contracts.Order) error
}

// Carrier ships parcels.
type Carrier interface {
	// Book books the order's parcel. A refusal is a Reason.
	Book(ctx context.Context, order contracts.Order, key string) (shipment partner.Shipment, refused *partner.Reason, err error)
	// Cancel cancels the parcel. It returns false if there was none.
	Cancel(ctx context.Context, order contracts.Order) (bool, error)
}

// Records stores the saga records. Its refusals are a *record.Error.
type Records interface {
	Get(ctx context.Context, orderID string) (record.Saga, error)
	// Read is Get, and also returns a function that changes the record without reading it again.
	Read(ctx context.Context, orderID string) (record.Saga, record.Change, error)
	// Change calls change with an order's record, which may be new, and writes it if change returns true. It may call change several
	// times.
	Change(ctx context.Context, orderID string, change func(*record.Saga) (bool, error)) (record.Saga, error)
	// ListApproval adds the order to the list of sagas that requested an approval.
	ListApproval(ctx context.Context, orderID string) error
}

// Events publishes events. An event has the same id on every retry.
type Events interface {
	Publish(ctx context.Context, id string, payload contracts.Payload) error
	// PublishAll publishes events together, in this order. After an error it is unknown which of them were published.
	PublishAll(ctx context.Context, events ...Event) error
}

// Event is an event with its id.
type Event struct {
	ID      string
	Payload contracts.Payload
}

// StepInput is the input of a step and of its compensation.
type StepInput struct {
	Order contracts.Order `json:"order"`
	// KnowsBusy says that the workflow understands a StepResult that is Busy. Without it, a busy partner is an error.
	KnowsBusy bool `json:"knows_busy,omitempty"`
}

// StepResult is the result of a step: it was refused, or busy, or else it was done.
type StepResult struct {
	Refused *partner.Reason `json:"refused,omitempty"`
	// Busy says that the step found no free slot in one of this service's own limits, and did nothing. It must run again, and this run
	// does not count as an attempt.
	Busy     bool             `json:"busy,omitempty"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	// Refunded says that RefundPayment refunded money.
	Refunded bool `json:"refunded,omitempty"`
}

func (in StepInput) orderID() string { return in.Order.OrderID }

// activityTimeout bounds one run of an activity.
const activityTimeout = 30 * time.Second

type activities struct{ Partners }

// Register adds the workflows and activities to r under their stored names.
func Register(r *workflow.Registry, partners Partners) error {
	a := activities{partners}
	for name, run := range map[string]workflow.Workflow{
		WorkflowName:            fulfillOrder,
		workflowCompensateOrder: compensateOrder,
	} {
		if err := r.AddWorkflowN(name, run); err != nil {
			return fmt.Errorf("register workflow %s: %w", name, err)
		}
	}
	for name, newActivity := range map[string]named{
		activityValidatePayment:   forward(a.validatePayment),
		activityReserveInventory:  forward(a.reserveInventory),
		activityRequestApproval:   activity(a.requestApproval),
		activitySettleApproval:    activity(a.settleApproval),
		activityProcessShipment:   forward(a.processShipment),
		activitySendEmail:         activity(a.requestMessage(contracts.ChannelEmail)),
		activitySendSMS:           activity(a.requestMessage(contracts.ChannelSMS)),
		activitySendPush:          activity(a.requestMessage(contracts.ChannelPush)),
		activityUpdateOrderStatus: activity(a.recordOutcome),
		activityRefundPayment:     activity(a.refundPayment),
		activityReleaseInventory:  activity(a.releaseInventory),
		activityCancelShipment:    activity(a.cancelShipment),
		activityReadDecisions:     activity(a.readDecisions),
		activityAskForRepair:      activity(a.requestRepair),
		activityTakeRepair:        activity(a.checkRepair),
	} {
		if err := r.AddActivityN(name, newActivity(name)); err != nil {
			return fmt.Errorf("register activity %s: %w", name, err)
		}
	}
	return nil
}

// named makes the activity of a name.
type named func(name string) workflow.Activity

// activity gives f its input, a deadline, and a span with the activity's name and the order's id.
func activity[In interface{ orderID() string }, Out any](f func(context.Context, In) (Out, error)) named {
	return func(name string) workflow.Activity {
		return func(activityContext workflow.ActivityContext) (any, error) {
			var in In
			if err := activityContext.GetInput(&in); err != nil {
				return nil, fmt.Errorf("read the input: %w", err)
			}
			ctx, cancel := context.WithTimeout(activityContext.Context(), activityTimeout)
			defer cancel()
			ctx, span := otel.Tracer("waybill/fulfillment/saga").Start(ctx, name, trace.WithAttributes(attribute.String("order.id", in.orderID())))
			defer span.End()
			out, err := f(ctx, in)
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, "the step failed")
			}
			return out, err
		}
	}
}

// forward makes the activity of a forward step. If a partner is busy, that is the step's result, provided that the workflow knows it.
func forward(f func(context.Context, StepInput) (StepResult, error)) named {
	return activity(func(ctx context.Context, in StepInput) (StepResult, error) {
		result, err := f(ctx, in)
		if in.KnowsBusy && errors.Is(err, partner.ErrBusy) {
			trace.SpanFromContext(ctx).AddEvent("busy")
			return StepResult{Busy: true}, nil
		}
		return result, err
	})
}

// key is the idempotency key of a step, for partners and events.
func key(order contracts.Order, step string) string { return order.OrderID + ":" + step }
