package message_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/notifications/internal/message"
)

var policy = message.Policy{Attempts: 4, First: time.Second, Last: 3 * time.Second}

const lease = 30 * time.Second

func requested(t *testing.T) message.Message {
	t.Helper()
	m, err := message.Requested(request(), at)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func request() contracts.NotificationRequested {
	return contracts.NotificationRequested{
		NotificationID: "ORD-1001:order_shipped:email", OrderID: "ORD-1001", CustomerID: "CUST-123",
		Channel: contracts.ChannelEmail, Template: contracts.TemplateOrderShipped, RequestedAt: at,
	}
}

func TestAMessageIsDelivered(t *testing.T) {
	t.Parallel()
	m := requested(t)
	if m.State != message.Pending || !m.Ready(at) {
		t.Fatalf("a new message is %+v", m)
	}
	if !m.Begin("a", at, at.Add(lease), policy) || m.State != message.Sending || m.Attempts != 1 || m.Ready(at.Add(lease-1)) {
		t.Fatalf("begun: %+v", m)
	}
	if !m.Accept(at.Add(time.Second)) || m.Accept(at.Add(time.Hour)) || m.Refuse(&message.Refusal{Code: "x"}, at) || m.Retry("a", "", false, at, at, policy) {
		t.Error("a later call changed the first outcome")
	}
	id, payload := m.Outcome()
	want := contracts.NotificationDelivered{
		NotificationID: m.ID, OrderID: "ORD-1001", CustomerID: "CUST-123", Channel: "email", Template: "order_shipped", Attempts: 1, DeliveredAt: at.Add(time.Second),
	}
	if diff := cmp.Diff(contracts.Payload(want), payload); diff != "" || id != m.ID+":Notification.Delivered" {
		t.Errorf("%s %s", id, diff)
	}
	if m.Ready(at.Add(time.Hour)) || !m.Final() {
		t.Errorf("%+v", m)
	}
}

func TestPausesDoubleUntilTheLastAttempt(t *testing.T) {
	t.Parallel()
	m, now := requested(t), at
	var pauses []time.Duration
	for m.Ready(now) && m.Begin("a", now, now.Add(lease), policy) {
		if !m.Retry("a", "The channel is down.", false, now, now, policy) {
			t.Fatal("no next attempt is planned")
		}
		if m.Final() {
			break
		}
		pauses = append(pauses, m.Due().Sub(now))
		if m.Ready(m.Due().Add(-1)) {
			t.Error("ready before the pause is over")
		}
		now = m.Due()
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, pauses); diff != "" {
		t.Error(diff)
	}
	if m.State != message.Failed || m.Code != message.CodeUnavailable || m.Error != "The channel is down." || m.Attempts != 4 {
		t.Errorf("%+v", m)
	}
	if id, payload := m.Outcome(); id != m.ID+":Notification.Failed" || payload.(contracts.NotificationFailed).Code != message.CodeUnavailable {
		t.Errorf("%s %+v", id, payload)
	}
}

func TestALongerPauseOfTheChannelIsUsed(t *testing.T) {
	t.Parallel()
	m := requested(t)
	m.Begin("a", at, at.Add(lease), policy)
	m.Retry("a", "Wait.", false, at, at.Add(time.Minute), policy)
	if m.Due() != at.Add(time.Minute) {
		t.Errorf("due %s", m.Due())
	}
}

// An attempt that records no result: its process was killed, or is slow.
func TestAnAttemptWithoutAResult(t *testing.T) {
	t.Parallel()
	m := requested(t)
	m.Begin("dead", at, at.Add(lease), policy)
	later := at.Add(lease)
	if renewed := m; renewed.Renew("next", later.Add(lease)) || !renewed.Renew("dead", later.Add(lease)) || renewed.Ready(later) || renewed.Attempts != 1 {
		t.Errorf("renewed: %+v", renewed)
	}
	if !m.Ready(later) || !m.Begin("next", later, later.Add(lease), policy) || m.Attempts != 2 || !strings.Contains(m.LastError, "not known") {
		t.Fatalf("%+v", m)
	}
	// The slow attempt fails later: the new attempt decides.
	if m.Retry("dead", "down", false, later, later, policy) || m.State != message.Sending {
		t.Errorf("%+v", m)
	}
	// The slow attempt succeeds later: the message is delivered, even if the new attempt fails.
	if !m.Accept(later) || m.Retry("next", "down", false, later, later, policy) || m.State != message.Delivered {
		t.Errorf("%+v", m)
	}

	m = requested(t)
	m.Attempts, m.State, m.ClaimedBy, m.ClaimedUntil = policy.Attempts, message.Sending, "dead", at
	if m.Begin("next", later, later.Add(lease), policy) || m.Code != message.CodeOutcomeUnknown {
		t.Errorf("the last attempt had no result: %+v", m)
	}
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*contracts.NotificationRequested){
		"notification_id": func(r *contracts.NotificationRequested) { r.NotificationID = "a||b" },
		"order_id":        func(r *contracts.NotificationRequested) { r.OrderID = "" },
		"customer_id":     func(r *contracts.NotificationRequested) { r.CustomerID = "a b" },
		"channel":         func(r *contracts.NotificationRequested) { r.Channel = "fax" },
		"template":        func(r *contracts.NotificationRequested) { r.Template = message.TemplateLowStock },
	} {
		r := request()
		change(&r)
		if _, err := message.Requested(r, at); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTextsFromOutsideBecomeOneShortLine(t *testing.T) {
	t.Parallel()
	r := request()
	r.Reason, r.Carrier, r.Currency, r.RequestedAt = "a\r\nBcc: b\x00 "+strings.Repeat("x", 1000), "Fed\nEx", "", time.Time{}
	m, err := message.Requested(r, at)
	if err != nil || strings.ContainsAny(m.Facts.Reason+m.Facts.Carrier, "\r\n\x00") || len([]rune(m.Facts.Reason)) != 500 ||
		m.Facts.Currency != contracts.DefaultCurrency || m.RequestedAt != at {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSameContent(t *testing.T) {
	t.Parallel()
	a, b := full("order_shipped", "email"), full("order_shipped", "email")
	b.Facts.EstimatedDelivery = b.Facts.EstimatedDelivery.In(time.FixedZone("", 3600))
	b.State, b.Attempts, b.RequestedAt = message.Delivered, 3, at.Add(time.Hour)
	if !a.SameContent(&b) {
		t.Error("the same content in another state counts as different")
	}
	b.Facts.TrackingNumber = "TRK-1002"
	if a.SameContent(&b) {
		t.Error("another tracking number counts as the same content")
	}
}

func TestAlertsOfStock(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		previous, current int
		template          string
	}{
		{12, 9, message.TemplateLowStock},
		{10, 9, message.TemplateLowStock},
		{9, 8, ""},
		{8, 9, ""},
		{0, 5, ""}, // stock came in, not enough
		{12, 0, message.TemplateDepleted},
		{1, 0, message.TemplateDepleted},
		{0, 0, ""},
		{-1, 0, ""},
		{20, 10, ""},
	} {
		m, ok, err := message.Stock("PROD-001:stock:7", contracts.StockChanged{ProductID: "PROD-001", PreviousStock: test.previous, CurrentStock: test.current, Timestamp: at}, at)
		if err != nil || ok != (test.template != "") || m.Template != test.template {
			t.Errorf("%d to %d: %q, %v", test.previous, test.current, m.Template, err)
		}
		if ok && (m.ID != "alert:PROD-001:stock:7:email" || !m.ToOperators() || m.OrderID != "" || m.Facts.Stock != test.current) {
			t.Errorf("%+v", m)
		}
	}
	if _, _, err := message.Stock("e", contracts.StockChanged{PreviousStock: 1}, at); err == nil {
		t.Error("an event without a product caused an alert")
	}
}

func TestAlertsOfOrders(t *testing.T) {
	t.Parallel()
	waits := contracts.ApprovalRequested{OrderID: "ORD-1001", CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD", RequestedAt: at, ExpiresAt: at.Add(time.Hour)}
	m, ok, err := message.ApprovalRequested("e1", waits, at)
	if err != nil || !ok || m.ID != "alert:e1:email" || !m.ToOperators() || m.OrderID != "ORD-1001" || m.Channel != contracts.ChannelEmail {
		t.Errorf("%+v %v %v", m, ok, err)
	}
	if _, ok, _ := message.ApprovalRequested("e1", waits, waits.ExpiresAt.Add(5*time.Hour)); !ok {
		t.Error("with a clock that is five hours ahead the operators are not alerted")
	}
	if _, ok, _ := message.ApprovalRequested("e1", waits, waits.ExpiresAt.Add(25*time.Hour)); ok {
		t.Error("the operators are alerted about an approval that ended long ago")
	}
	failed := contracts.FulfillmentFailed{OrderID: "ORD-1001", Error: "The carrier is down.", FailedAt: at}
	if _, ok, err := message.NeedsAttention("e2", failed, at); ok || err != nil {
		t.Errorf("the operators are alerted about an order that is not blocked: %v", err)
	}
	failed.NotUndone = []string{contracts.StepRefundPayment}
	if m, ok, err := message.NeedsAttention("e 2||", failed, at); !ok || err != nil || message.CheckID(m.ID) != nil {
		t.Errorf("%+v %v %v", m, ok, err)
	}
}

func TestASecondWaitEndsWithTheFirst(t *testing.T) {
	t.Parallel()
	lack := &message.Refusal{Code: message.CodeNoAddress, Text: "The customer has no phone number."}
	m := requested(t)
	until := at.Add(time.Hour)
	if !m.Wait(lack, at, until) || m.Wait(lack, at, until) || m.State != message.Waiting || m.Final() || m.Ready(until.Add(time.Hour)) || !m.Due().Equal(until) {
		t.Fatalf("%+v", m)
	}
	if !m.Release() || m.Release() || m.State != message.Pending || m.Round != 1 || !m.Ready(at) {
		t.Errorf("%+v", m)
	}
	// The second wait keeps the end of the first.
	if !m.Begin("a", at, at.Add(lease), policy) || !m.Wait(lack, at.Add(time.Minute), at.Add(2*time.Hour)) || !m.WaitsUntil.Equal(until) || m.ClaimedBy != "" {
		t.Errorf("%+v", m)
	}
	m.Release()
	if !m.Wait(lack, until, until.Add(time.Hour)) || m.State != message.Failed || m.Code != message.CodeNoAddress {
		t.Errorf("%+v", m)
	}
	if m.Wait(lack, at, until) || m.Release() {
		t.Errorf("a message with an outcome waits: %+v", m)
	}
}

func TestRequestsCannotUseTheIDsOfAlerts(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"alert:R5:Approval.Requested:email": false, "alert:PROD-001:stock:7:email": false, "alert:email": false,
		"alert:order_shipped:carrier": false, "alerts:R5:email": true, "alert:" + contracts.Templates()[0] + ":email": true,
	} {
		_, err := message.Requested(contracts.NotificationRequested{
			NotificationID: id, OrderID: "R5", CustomerID: "CUST-123", Channel: contracts.ChannelEmail, Template: contracts.Templates()[0],
		}, time.Now())
		if (err == nil) != ok {
			t.Errorf("%s: %v", id, err)
		}
	}
}
