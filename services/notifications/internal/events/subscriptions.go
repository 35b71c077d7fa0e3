// Package events is the edge of the service to the bus: its subscriptions, the handlers of their events, and the publishing of
// outcomes. It does not know how anything is stored or sent.
package events

import (
	"context"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Courier accepts messages and changes contacts.
type Courier interface {
	// AcceptAll returns an error, or nil, for each message.
	AcceptAll(ctx context.Context, ms ...message.Message) []error
	UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error)
}

// Handlers handle the events that this service subscribes to.
type Handlers struct {
	Courier Courier
	// Loopback allows push endpoints on this machine.
	Loopback bool
}

// Events are gathered for a moment, because no message is urgent to the millisecond: the three messages of an order arrive
// together, and most events of fulfillment and inventory do not concern the operators.
const (
	requestsWait = 100 * time.Millisecond
	alertsWait   = time.Second
	maxBatch     = 100
)

// Subscriptions returns the subscriptions of this service.
func (h Handlers) Subscriptions() []eventing.Subscription {
	requested := eventing.OnBatch(h.requested)
	requests := subscription(contracts.NotificationsReadsNotifications, requestsWait, map[string]eventing.Handler{
		contracts.TypeNotificationRequested: single(requested),
		contracts.TypeCustomerRegistered:    eventing.On(h.registered),
		contracts.TypeCustomerUpdated:       eventing.On(h.updated),
	})
	requests.Bulk.Together = map[string]eventing.BulkHandler{contracts.TypeNotificationRequested: requested}
	return []eventing.Subscription{
		requests,
		subscription(contracts.NotificationsReadsFulfillment, alertsWait, map[string]eventing.Handler{
			contracts.TypeApprovalRequested: eventing.On(h.approvalRequested),
			contracts.TypeFulfillmentFailed: eventing.On(h.fulfillmentFailed),
		}),
		subscription(contracts.NotificationsReadsInventory, alertsWait, map[string]eventing.Handler{
			contracts.TypeInventoryLowStock: eventing.On(h.stockChanged),
			contracts.TypeInventoryDepleted: eventing.On(h.stockChanged),
		}),
	}
}

func subscription(s contracts.Subscription, wait time.Duration, handlers map[string]eventing.Handler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.OrderBus, Topic: s.Topic, DeadLetter: s.DeadLetter(), Sessions: true, Handlers: handlers,
		Bulk: &eventing.Bulk{MaxMessages: maxBatch, MaxAwait: wait},
	}
}

// single returns a Handler that gives each event to a handler of many.
func single(handle eventing.BulkHandler) eventing.Handler {
	return func(ctx context.Context, e eventing.Event) error { return handle(ctx, []eventing.Event{e})[0] }
}
