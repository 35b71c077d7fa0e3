package contracts

import "time"

// Event types of the notifications topic. It is an inbox: every service that has a message for a customer may publish to it, and so
// may the system that manages customers.
const (
	TypeNotificationRequested = "Notification.Requested"
	TypeCustomerRegistered    = "Customer.Registered"
	TypeCustomerUpdated       = "Customer.Updated"
)

// Event types of the notification-outcomes topic.
const (
	TypeNotificationDelivered = "Notification.Delivered"
	TypeNotificationFailed    = "Notification.Failed"
)

// Channels by which a message reaches its recipient.
const (
	ChannelEmail = "email"
	ChannelSMS   = "sms"
	ChannelPush  = "push"
)

// Channels lists every channel.
func Channels() []string { return []string{ChannelEmail, ChannelSMS, ChannelPush} }

// Templates of messages to customers about their orders.
const (
	TemplateOrderShipped   = "order_shipped"
	TemplateOrderFailed    = "order_failed"
	TemplateOrderCancelled = "order_cancelled"
)

// Templates lists every template.
func Templates() []string {
	return []string{TemplateOrderShipped, TemplateOrderFailed, TemplateOrderCancelled}
}

// NotificationRequested requests one message over one channel. The optional fields are the data of its template.
type NotificationRequested struct {
	// NotificationID identifies the message. A retry must use the same id.
	NotificationID    string    `json:"notification_id"`
	OrderID           string    `json:"order_id"`
	CustomerID        string    `json:"customer_id"`
	Channel           string    `json:"channel"`
	Template          string    `json:"template"`
	TotalAmount       Amount    `json:"total_amount,omitempty"`
	Currency          string    `json:"currency,omitempty"`
	Carrier           string    `json:"carrier,omitempty"`
	TrackingNumber    string    `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time `json:"estimated_delivery,omitzero"`
	// Reason is a sentence that says why the order was not fulfilled.
	Reason string `json:"reason,omitempty"`
	// Refunded says that the payment was refunded.
	Refunded    bool      `json:"refunded,omitempty"`
	RequestedAt time.Time `json:"requested_at"`
}

// EventType is Notification.Requested.
func (NotificationRequested) EventType() string { return TypeNotificationRequested }

// Subject is notifications/<notification id>.
func (e NotificationRequested) Subject() string { return notificationSubject(e.NotificationID) }

// Key is the customer, whose events stay in order.
func (e NotificationRequested) Key() string { return e.CustomerID }

func notificationSubject(id string) string { return "notifications/" + id }

// Contact has the addresses of a customer. A channel is not used if it has no address or Preferences disable it.
type Contact struct {
	Name string `json:"name,omitempty"`
	// Email is one address, such as name@example.com. Only its domain may have characters outside ASCII.
	Email string `json:"email,omitempty"`
	// Phone is a number in E.164 form, such as +12065550123.
	Phone       string       `json:"phone,omitempty"`
	Push        *PushAddress `json:"push,omitempty"`
	Preferences *Preferences `json:"preferences,omitempty"`
}

// PushAddress is a browser's push subscription. Its fields have the names of the Web Push API.
type PushAddress struct {
	Endpoint string `json:"endpoint"`
	// P256DH is the browser's public key, Auth its authentication secret, both in base64url.
	P256DH string `json:"p256dh"`
	Auth   string `json:"auth"`
}

// Preferences are the channels that a customer wants. Without preferences, all channels are used.
type Preferences struct {
	Email bool `json:"email"`
	SMS   bool `json:"sms"`
	Push  bool `json:"push"`
}

// CustomerRegistered says that a customer exists and how to contact them.
type CustomerRegistered struct {
	CustomerID string `json:"customer_id"`
	Contact
	RegisteredAt time.Time `json:"registered_at"`
}

// EventType is Customer.Registered.
func (CustomerRegistered) EventType() string { return TypeCustomerRegistered }

// Subject is customers/<customer id>.
func (e CustomerRegistered) Subject() string { return "customers/" + e.CustomerID }

// Key is the customer, whose events stay in order.
func (e CustomerRegistered) Key() string { return e.CustomerID }

// CustomerUpdated replaces the contact of a customer. It has the whole contact: a missing address is removed.
type CustomerUpdated struct {
	CustomerID string `json:"customer_id"`
	Contact
	// UpdatedAt orders the updates: an older update has no effect.
	UpdatedAt time.Time `json:"updated_at"`
}

// EventType is Customer.Updated.
func (CustomerUpdated) EventType() string { return TypeCustomerUpdated }

// Subject is customers/<customer id>.
func (e CustomerUpdated) Subject() string { return "customers/" + e.CustomerID }

// Key is the customer, whose events stay in order.
func (e CustomerUpdated) Key() string { return e.CustomerID }

// NotificationDelivered says that a channel accepted a message.
type NotificationDelivered struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	// CustomerID is the recipient. It is empty for a message to the operators.
	CustomerID  string    `json:"customer_id,omitempty"`
	Channel     string    `json:"channel"`
	Template    string    `json:"template"`
	Attempts    int       `json:"attempts"`
	DeliveredAt time.Time `json:"delivered_at"`
	// Resends is how often an operator resent the message before this outcome.
	Resends int `json:"resends,omitempty"`
}

// EventType is Notification.Delivered.
func (NotificationDelivered) EventType() string { return TypeNotificationDelivered }

// Subject is notifications/<notification id>.
func (e NotificationDelivered) Subject() string { return notificationSubject(e.NotificationID) }

// Key is the message. It has one outcome, and another one after each resend.
func (e NotificationDelivered) Key() string { return e.NotificationID }

// NotificationFailed says that a message has failed permanently: only an operator can resend it. A message that waits for an address
// has not failed.
type NotificationFailed struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	// CustomerID is the recipient. It is empty for a message to the operators.
	CustomerID string `json:"customer_id,omitempty"`
	Channel    string `json:"channel"`
	Template   string `json:"template"`
	// Code is stable and meant for programs, Error is a sentence for people.
	Code     string    `json:"code"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	FailedAt time.Time `json:"failed_at"`
	// Resends is how often an operator resent the message before this outcome.
	Resends int `json:"resends,omitempty"`
}

// EventType is Notification.Failed.
func (NotificationFailed) EventType() string { return TypeNotificationFailed }

// Subject is notifications/<notification id>.
func (e NotificationFailed) Subject() string { return notificationSubject(e.NotificationID) }

// Key is the message. It has one outcome, and another one after each resend.
func (e NotificationFailed) Key() string { return e.NotificationID }
