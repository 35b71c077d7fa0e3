package api

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

// requested takes over the message that somebody asks for.
func (a API) requested(ctx context.Context, e eventing.Event) error {
	return a.requestedTogether(ctx, []eventing.Event{e})[0]
}

// requestedTogether takes over the messages that somebody asks for, such as those of one order.
func (a API) requestedTogether(ctx context.Context, events []eventing.Event) []error {
	errs := make([]error, len(events))
	messages, from := make([]message.Message, 0, len(events)), make([]int, 0, len(events))
	for i, e := range events {
		var data contracts.NotificationRequested
		if errs[i] = e.Decode(&data); errs[i] != nil {
			continue
		}
		m, err := message.Requested(data, eventTime(e))
		if errs[i] = rejected(err); err == nil {
			messages, from = append(messages, m), append(from, i)
		}
	}
	for n, err := range a.Courier.AcceptAll(ctx, messages...) {
		errs[from[n]] = rejected(err)
	}
	return errs
}

func (a API) approvalRequested(ctx context.Context, e eventing.Event) error {
	var data contracts.ApprovalRequested
	if err := e.Decode(&data); err != nil {
		return err
	}
	m, ok, err := message.ApprovalRequested(causeOf(e), data, now())
	return a.accept(ctx, m, ok, err)
}

func (a API) fulfillmentFailed(ctx context.Context, e eventing.Event) error {
	var data contracts.FulfillmentFailed
	if err := e.Decode(&data); err != nil {
		return err
	}
	m, ok, err := message.NeedsAttention(causeOf(e), data, eventTime(e))
	return a.accept(ctx, m, ok, err)
}

func (a API) stockChanged(ctx context.Context, e eventing.Event) error {
	var data contracts.StockChanged
	if err := e.Decode(&data); err != nil {
		return err
	}
	m, ok, err := message.Stock(causeOf(e), data, eventTime(e))
	return a.accept(ctx, m, ok, err)
}

// fulfillment is the source of the events that alerts tell of.
const fulfillment = "/waybill/fulfillment"

// causeOf identifies the event that an alert tells of. Ids are unique for one source only; no id holds the separator.
func causeOf(e eventing.Event) string {
	if e.Source == fulfillment {
		return e.ID
	}
	return e.ID + "\x1f" + e.Source
}

// accept hands the message over, if the event gives reason for one. An event that can never be a message is rejected.
func (a API) accept(ctx context.Context, m message.Message, ok bool, err error) error {
	if err == nil && ok {
		err = a.Courier.AcceptAll(ctx, m)[0]
	}
	return rejected(err)
}

// rejected is the outcome of an event that ended with err: one that can never be a message is rejected.
func rejected(err error) error {
	if _, invalid := errors.AsType[*message.Error](err); invalid {
		return eventing.Reject(err)
	}
	return err
}

func eventTime(e eventing.Event) time.Time {
	if e.Time.IsZero() {
		return now()
	}
	return e.Time
}

func (a API) registered(ctx context.Context, e eventing.Event) error {
	var data contracts.CustomerRegistered
	if err := e.Decode(&data); err != nil {
		return err
	}
	return a.learn(ctx, e, data.CustomerID, data.Contact, data.RegisteredAt)
}

func (a API) updated(ctx context.Context, e eventing.Event) error {
	var data contracts.CustomerUpdated
	if err := e.Decode(&data); err != nil {
		return err
	}
	return a.learn(ctx, e, data.CustomerID, data.Contact, data.UpdatedAt)
}

// learn keeps the contact in an event unless something newer is known.
func (a API) learn(ctx context.Context, e eventing.Event, customerID string, said contracts.Contact, at time.Time) error {
	if err := message.CheckParty("customer_id", customerID); err != nil {
		return eventing.Reject(err)
	}
	if at.IsZero() {
		at = e.Time
	}
	if at.IsZero() {
		return eventing.Reject(errors.New("nothing says when the customer could be reached this way"))
	}
	if faults := contact.Check(said, a.Loopback); len(faults) > 0 {
		return eventing.Reject(faults)
	}
	_, err := a.Courier.UpdateContact(ctx, customerID, func(c *contact.Contact) bool { return c.Learn(said, at, now()) })
	if err != nil {
		return fmt.Errorf("keep the contact of %s: %w", customerID, err)
	}
	return nil
}
