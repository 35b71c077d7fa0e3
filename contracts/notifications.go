package contracts

import "time"

// Event types of the notifications topic, an inbox: whoever has something to tell a customer publishes to it, and whoever
// keeps the customers.
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

// Templates of the messages that customers get about their orders.
const (
	TemplateOrderShipped   = "order_shipped"
	TemplateOrderFailed    = "order_failed"
	TemplateOrderCancelled = "order_cancelled"
)

// Templates lists every template.
func Templates() []string {
	return []string{TemplateOrderShipped, TemplateOrderFailed, TemplateOrderCancelled}
}

// NotificationRequested asks for one message over one channel. The optional fields are what its template may tell.
type NotificationRequested struct {
	// NotificationID names the message; whoever asks for it again uses the same one.
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
	// Refunded says that money was given back.
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

// Contact is how a customer can be reached. A channel without an address, or switched off in Preferences, is not used.
type Contact struct {
	Name string `json:"name,omitempty"`
	// Email is one address, such as name@example.com. Its domain may have characters beyond ASCII, the part before the @ may
	// not.
	Email string `json:"email,omitempty"`
	// Phone is a number in E.164 form, such as +12065550123.
	Phone       string       `json:"phone,omitempty"`
	Push        *PushAddress `json:"push,omitempty"`
	Preferences *Preferences `json:"preferences,omitempty"`
}

// PushAddress is a browser's push subscription, with the names of the Web Push API.
type PushAddress struct {
	Endpoint string `json:"endpoint"`
	// P256DH is the browser's public key, Auth its authentication secret, both in base64url.
	P256DH string `json:"p256dh"`
	Auth   string `json:"auth"`
}

// Preferences are the channels that a customer wants; without them, all.
type Preferences struct {
	Email bool `json:"email"`
	SMS   bool `json:"sms"`
	Push  bool `json:"push"`
}

// CustomerRegistered says that a customer exists and how to reach them.
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

// CustomerUpdated says how a customer can be reached from now on. It carries the whole contact: what is left out is gone.
type CustomerUpdated struct {
	CustomerID string `json:"customer_id"`
	Contact
	// UpdatedAt orders updates: an older one changes nothing.
	UpdatedAt time.Time `json:"updated_at"`
}

// EventType is Customer.Updated.
func (CustomerUpdated) EventType() string { return TypeCustomerUpdated }

// Subject is customers/<customer id>.
func (e CustomerUpdated) Subject() string { return "customers/" + e.CustomerID }

// Key is the customer, whose events stay in order.
func (e CustomerUpdated) Key() string { return e.CustomerID }

// NotificationDelivered says that a channel took a message.
type NotificationDelivered struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	// CustomerID is the recipient, empty when that is the operators.
	CustomerID  string    `json:"customer_id,omitempty"`
	Channel     string    `json:"channel"`
	Template    string    `json:"template"`
	Attempts    int       `json:"attempts"`
	DeliveredAt time.Time `json:"delivered_at"`
	// Resends is how many times an operator had the message sent again before this outcome.
	Resends int `json:"resends,omitempty"`
}

// EventType is Notification.Delivered.
func (NotificationDelivered) EventType() string { return TypeNotificationDelivered }

// Subject is notifications/<notification id>.
func (e NotificationDelivered) Subject() string { return notificationSubject(e.NotificationID) }

// Key is the message, which has one outcome, and another one after each resend.
func (e NotificationDelivered) Key() string { return e.NotificationID }

// NotificationFailed says that a message was given up: nothing sends it again but an operator's order. A message that waits for
// an address has not failed yet.
type NotificationFailed struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	// CustomerID is the recipient, empty when that is the operators.
	CustomerID string `json:"customer_id,omitempty"`
	Channel    string `json:"channel"`
	Template   string `json:"template"`
	// Code is stable and meant for programs, Error a sentence for people.
	Code     string    `json:"code"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	FailedAt time.Time `json:"failed_at"`
	// Resends is how many times an operator had the message sent again before this outcome.
	Resends int `json:"resends,omitempty"`
}

// EventType is Notification.Failed.
func (NotificationFailed) EventType() string { return TypeNotificationFailed }

// Subject is notifications/<notification id>.
func (e NotificationFailed) Subject() string { return notificationSubject(e.NotificationID) }

// Key is the message, which has one outcome, and another one after each resend.
func (e NotificationFailed) Key() string { return e.NotificationID }
