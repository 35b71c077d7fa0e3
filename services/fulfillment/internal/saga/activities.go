package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Partners are what the saga acts on. Every method is idempotent by order, and none keeps customer data in its errors,
// for the workflow's history keeps their text.
type Partners struct {
	Payments  Payments
	Inventory Inventory
	Carrier   Carrier
	Sagas     Sagas
	Events    Events
	// Now is the clock of the activities; the workflow has its own.
	Now func() time.Time
}

// Payments charges and refunds at the payment provider.
type Payments interface {
	// Charge takes the order's total. A refusal comes as a Reason.
	Charge(ctx context.Context, order contracts.Order, key string) (transactionID string, refused *partner.Reason, err error)
	// Refund gives back what was charged; zero says that nothing had been.
	Refund(ctx context.Context, order contracts.Order, key string) (amount contracts.Amount, transactionID string, err error)
}

// Inventory reserves and ships stock.
type Inventory interface {
	// Reserve holds every line or none. A refusal comes as a Reason.
	Reserve(ctx context.Context, order contracts.Order) (refused *partner.Reason, err error)
	// Release gives back what is held; false says that nothing was.
	Release(ctx context.Context, order contracts.Order) (bool, error)
	// Ship takes what is held out of the warehouse, Unship puts it back.
	Ship(ctx context.Context, order contracts.Order) error
	Unship(ctx context.Context, order contracts.Order) error
}

// Carrier books parcels.
type Carrier interface {
	// Book books the order's parcel. A refusal comes as a Reason.
	Book(ctx context.Context, order contracts.Order, key string) (shipment partner.Shipment, refused *partner.Reason, err error)
	// Cancel calls the parcel back; false says that there was none.
	Cancel(ctx context.Context, order contracts.Order) (bool, error)
}

// Sagas records the end of an order's saga.
type Sagas interface {
	End(ctx context.Context, orderID, outcome string) error
}

// Events publishes what the saga did. The id is the same on every retry.
type Events interface {
	Publish(ctx context.Context, id string, payload contracts.Payload) error
}

// StepInput is what a step and its undo are given.
type StepInput struct {
	Order contracts.Order `json:"order"`
}

// StepResult is a step's answer: either it was refused, or it was done.
type StepResult struct {
	Refused  *partner.Reason  `json:"refused,omitempty"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
}

// Report is what UpdateOrderStatus announces: a shipment, or a failure and what was undone.
type Report struct {
	Order        contracts.Order  `json:"order"`
	Shipment     partner.Shipment `json:"shipment,omitzero"`
	Failure      *partner.Reason  `json:"failure,omitempty"`
	Compensation Compensation     `json:"compensation,omitzero"`
}

// Outcomes of a saga, as its record keeps them.
const (
	outcomeCompleted = "completed"
	outcomeFailed    = "failed"
)

// activityTimeout bounds one run of one activity.
const activityTimeout = 30 * time.Second

type activities struct{ Partners }

// Register adds the saga's workflows and activities to r under their durable names.
func Register(r *workflow.Registry, limits Limits, partners Partners) error {
	w, a := workflows{limits}, activities{partners}
	for name, f := range map[string]workflow.Workflow{
		workflowFulfillOrder:    w.fulfillOrder,
		workflowCompensateOrder: w.compensateOrder,
	} {
		if err := r.AddWorkflowN(name, f); err != nil {
			return fmt.Errorf("register workflow %s: %w", name, err)
		}
	}
	for name, f := range map[string]workflow.Activity{
		activityValidatePayment:   activity(a.validatePayment),
		activityReserveInventory:  activity(a.reserveInventory),
		activityProcessShipment:   activity(a.processShipment),
		activityUpdateOrderStatus: activity(a.updateOrderStatus),
		activityRefundPayment:     activity(a.refundPayment),
		activityReleaseInventory:  activity(a.releaseInventory),
		activityCancelShipment:    activity(a.cancelShipment),
	} {
		if err := r.AddActivityN(name, f); err != nil {
			return fmt.Errorf("register activity %s: %w", name, err)
		}
	}
	return nil
}

// activity gives f its input, a deadline and a span under the trace that the workflow was started in.
func activity[In any](f func(context.Context, In) (StepResult, error)) workflow.Activity {
	return func(ctx workflow.ActivityContext) (any, error) {
		var in In
		if err := ctx.GetInput(&in); err != nil {
			return nil, fmt.Errorf("read the input: %w", err)
		}
		bounded, cancel := context.WithTimeout(ctx.Context(), activityTimeout)
		defer cancel()
		return f(bounded, in)
	}
}

// traced runs one activity's work in a span of its name.
func traced(ctx context.Context, name, orderID string, work func(context.Context) error) error {
	ctx, span := otel.Tracer("waybill/fulfillment/saga").Start(ctx, name, trace.WithAttributes(attribute.String("order.id", orderID)))
	defer span.End()
	err := work(ctx)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "the step failed")
	}
	return err
}

// key makes a step idempotent at whoever it calls.
func key(order contracts.Order, step string) string { return order.OrderID + ":" + step }

func (a activities) validatePayment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityValidatePayment, in.Order.OrderID, func(ctx context.Context) error {
		transaction, refused, err := a.Payments.Charge(ctx, in.Order, key(in.Order, activityValidatePayment))
		if err != nil {
			return fmt.Errorf("charge: %w", err)
		}
		result.Refused = refused
		done := contracts.StepCompleted{TransactionID: transaction, Amount: in.Order.TotalAmount, Currency: in.Order.Currency}
		return a.announce(ctx, in.Order, activityValidatePayment, refused, done)
	})
	return result, err
}

func (a activities) refundPayment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityRefundPayment, in.Order.OrderID, func(ctx context.Context) error {
		amount, transaction, err := a.Payments.Refund(ctx, in.Order, key(in.Order, activityRefundPayment))
		if err != nil {
			return fmt.Errorf("refund: %w", err)
		}
		if transaction == "" {
			return nil // nothing had been charged, so there is nothing to tell
		}
		done := contracts.StepCompleted{TransactionID: transaction, Amount: amount, Currency: in.Order.Currency}
		return a.announce(ctx, in.Order, activityRefundPayment, nil, done)
	})
	return result, err
}

func (a activities) reserveInventory(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityReserveInventory, in.Order.OrderID, func(ctx context.Context) error {
		refused, err := a.Inventory.Reserve(ctx, in.Order)
		if err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
		result.Refused = refused
		return a.announce(ctx, in.Order, activityReserveInventory, refused, contracts.StepCompleted{})
	})
	return result, err
}

func (a activities) releaseInventory(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityReleaseInventory, in.Order.OrderID, func(ctx context.Context) error {
		released, err := a.Inventory.Release(ctx, in.Order)
		if err != nil {
			return fmt.Errorf("release: %w", err)
		}
		if !released {
			return nil
		}
		return a.announce(ctx, in.Order, activityReleaseInventory, nil, contracts.StepCompleted{})
	})
	return result, err
}

// processShipment books the parcel first: stock leaves the warehouse only with a parcel that will be fetched.
func (a activities) processShipment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityProcessShipment, in.Order.OrderID, func(ctx context.Context) error {
		shipment, refused, err := a.Carrier.Book(ctx, in.Order, key(in.Order, activityProcessShipment))
		if err != nil {
			return fmt.Errorf("book the carrier: %w", err)
		}
		if refused == nil {
			if err := a.Inventory.Ship(ctx, in.Order); err != nil {
				return fmt.Errorf("ship the stock: %w", err)
			}
		}
		result = StepResult{Refused: refused, Shipment: shipment}
		done := contracts.StepCompleted{
			Carrier: shipment.Carrier, TrackingNumber: shipment.TrackingNumber, EstimatedDelivery: shipment.EstimatedDelivery,
		}
		return a.announce(ctx, in.Order, activityProcessShipment, refused, done)
	})
	return result, err
}

func (a activities) cancelShipment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityCancelShipment, in.Order.OrderID, func(ctx context.Context) error {
		cancelled, err := a.Carrier.Cancel(ctx, in.Order)
		if err != nil {
			return fmt.Errorf("cancel the shipment: %w", err)
		}
		if err := a.Inventory.Unship(ctx, in.Order); err != nil {
			return fmt.Errorf("put the stock back: %w", err)
		}
		if !cancelled {
			return nil
		}
		return a.announce(ctx, in.Order, activityCancelShipment, nil, contracts.StepCompleted{})
	})
	return result, err
}

// announce publishes the end of a step: done, or refused, which says why and nothing else.
func (a activities) announce(ctx context.Context, order contracts.Order, step string, refused *partner.Reason, e contracts.StepCompleted) error {
	if refused != nil {
		e = contracts.StepCompleted{Outcome: contracts.OutcomeRefused, Code: refused.Code, Message: refused.Message}
	} else {
		e.Outcome = contracts.OutcomeDone
	}
	e.OrderID, e.CustomerID, e.Step, e.CompletedAt = order.OrderID, order.CustomerID, step, a.Now().UTC()
	if err := a.Events.Publish(ctx, key(order, step), e); err != nil {
		return fmt.Errorf("announce the step: %w", err)
	}
	return nil
}

// updateOrderStatus announces the saga's outcome and then records its end: until the record says so, a saga that is
// started again comes here again.
func (a activities) updateOrderStatus(ctx context.Context, report Report) (result StepResult, err error) {
	order := report.Order
	err = traced(ctx, activityUpdateOrderStatus, order.OrderID, func(ctx context.Context) error {
		outcome, payload := outcomeCompleted, contracts.Payload(contracts.FulfillmentCompleted{
			OrderID: order.OrderID, CustomerID: order.CustomerID, TrackingNumber: report.Shipment.TrackingNumber,
			Carrier: report.Shipment.Carrier, ShipmentCost: report.Shipment.Cost,
			EstimatedDelivery: report.Shipment.EstimatedDelivery, CompletedAt: a.Now().UTC(),
		})
		if report.Failure != nil {
			outcome, payload = outcomeFailed, contracts.FulfillmentFailed{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Code: report.Failure.Code, Error: report.Failure.Message,
				Undone: append([]string{}, report.Compensation.Undone...), NotUndone: report.Compensation.NotUndone, FailedAt: a.Now().UTC(),
			}
		}
		if err := a.Events.Publish(ctx, key(order, payload.EventType()), payload); err != nil {
			return fmt.Errorf("announce the outcome: %w", err)
		}
		return a.Sagas.End(ctx, order.OrderID, outcome)
	})
	return result, err
}
