package saga

import (
	"context"
	"encoding/json"
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

// Partners are what the saga acts on. Every method is idempotent by order, and none keeps customer data in its errors,
// for the workflow's history keeps their text.
type Partners struct {
	Payments  Payments
	Inventory Inventory
	Carrier   Carrier
	Records   Records
	Events    Events
	Logger    *slog.Logger
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

// Records is what is kept of every saga outside the engine. Its refusals are a *record.Error.
type Records interface {
	Get(ctx context.Context, orderID string) (record.Saga, error)
	// Read is Get, with a Change of the entry that need not read it again.
	Read(ctx context.Context, orderID string) (record.Saga, record.Change, error)
	// Change alters an order's entry, which may be new, unless change reports that nothing changed. It may call change again.
	Change(ctx context.Context, orderID string, change func(e *record.Saga) (bool, error)) (record.Saga, error)
	// ListApproval puts the order among those that asked for an approval.
	ListApproval(ctx context.Context, orderID string) error
}

// Events publishes what the saga did. An event's id is the same on every retry.
type Events interface {
	Publish(ctx context.Context, id string, payload contracts.Payload) error
	// PublishAll publishes events together, in their order. After an error it is not known which of them were published.
	PublishAll(ctx context.Context, events ...Event) error
}

// Event is an event and its id.
type Event struct {
	ID      string
	Payload contracts.Payload
}

// StepInput is what a step and its undo are given.
type StepInput struct {
	Order contracts.Order `json:"order"`
	// KnowsBusy says that the workflow understands a StepResult that is Busy. To any other, a partner that is busy is an error.
	KnowsBusy bool `json:"knows_busy,omitempty"`
}

// StepResult is a step's answer: it was refused, or it was done, or the service was busy.
type StepResult struct {
	Refused *partner.Reason `json:"refused,omitempty"`
	// Busy says that the step did not get its turn in one of this service's own queues, and did nothing. It is to be run again,
	// and does not count as an attempt.
	Busy     bool             `json:"busy,omitempty"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	// Refunded says that RefundPayment gave money back.
	Refunded bool `json:"refunded,omitempty"`
}

// Decisions are what people decided about an order, as far as the saga asked: it was refused, or approved, or neither yet.
type Decisions struct {
	Refused  *partner.Reason `json:"refused,omitempty"`
	Approved bool            `json:"approved,omitempty"`
}

// Reported is the outcome that UpdateOrderStatus recorded. It is cancelled instead of failed when a cancellation was recorded
// before the saga's end; Failure is then the cancellation.
type Reported struct {
	Outcome record.Outcome  `json:"outcome,omitempty"`
	Failure *partner.Reason `json:"failure,omitempty"`
	// Notified says that the customer's messages were requested as well.
	Notified bool `json:"notified,omitempty"`
}

// ApprovalInput is what the two activities of an approval are given.
type ApprovalInput struct {
	Order       contracts.Order `json:"order"`
	RequestedAt time.Time       `json:"requested_at,omitzero"`
	ExpiresAt   time.Time       `json:"expires_at,omitzero"`
	// Expired says that the time is up.
	Expired bool `json:"expired,omitempty"`
}

// Asked is until when a person has to decide, as it was first asked for.
type Asked struct {
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Message is what a customer is told.
type Message struct {
	Order    contracts.Order  `json:"order"`
	Template string           `json:"template"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	Reason   string           `json:"reason,omitempty"`
	Refunded bool             `json:"refunded,omitempty"`
}

// HaltInput describes a saga that stands still for the Round-th time.
type HaltInput struct {
	Order     contracts.Order `json:"order"`
	Round     int             `json:"round"`
	Failure   partner.Reason  `json:"failure"`
	Undone    []string        `json:"undone,omitempty"`
	NotUndone []string        `json:"not_undone"`
}

// Report is what UpdateOrderStatus announces: a shipment, or a failure and what was undone.
type Report struct {
	Order    contracts.Order  `json:"order"`
	Outcome  record.Outcome   `json:"outcome"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	Failure  *partner.Reason  `json:"failure,omitempty"`
	Undone   []string         `json:"undone,omitempty"`
	// Notify asks UpdateOrderStatus to request the customer's messages as well. Refunded is for these messages.
	Notify   bool `json:"notify,omitempty"`
	Refunded bool `json:"refunded,omitempty"`
}

// recorded is the report with the outcome that was recorded, which differs when a cancellation arrived before the outcome.
func (r Report) recorded(as Reported) Report {
	if r.Outcome != record.Completed && as.Outcome == record.Cancelled && as.Failure != nil {
		r.Outcome, r.Failure = as.Outcome, as.Failure
	}
	return r
}

// message is what the customer is told about the outcome.
func (r Report) message(refunded bool) Message {
	switch r.Outcome {
	case record.Completed:
		return Message{Order: r.Order, Template: contracts.TemplateOrderShipped, Shipment: r.Shipment}
	case record.Cancelled:
		return Message{Order: r.Order, Template: contracts.TemplateOrderCancelled, Reason: r.Failure.Message, Refunded: refunded}
	default:
		return Message{Order: r.Order, Template: contracts.TemplateOrderFailed, Reason: r.Failure.Message, Refunded: refunded}
	}
}

// activityTimeout bounds one run of one activity.
const activityTimeout = 30 * time.Second

type activities struct{ Partners }

// Register adds the saga's workflows and activities to r under their durable names.
func Register(r *workflow.Registry, partners Partners) error {
	a := activities{partners}
	for name, f := range map[string]workflow.Workflow{
		workflowFulfillOrder:    fulfillOrder,
		workflowCompensateOrder: compensateOrder,
	} {
		if err := r.AddWorkflowN(name, f); err != nil {
			return fmt.Errorf("register workflow %s: %w", name, err)
		}
	}
	for name, f := range map[string]workflow.Activity{
		activityValidatePayment:   forward(a.validatePayment),
		activityReserveInventory:  forward(a.reserveInventory),
		activityRequestApproval:   activity(a.requestApproval),
		activitySettleApproval:    activity(a.settleApproval),
		activityProcessShipment:   forward(a.processShipment),
		activitySendEmail:         activity(a.send(activitySendEmail, contracts.ChannelEmail)),
		activitySendSMS:           activity(a.send(activitySendSMS, contracts.ChannelSMS)),
		activitySendPush:          activity(a.send(activitySendPush, contracts.ChannelPush)),
		activityUpdateOrderStatus: activity(a.updateOrderStatus),
		activityRefundPayment:     activity(a.refundPayment),
		activityReleaseInventory:  activity(a.releaseInventory),
		activityCancelShipment:    activity(a.cancelShipment),
		activityReadDecisions:     activity(a.readDecisions),
		activityAskForRepair:      activity(a.askForRepair),
		activityTakeRepair:        activity(a.takeRepair),
	} {
		if err := r.AddActivityN(name, f); err != nil {
			return fmt.Errorf("register activity %s: %w", name, err)
		}
	}
	return nil
}

// activity gives f its input and a deadline.
func activity[In, Out any](f func(context.Context, In) (Out, error)) workflow.Activity {
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

// forward makes f the activity of a forward step: when a partner is busy, that is the step's answer, if the workflow knows it.
func forward(f func(context.Context, StepInput) (StepResult, error)) workflow.Activity {
	return activity(func(ctx context.Context, in StepInput) (StepResult, error) {
		result, err := f(ctx, in)
		if in.KnowsBusy && errors.Is(err, partner.ErrBusy) {
			return StepResult{Busy: true}, nil
		}
		return result, err
	})
}

// key makes a step idempotent at whoever it calls.
func key(order contracts.Order, step string) string { return order.OrderID + ":" + step }

// stopped is why a forward step must not be taken because the order was cancelled; nil when it may. Every attempt asks before it
// calls the partner: an attempt can come long after the workflow scheduled it. Nothing of such a step is announced, for it was
// not tried. An order that the journal does not know, because its entry was lost, was not cancelled.
func (a activities) stopped(ctx context.Context, orderID string) (*partner.Reason, error) {
	stopped, _, err := a.readStopped(ctx, orderID)
	return stopped, err
}

// readStopped is stopped, with a Change of the entry that was read.
func (a activities) readStopped(ctx context.Context, orderID string) (*partner.Reason, record.Change, error) {
	e, change, err := a.Records.Read(ctx, orderID)
	if refused, ok := errors.AsType[*record.Error](err); ok && refused.Kind == record.NotFound {
		return nil, func(alter func(e *record.Saga) (bool, error)) (record.Saga, error) {
			return a.Records.Change(ctx, orderID, alter)
		}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for a cancellation: %w", err)
	}
	if !e.Cancelled() {
		return nil, change, nil
	}
	return cancelled(e.Cancellation), change, nil
}

// validatePayment charges the order's total. Nothing is charged for a free order.
func (a activities) validatePayment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityValidatePayment, in.Order.OrderID, func(ctx context.Context) error {
		stopped, err := a.stopped(ctx, in.Order.OrderID)
		if err != nil || stopped != nil {
			result.Refused = stopped
			return err
		}
		if in.Order.TotalAmount == 0 {
			return nil
		}
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
		if transaction == "" || amount == 0 {
			return nil // nothing had been charged, so there is nothing to tell
		}
		result.Refunded = true
		done := contracts.StepCompleted{TransactionID: transaction, Amount: amount, Currency: in.Order.Currency}
		return a.announce(ctx, in.Order, activityRefundPayment, nil, done)
	})
	return result, err
}

func (a activities) reserveInventory(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityReserveInventory, in.Order.OrderID, func(ctx context.Context) error {
		stopped, err := a.stopped(ctx, in.Order.OrderID)
		if err != nil || stopped != nil {
			result.Refused = stopped
			return err
		}
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

// processShipment books the parcel first: stock leaves the warehouse only with a parcel that will be fetched. Between the two
// the booking is recorded in the journal, where it meets a cancellation: whichever is recorded first wins.
func (a activities) processShipment(ctx context.Context, in StepInput) (result StepResult, err error) {
	err = traced(ctx, activityProcessShipment, in.Order.OrderID, func(ctx context.Context) error {
		stopped, change, err := a.readStopped(ctx, in.Order.OrderID)
		if err != nil || stopped != nil {
			result.Refused = stopped
			return err
		}
		shipment, refused, err := a.Carrier.Book(ctx, in.Order, key(in.Order, activityProcessShipment))
		if err != nil {
			return fmt.Errorf("book the carrier: %w", err)
		}
		if refused == nil {
			e, err := change(func(e *record.Saga) (bool, error) {
				begun := e.Begin(in.Order, a.Now()) // false, unless the entry was lost
				return e.Book(a.Now()) || begun, nil
			})
			if err != nil {
				return fmt.Errorf("record the booking: %w", err)
			}
			if e.Cancelled() {
				result.Refused = cancelled(e.Cancellation)
				return nil
			}
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
	return a.tell(ctx, key(order, step), order, step, e)
}

// tell publishes a step's end under an id.
func (a activities) tell(ctx context.Context, id string, order contracts.Order, step string, e contracts.StepCompleted) error {
	e.OrderID, e.CustomerID, e.Step, e.CompletedAt = order.OrderID, order.CustomerID, step, a.Now().UTC()
	if err := a.Events.Publish(ctx, id, e); err != nil {
		return fmt.Errorf("announce the step: %w", err)
	}
	return nil
}

// messages are the activities that request the customer's messages, and their channels.
var messages = []struct{ activity, channel string }{
	{activitySendEmail, contracts.ChannelEmail}, {activitySendSMS, contracts.ChannelSMS}, {activitySendPush, contracts.ChannelPush},
}

// request is the event that requests the message over one channel.
func (m Message) request(channel string, now time.Time) Event {
	order := m.Order
	id := order.OrderID + ":" + m.Template + ":" + channel
	return Event{id, contracts.NotificationRequested{
		NotificationID: id, OrderID: order.OrderID, CustomerID: order.CustomerID, Channel: channel, Template: m.Template,
		TotalAmount: order.TotalAmount, Currency: order.Currency, Carrier: m.Shipment.Carrier,
		TrackingNumber: m.Shipment.TrackingNumber, EstimatedDelivery: m.Shipment.EstimatedDelivery,
		Reason: m.Reason, Refunded: m.Refunded, RequestedAt: now.UTC(),
	}}
}

// send makes the activity that requests the customer's message over one channel.
func (a activities) send(name, channel string) func(context.Context, Message) (StepResult, error) {
	return func(ctx context.Context, m Message) (result StepResult, err error) {
		order := m.Order
		err = traced(ctx, name, order.OrderID, func(ctx context.Context) error {
			request := m.request(channel, a.Now())
			if err := a.Events.Publish(ctx, request.ID, request.Payload); err != nil {
				a.Logger.WarnContext(ctx, "a customer's message could not be requested", slog.String("order_id", order.OrderID),
					slog.String("channel", channel), slog.Any("error", err))
				return fmt.Errorf("request the message: %w", err)
			}
			return nil
		})
		return result, err
	}
}

// notify requests the customer's messages over all channels and reports whether it could. It fails no activity: an outcome that was
// announced stays so, and the saga requests the messages one by one instead.
func (a activities) notify(ctx context.Context, m Message) bool {
	requests, now := make([]Event, len(messages)), a.Now()
	for i := range messages {
		requests[i] = m.request(messages[i].channel, now)
	}
	err := a.Events.PublishAll(ctx, requests...)
	if err != nil {
		a.Logger.WarnContext(ctx, "a customer's messages could not be requested together; will request each of them",
			slog.String("order_id", m.Order.OrderID), slog.Any("error", err))
	}
	return err == nil
}

// updateOrderStatus records how the saga ended and then announces it, as it was recorded: a cancellation is recorded in the same
// document, so it is decided there which of the two was first. If the announcement is lost with the engine, it is repeated when
// orders asks about the order again. Then it requests the customer's messages, if the report says so.
func (a activities) updateOrderStatus(ctx context.Context, report Report) (reported Reported, err error) {
	order := report.Order
	err = traced(ctx, activityUpdateOrderStatus, order.OrderID, func(ctx context.Context) error {
		now := a.Now().UTC()
		e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
			e.Begin(order, now) // an entry that was lost is no reason to repeat the saga
			ended := report
			if ended.Outcome = e.Conclude(report.Outcome); ended.Outcome != report.Outcome {
				ended.Failure = cancelled(e.Cancellation)
			}
			payload := ended.payload(now)
			data, err := json.Marshal(payload)
			if err != nil {
				return false, fmt.Errorf("record the outcome: %w", err)
			}
			announcement := record.Announcement{ID: key(order, payload.EventType()), Type: payload.EventType(), At: now, Data: data}
			return e.End(ended.Outcome, announcement, now), nil
		})
		if err != nil {
			return err
		}
		if reported.Outcome = e.Outcome; e.Outcome == record.Cancelled && e.Cancellation != nil {
			reported.Failure = cancelled(e.Cancellation)
		}
		payload, err := announced(&e)
		if err != nil {
			return err
		}
		if err := a.Events.Publish(ctx, e.Announced.ID, payload); err != nil {
			return fmt.Errorf("announce the outcome: %w", err)
		}
		if err := answerCancellation(ctx, a.Events, &e, now); err != nil {
			return err
		}
		reported.Notified = report.Notify && a.notify(ctx, report.recorded(reported).message(report.Refunded))
		return nil
	})
	return reported, err
}

func (r Report) payload(now time.Time) contracts.Payload {
	order := r.Order
	switch r.Outcome {
	case record.Completed:
		return contracts.FulfillmentCompleted{
			OrderID: order.OrderID, CustomerID: order.CustomerID, TrackingNumber: r.Shipment.TrackingNumber,
			Carrier: r.Shipment.Carrier, ShipmentCost: r.Shipment.Cost, Currency: order.Currency,
			EstimatedDelivery: r.Shipment.EstimatedDelivery, CompletedAt: now,
		}
	case record.Cancelled:
		return contracts.FulfillmentCancelled{
			OrderID: order.OrderID, CustomerID: order.CustomerID, Reason: r.Failure.Message, Undone: r.Undone, CancelledAt: now,
		}
	default:
		return contracts.FulfillmentFailed{
			OrderID: order.OrderID, CustomerID: order.CustomerID, Code: r.Failure.Code, Error: r.Failure.Message, Undone: r.Undone, FailedAt: now,
		}
	}
}
