package message

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"waybill/contracts"
)

// Templates of the messages to the operators.
const (
	TemplateApprovalRequested = "approval_requested"
	TemplateNeedsAttention    = "needs_attention"
	TemplateLowStock          = "low_stock"
	TemplateDepleted          = "depleted"
)

// Patterns of ids.
const (
	// IDPattern matches the id of a notification.
	IDPattern = `^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$`
	// PartyPattern matches the id of an order, a customer or a product.
	PartyPattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
)

var (
	idForm    = regexp.MustCompile(IDPattern)
	partyForm = regexp.MustCompile(PartyPattern)
)

// CheckID returns an error if id is not a valid id of a notification.
func CheckID(id string) error {
	if !idForm.MatchString(id) {
		return invalid("notification_id must be 1 to 200 letters, digits, dots, underscores, colons and hyphens, the first a letter or digit")
	}
	return nil
}

// CheckParty returns an error if id is not a valid id of an order, a customer or a product. The error names the field.
func CheckParty(name, id string) error {
	if !partyForm.MatchString(id) {
		return invalid(name + " must be 1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit")
	}
	return nil
}

func invalid(text string) error {
	return &Error{Kind: Invalid, Code: "invalid_notification", Text: text}
}

const (
	// maxReason and maxName limit, in characters, texts from outside that a message repeats.
	maxReason = 500
	maxName   = 100
)

// Requested returns the message that the event requests. If the event has no time of its own, the request was made at the time at.
func Requested(e contracts.NotificationRequested, at time.Time) (Message, error) {
	var wrong []string
	for _, err := range []error{
		CheckID(e.NotificationID), CheckParty("order_id", e.OrderID), CheckParty("customer_id", e.CustomerID),
		oneOf("channel", e.Channel, contracts.Channels()), oneOf("template", e.Template, contracts.Templates()),
	} {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if reservedForAlerts(e.NotificationID) {
		wrong = append(wrong, "notification_id must not begin with alert:, which is reserved for messages to the operators")
	}
	if len(wrong) > 0 {
		return Message{}, invalid(strings.Join(wrong, "; "))
	}
	if !e.RequestedAt.IsZero() {
		at = e.RequestedAt
	}
	return Message{
		ID: e.NotificationID, OrderID: e.OrderID, CustomerID: e.CustomerID, Channel: e.Channel, Template: e.Template,
		RequestedAt: at, State: Pending,
		Facts: Facts{
			TotalAmount: e.TotalAmount, Currency: currency(e.Currency), Carrier: clip(e.Carrier, maxName),
			TrackingNumber: clip(e.TrackingNumber, maxName), EstimatedDelivery: e.EstimatedDelivery,
			Reason: clip(e.Reason, maxReason), Refunded: e.Refunded,
		},
	}, nil
}

func oneOf(name, value string, values []string) error {
	if !slices.Contains(values, value) {
		return invalid(name + " must be one of " + strings.Join(values, ", "))
	}
	return nil
}

func currency(code string) string {
	if code = clip(code, 3); code != "" {
		return code
	}
	return contracts.DefaultCurrency
}

// clip makes one line of a text from outside and shortens it.
func clip(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }), " ")
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

// alertPrefix begins the ids of messages to the operators.
const alertPrefix = "alert:"

// reservedForAlerts reports whether the id has the form of a message to the operators. An order may have the id alert: the ids of
// its messages have a template in second place, which no id of an alert has.
func reservedForAlerts(id string) bool {
	rest, ok := strings.CutPrefix(id, alertPrefix)
	template, channel, _ := strings.Cut(rest, ":")
	return ok && (!slices.Contains(contracts.Templates(), template) || !slices.Contains(contracts.Channels(), channel))
}

// alert returns a message to the operators about an event. Its id is derived from the id of the event.
func alert(eventID, template, orderID string, at time.Time, facts Facts) Message {
	id := alertPrefix + eventID + ":" + contracts.ChannelEmail
	if !idForm.MatchString(id) {
		sum := sha256.Sum256([]byte(eventID))
		id = alertPrefix + hex.EncodeToString(sum[:16]) + ":" + contracts.ChannelEmail
	}
	return Message{
		ID: id, OrderID: orderID, Channel: contracts.ChannelEmail, Template: template, Facts: facts, RequestedAt: at, State: Pending,
	}
}

// staleAfter is how long after its end the operators are still alerted about an approval. Another process set the end, and its
// clock may differ by hours: an unnecessary alert does less harm than a missing one.
const staleAfter = 24 * time.Hour

// ApprovalRequested alerts the operators about an order that waits for approval. It returns ok false if the wait ended long ago.
func ApprovalRequested(eventID string, e contracts.ApprovalRequested, now time.Time) (m Message, ok bool, err error) {
	if err := CheckParty("order_id", e.OrderID); err != nil {
		return m, false, err
	}
	if !e.ExpiresAt.IsZero() && now.Sub(e.ExpiresAt) >= staleAfter {
		return m, false, nil
	}
	return alert(eventID, TemplateApprovalRequested, e.OrderID, orNow(e.RequestedAt, now), Facts{
		TotalAmount: e.TotalAmount, Currency: currency(e.Currency), ExpiresAt: e.ExpiresAt,
	}), true, nil
}

// NeedsAttention alerts the operators about an order that is blocked until one of them repairs it. It returns ok false if the
// order is not blocked.
func NeedsAttention(eventID string, e contracts.FulfillmentFailed, now time.Time) (m Message, ok bool, err error) {
	if err := CheckParty("order_id", e.OrderID); err != nil || len(e.NotUndone) == 0 {
		return m, false, err
	}
	steps := make([]string, len(e.NotUndone))
	for i, step := range e.NotUndone {
		steps[i] = clip(step, maxName)
	}
	return alert(eventID, TemplateNeedsAttention, e.OrderID, orNow(e.FailedAt, now), Facts{
		Reason: clip(e.Error, maxReason), NotUndone: steps,
	}), true, nil
}

// Stock alerts the operators when the stock of a product becomes low or runs out. It returns ok false if it was as low before.
func Stock(eventID string, e contracts.StockChanged, now time.Time) (m Message, ok bool, err error) {
	if err := CheckParty("product_id", e.ProductID); err != nil {
		return m, false, err
	}
	var template string
	switch {
	case e.CurrentStock <= 0 && e.PreviousStock > 0:
		template = TemplateDepleted
	case e.CurrentStock > 0 && e.CurrentStock < contracts.LowStock && e.PreviousStock >= contracts.LowStock:
		template = TemplateLowStock
	default:
		return m, false, nil
	}
	return alert(eventID, template, "", orNow(e.Timestamp, now), Facts{
		ProductID: e.ProductID, Stock: e.CurrentStock, Warehouse: clip(e.WarehouseID, maxName),
	}), true, nil
}

func orNow(at, now time.Time) time.Time {
	if at.IsZero() {
		return now
	}
	return at
}
