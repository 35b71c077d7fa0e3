package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// The end of a saga: its outcome is recorded and announced, and the customer's messages are requested.

// Report is the input of UpdateOrderStatus: a shipment, or a failure and what was compensated.
type Report struct {
	Order    contracts.Order  `json:"order"`
	Outcome  record.Outcome   `json:"outcome"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	Failure  *partner.Reason  `json:"failure,omitempty"`
	Undone   []string         `json:"undone,omitempty"`
	// Notify makes UpdateOrderStatus also request the customer's messages. Refunded is for these messages.
	Notify   bool `json:"notify,omitempty"`
	Refunded bool `json:"refunded,omitempty"`
}

// Reported is the outcome as UpdateOrderStatus recorded it. It is cancelled instead of failed if a cancellation was recorded before the
// saga's end; Failure is then the cancellation.
type Reported struct {
	Outcome record.Outcome  `json:"outcome,omitempty"`
	Failure *partner.Reason `json:"failure,omitempty"`
	// Notified says that the customer's messages were requested too.
	Notified bool `json:"notified,omitempty"`
}

// Message is what the customer learns.
type Message struct {
	Order    contracts.Order  `json:"order"`
	Template string           `json:"template"`
	Shipment partner.Shipment `json:"shipment,omitzero"`
	Reason   string           `json:"reason,omitempty"`
	Refunded bool             `json:"refunded,omitempty"`
}

func (r Report) orderID() string  { return r.Order.OrderID }
func (m Message) orderID() string { return m.Order.OrderID }

// recorded returns the report with the recorded outcome, which differs if a cancellation came first.
func (r Report) recorded(as Reported) Report {
	if r.Outcome != record.Completed && as.Outcome == record.Cancelled && as.Failure != nil {
		r.Outcome, r.Failure = as.Outcome, as.Failure
	}
	return r
}

// message is the message about the outcome.
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

// event is the event that announces the outcome.
func (r Report) event(now time.Time) contracts.Payload {
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

// end records in s how the saga ended. It reports whether that changed s.
func (r Report) end(s *record.Saga, now time.Time) (bool, error) {
	s.Begin(r.Order, now) // true if the record was lost; the saga need not run again for that
	if outcome := s.Conclude(r.Outcome); outcome != r.Outcome {
		r.Outcome, r.Failure = outcome, cancellationReason(s.Cancellation)
	}
	event := r.event(now)
	data, err := json.Marshal(event)
	if err != nil {
		return false, fmt.Errorf("record the outcome: %w", err)
	}
	return s.End(r.Outcome, record.Announcement{ID: key(r.Order, event.EventType()), Type: event.EventType(), At: now, Data: data}, now), nil
}

// recordOutcome is the activity UpdateOrderStatus. It records how the saga ended and then announces it as it was recorded. A cancellation
// is recorded in the same document, so that document decides which of the two came first. If the announcement is lost with the engine, it
// is repeated when orders sends the order again. At last it requests the customer's messages, if the report says so.
func (a activities) recordOutcome(ctx context.Context, report Report) (Reported, error) {
	now := a.Now().UTC()
	saga, err := a.Records.Change(ctx, report.Order.OrderID, func(s *record.Saga) (bool, error) { return report.end(s, now) })
	if err != nil {
		return Reported{}, err
	}
	reported := Reported{Outcome: saga.Outcome}
	if saga.Outcome == record.Cancelled && saga.Cancellation != nil {
		reported.Failure = cancellationReason(saga.Cancellation)
	}
	if err := announceOutcome(ctx, a.Events, &saga); err != nil {
		return reported, err
	}
	if err := AnswerCancellation(ctx, a.Events, &saga, now); err != nil {
		return reported, err
	}
	reported.Notified = report.Notify && a.requestMessages(ctx, report.recorded(reported).message(report.Refunded))
	return reported, nil
}

// messages are the activities that request the customer's messages, with their channels.
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

// requestMessage returns the activity that requests the customer's message over one channel.
func (a activities) requestMessage(channel string) func(context.Context, Message) (StepResult, error) {
	return func(ctx context.Context, m Message) (StepResult, error) {
		request := m.request(channel, a.Now())
		if err := a.Events.Publish(ctx, request.ID, request.Payload); err != nil {
			a.Logger.WarnContext(ctx, "customer message could not be requested; will retry", slog.String("order_id", m.Order.OrderID),
				slog.String("channel", channel), slog.Any("error", err))
			return StepResult{}, fmt.Errorf("request the message: %w", err)
		}
		return StepResult{}, nil
	}
}

// requestMessages requests the customer's messages over all channels and reports whether it succeeded. It fails no activity, because the
// outcome is announced already; the saga then requests the messages one by one.
func (a activities) requestMessages(ctx context.Context, m Message) bool {
	requests, now := make([]Event, len(messages)), a.Now()
	for i := range messages {
		requests[i] = m.request(messages[i].channel, now)
	}
	err := a.Events.PublishAll(ctx, requests...)
	if err != nil {
		a.Logger.WarnContext(ctx, "customer messages could not be requested together; will request each of them",
			slog.String("order_id", m.Order.OrderID), slog.Any("error", err))
	}
	return err == nil
}

// IncludedSteps returns the steps that an activity ran besides its own, by its result: UpdateOrderStatus also requests the customer's
// messages, which are activities of their own in earlier releases and when that fails.
func IncludedSteps(step record.Step, result string) []record.Step {
	var reported Reported
	if step.Name != activityUpdateOrderStatus || json.Unmarshal([]byte(result), &reported) != nil || !reported.Notified {
		return nil
	}
	steps := make([]record.Step, len(messages))
	for i := range messages {
		steps[i] = record.Step{Name: messages[i].activity, Attempts: 1, StartedAt: step.StartedAt, EndedAt: step.EndedAt, Done: true}
	}
	return steps
}
