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

// Patterns of ids, for every edge that takes one.
const (
	// IDPattern is what a notification's id looks like.
	IDPattern = `^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$`
	// PartyPattern is what an order's, a customer's and a product's id looks like.
	PartyPattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
)

var (
	idForm    = regexp.MustCompile(IDPattern)
	partyForm = regexp.MustCompile(PartyPattern)
)

// CheckID refuses what is no notification's id.
func CheckID(id string) error {
	if !idForm.MatchString(id) {
		return invalid("notification_id must be 1 to 200 letters, digits, dots, underscores, colons and hyphens, the first a letter or digit")
	}
	return nil
}

// CheckParty refuses what is no id of an order, a customer or a product; name says which.
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
	// maxReason and maxName bound, in characters, what somebody else wrote and a message repeats.
	maxReason = 500
	maxName   = 100
)

// Requested is the message that the event asks for; at is when, if the event itself does not say.
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
	if takesAlert(e.NotificationID) {
		wrong = append(wrong, "notification_id must not begin with alert:, which begins the ids of messages to the operators")
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

// clip shortens a text that somebody else wrote and makes one line of it.
func clip(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }), " ")
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

// alertPrefix begins the ids of messages to the operators.
const alertPrefix = "alert:"

// takesAlert reports whether the id is in the form of a message to the operators. An order can be named alert: the ids of its
// messages have a template where no alert has one.
func takesAlert(id string) bool {
	rest, ok := strings.CutPrefix(id, alertPrefix)
	template, channel, _ := strings.Cut(rest, ":")
	return ok && (!slices.Contains(contracts.Templates(), template) || !slices.Contains(contracts.Channels(), channel))
}

// alert is a message to the operators. Its id follows from that of the event which it tells of.
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

// staleAfter is how long after its end an approval is still told of. Its end is another process's time, whose clock may differ by
// hours: an alert too many harms less than one that is missing.
const staleAfter = 24 * time.Hour

// ApprovalRequested tells the operators that an order waits for one of them; ok is false when it has long waited no longer.
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

// NeedsAttention tells the operators that an order stands still until one of them has it repaired; ok is false when it does
// not.
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

// Stock tells the operators that a product runs out; ok is false when they know already, for its stock was as low before.
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
