package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// requested accepts the requested messages, such as those of one order, together.
func (h Handlers) requested(ctx context.Context, events []eventing.Typed[contracts.NotificationRequested]) []error {
	errs := make([]error, len(events))
	messages, from := make([]message.Message, 0, len(events)), make([]int, 0, len(events))
	for i, e := range events {
		m, err := message.Requested(e.Data, timeOf(e.Event))
		if errs[i] = rejectInvalid(err); err == nil {
			messages, from = append(messages, m), append(from, i)
		}
	}
	for n, err := range h.Courier.AcceptAll(ctx, messages...) {
		errs[from[n]] = rejectInvalid(err)
	}
	return errs
}

func (h Handlers) approvalRequested(ctx context.Context, e eventing.Event, data contracts.ApprovalRequested) error {
	m, ok, err := message.ApprovalRequested(causeOf(e), data, now())
	return h.alert(ctx, m, ok, err)
}

func (h Handlers) fulfillmentFailed(ctx context.Context, e eventing.Event, data contracts.FulfillmentFailed) error {
	m, ok, err := message.NeedsAttention(causeOf(e), data, timeOf(e))
	return h.alert(ctx, m, ok, err)
}

func (h Handlers) stockChanged(ctx context.Context, e eventing.Event, data contracts.StockChanged) error {
	m, ok, err := message.Stock(causeOf(e), data, timeOf(e))
	return h.alert(ctx, m, ok, err)
}

// alert accepts a message to the operators, if the event causes one.
func (h Handlers) alert(ctx context.Context, m message.Message, ok bool, err error) error {
	if err == nil && ok {
		err = h.Courier.AcceptAll(ctx, m)[0]
	}
	return rejectInvalid(err)
}

// fulfillment is the source of the events that normally cause alerts.
const fulfillment = "/waybill/fulfillment"

// causeOf identifies the event that causes an alert. Ids are unique within one source only. No id contains the separator.
func causeOf(e eventing.Event) string {
	if e.Source == fulfillment {
		return e.ID
	}
	return e.ID + "\x1f" + e.Source
}

// rejectInvalid rejects an event that can never become a message.
func rejectInvalid(err error) error {
	if _, invalid := errors.AsType[*message.Error](err); invalid {
		return eventing.Reject(err)
	}
	return err
}

func (h Handlers) registered(ctx context.Context, e eventing.Event, data contracts.CustomerRegistered) error {
	return h.learn(ctx, e, data.CustomerID, data.Contact, data.RegisteredAt)
}

func (h Handlers) updated(ctx context.Context, e eventing.Event, data contracts.CustomerUpdated) error {
	return h.learn(ctx, e, data.CustomerID, data.Contact, data.UpdatedAt)
}

// learn stores the contact of an event unless a newer one is known.
func (h Handlers) learn(ctx context.Context, e eventing.Event, customerID string, said contracts.Contact, at time.Time) error {
	if err := message.CheckParty("customer_id", customerID); err != nil {
		return eventing.Reject(err)
	}
	if at.IsZero() {
		at = e.Time
	}
	if at.IsZero() {
		return eventing.Reject(errors.New("neither the data nor the event has a time, so the contact cannot be compared with the known one"))
	}
	if faults := contact.Check(said, h.Loopback); len(faults) > 0 {
		return eventing.Reject(faults)
	}
	if _, err := h.Courier.UpdateContact(ctx, customerID, func(c *contact.Contact) bool { return c.Learn(said, at, now()) }); err != nil {
		return fmt.Errorf("store the contact of %s: %w", customerID, err)
	}
	return nil
}

// timeOf returns the time of the event, or now if it has none.
func timeOf(e eventing.Event) time.Time {
	if e.Time.IsZero() {
		return now()
	}
	return e.Time
}

func now() time.Time { return time.Now().UTC() }
