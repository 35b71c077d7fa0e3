// Package api is this service's edge: its REST routes and the events it takes. It turns what comes in into calls of the
// domain and of what main gives it, and errors into problems. It does not know how anything is stored or sent.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Courier takes messages over and brings each to its outcome.
type Courier interface {
	// AcceptAll returns an error, or nil, for each message.
	AcceptAll(ctx context.Context, ms ...message.Message) []error
	// UpdateContact is how contacts are changed: messages may wait for an address.
	UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error)
	// Resend has a message that has its outcome sent again.
	Resend(ctx context.Context, id, actor, reason string, evenIfDelivered bool) (message.Message, error)
}

// Messages is where messages are read.
type Messages interface {
	Get(ctx context.Context, id string) (message.Message, error)
	OfOrder(ctx context.Context, orderID string) ([]message.Message, error)
}

// Contacts is where contacts are read.
type Contacts interface {
	Get(ctx context.Context, customerID string) (contact.Contact, error)
}

// API is what the routes stand on.
type API struct {
	Courier  Courier
	Messages Messages
	Contacts Contacts
	// PushKey is the public key that browsers subscribe with.
	PushKey func(ctx context.Context) (string, error)
	// Loopback allows push endpoints on this machine.
	Loopback bool
	Logger   *slog.Logger
}

// version is the version of this API. It changes when the API does, and not with the data version of the events.
const version = "1.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill notifications", Version: version,
		Description: "What customers and operators were told, over which channel and with what outcome; and how customers can be reached.",
	}
}

// Mount adds the REST routes.
func (a API) Mount(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-notifications", Method: http.MethodGet, Path: "/v1/notifications", Tags: []string{"notifications"},
		Summary: "An order's notifications", Description: "Those to its customer and those to the operators, in the order in which they were asked for.",
		Errors: []int{422, 503},
	}, a.list)
	huma.Register(api, huma.Operation{
		OperationID: "get-notification", Method: http.MethodGet, Path: "/v1/notifications/{id}", Tags: []string{"notifications"},
		Summary: "One notification", Errors: []int{404, 503},
	}, a.get)
	huma.Register(api, huma.Operation{
		OperationID: "resend-notification", Method: http.MethodPost, Path: "/v1/notifications/{id}/resend", Tags: []string{"notifications"},
		Summary: "Send a notification again",
		Description: "For one that was given up (failed), to the address that is known now; actor and reason stay on record in it. The same order again is no other one. " +
			"409 notification_pending for one that has not come to its outcome, 409 notification_delivered for one that was delivered, unless even_if_delivered is true. " +
			"Without an address it waits for one.",
		DefaultStatus: http.StatusAccepted, MaxBodyBytes: rest.MaxBody, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.resend)
	huma.Register(api, huma.Operation{
		OperationID: "get-contact", Method: http.MethodGet, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary: "How a customer can be reached", Errors: []int{404, 422, 503},
		Responses: map[string]*huma.Response{"304": {Description: "The contact is as the If-None-Match header knows it."}},
	}, a.getContact)
	huma.Register(api, huma.Operation{
		OperationID: "set-contact", Method: http.MethodPut, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary:      "Set how a customer can be reached",
		Description:  "Replaces the whole contact: what is left out is gone. A channel is used when it has an address and preferences do not switch it off. Messages that wait for an address are sent. With If-Match it answers 412 when the contact has changed since it was read.",
		MaxBodyBytes: rest.MaxBody, Errors: []int{400, 412, 413, 415, 422, 503},
	}, a.setContact)
	huma.Register(api, huma.Operation{
		OperationID: "delete-contact", Method: http.MethodDelete, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary: "Forget how a customer can be reached", Description: "Also when nothing was known. Messages that are not sent yet will fail, those that wait for an address too.",
		DefaultStatus: http.StatusNoContent, Errors: []int{412, 422, 503},
	}, a.deleteContact)
	huma.Register(api, huma.Operation{
		OperationID: "get-push-key", Method: http.MethodGet, Path: "/v1/push/key", Tags: []string{"contacts"},
		Summary: "The key that browsers subscribe to push messages with", Description: "It is the applicationServerKey of the Push API (VAPID, RFC 8292).",
		Errors: []int{503},
	}, a.pushKey)
	describe(api.OpenAPI())
}

// Subscriptions are the events that this service takes.
func (a API) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{
		together(subscription(contracts.NotificationsReadsNotifications, soon, map[string]eventing.Handler{
			contracts.TypeNotificationRequested: a.requested,
			contracts.TypeCustomerRegistered:    a.registered,
			contracts.TypeCustomerUpdated:       a.updated,
		}), map[string]eventing.BulkHandler{contracts.TypeNotificationRequested: a.requestedTogether}),
		subscription(contracts.NotificationsReadsFulfillment, seldom, map[string]eventing.Handler{
			contracts.TypeApprovalRequested: a.approvalRequested,
			contracts.TypeFulfillmentFailed: a.fulfillmentFailed,
		}),
		subscription(contracts.NotificationsReadsInventory, seldom, map[string]eventing.Handler{
			contracts.TypeInventoryLowStock: a.stockChanged,
			contracts.TypeInventoryDepleted: a.stockChanged,
		}),
	}
}

// Nobody waits for a message to the millisecond, so events are gathered for a moment: the three messages of an order come
// together, and of the sagas' and the stock's events most do not concern the operators.
const (
	soon     = 100 * time.Millisecond
	seldom   = time.Second
	maxBatch = 100
)

func subscription(s contracts.Subscription, await time.Duration, handlers map[string]eventing.Handler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.OrderBus, Topic: s.Topic, DeadLetter: s.DeadLetter(), Sessions: true, Handlers: handlers,
		Bulk: &eventing.Bulk{MaxMessages: maxBatch, MaxAwait: await},
	}
}

// together has events that arrive together handled together.
func together(s eventing.Subscription, handlers map[string]eventing.BulkHandler) eventing.Subscription {
	s.Bulk.Together = handlers
	return s
}

func now() time.Time { return time.Now().UTC() }

// problem is the one place where errors become answers.
func (a API) problem(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*rest.Problem](err); ok {
		return p
	}
	if refused, ok := errors.AsType[*message.Error](err); ok {
		p := &rest.Problem{Status: http.StatusUnprocessableEntity, Code: refused.Code, Detail: refused.Text}
		switch refused.Kind {
		case message.NotFound:
			p.Status = http.StatusNotFound
		case message.Conflict:
			p.Status = http.StatusConflict
		default:
		}
		return p
	}
	if faults, ok := errors.AsType[contact.Faults](err); ok {
		p := &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_contact", Detail: "The contact is faulty; nothing was changed."}
		for _, fault := range faults {
			p.Errors = append(p.Errors, rest.Fault{Location: "body." + fault.Path, Message: fault.Expectation})
		}
		return p
	}
	return rest.Failed(ctx, a.Logger, err)
}
