package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// notification is what the tests read of a message at the notifications service.
type notification struct {
	ID         string `json:"notification_id"`
	Channel    string
	State      string
	Attempts   int
	WaitsUntil time.Time `json:"waits_until"`
	Outcome    struct{ Code string }
	Resends    []struct{ Actor, Reason string }
}

// notifications waits until the order has n messages, each in one of the states, and returns them by channel.
func notifications(ctx context.Context, t *testing.T, orderID string, n int, states ...string) map[string]notification {
	t.Helper()
	for {
		code, _, answer, err := call(ctx, http.MethodGet, waybill.App("notifications").URL+"/v1/notifications?order_id="+orderID, nil)
		if err != nil || code != http.StatusOK {
			t.Fatalf("notifications of %s: %d %s %v", orderID, code, answer, err)
		}
		var list struct{ Items []notification }
		if err := json.Unmarshal(answer, &list); err != nil {
			t.Fatal(err)
		}
		byChannel := map[string]notification{}
		for _, item := range list.Items {
			if slices.Contains(states, item.State) {
				byChannel[item.Channel] = item
			}
		}
		if len(byChannel) == n && len(list.Items) == n {
			return byChannel
		}
		if !wait(ctx, 20*time.Millisecond) {
			t.Fatalf("%s has %s, want %d in the states %v", orderID, answer, n, states)
		}
	}
}

func setContact(t *testing.T, customer string, body any) {
	t.Helper()
	code, _, answer, err := call(t.Context(), http.MethodPut, waybill.App("notifications").URL+"/v1/customers/"+customer+"/contact", body)
	if err != nil || code != http.StatusOK {
		t.Fatalf("contact of %s: %d %s %v", customer, code, answer, err)
	}
}

// orderOf places an order of the customer and waits until it is fulfilled.
func orderOf(ctx context.Context, t *testing.T, customer, product string) string {
	t.Helper()
	setStock(t, waybill, product, 10)
	id, err := place(ctx, waybill, "", orderBody(customer, 49.99, line(product, 1, 49.99)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	return id
}

// The order comes first, the customer's contact later: then its messages arrive, once each.
func TestAContactAfterTheOrder(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	customer := fmt.Sprintf("CUST-LATE-%d", time.Now().UnixNano())
	id := orderOf(ctx, t, customer, "PROD-LATE-CONTACT")
	for channel, n := range notifications(ctx, t, id, 3, "waiting_for_address") {
		if left := time.Until(n.WaitsUntil); n.Attempts != 0 || left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("%s: %+v", channel, n)
		}
	}
	// Setting the same contact again sends nothing again.
	for range 2 {
		setContact(t, customer, map[string]any{"email": "late@b\u00fccher.example", "phone": "+12065550199"})
	}
	got, err := messages(ctx, waybill, id, 2)
	if err != nil {
		t.Fatal(err)
	}
	to := map[string]string{}
	for _, m := range got {
		to[m.Channel] = m.To
	}
	if len(got) != 2 || to["email"] != "late@xn--bcher-kva.example" || to["sms"] != "+12065550199" {
		t.Errorf("the inbox has %+v", got)
	}
	notifications(ctx, t, id, 3, "delivered", "waiting_for_address")
	// The messages of another order are sent at once, and no message of the first one arrives again.
	second := orderOf(ctx, t, customer, "PROD-LATE-CONTACT")
	if _, err := messages(ctx, waybill, second, 2); err != nil {
		t.Error(err)
	}
	if got, err := messages(ctx, waybill, id, 2); err != nil || len(got) != 2 {
		t.Errorf("the inbox has %+v, %v", got, err)
	}
}

// A failed message is sent again when an operator resends it.
func TestAMessageIsSentAgain(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	customer := fmt.Sprintf("CUST-AGAIN-%d", time.Now().UnixNano())
	contact := map[string]any{"email": "again@example.com", "preferences": map[string]bool{"email": false, "sms": false, "push": false}}
	setContact(t, customer, contact)
	id := orderOf(ctx, t, customer, "PROD-RESEND")
	given := notifications(ctx, t, id, 3, "failed")["email"]
	if given.Outcome.Code != "opted_out" {
		t.Errorf("%+v", given)
	}
	delete(contact, "preferences")
	setContact(t, customer, contact)
	resend := func(reason string) (int, []byte) {
		code, _, answer, err := call(ctx, http.MethodPost, waybill.App("notifications").URL+"/v1/notifications/"+given.ID+"/resend",
			map[string]any{"actor": "operator@example.com", "reason": reason})
		if err != nil {
			t.Fatal(err)
		}
		return code, answer
	}
	for range 2 {
		if code, answer := resend("The customer wants mail after all."); code != http.StatusAccepted {
			t.Fatalf("%d %s", code, answer)
		}
	}
	if got, err := messages(ctx, waybill, id, 1); err != nil || len(got) != 1 || got[0].To != "again@example.com" {
		t.Errorf("the inbox has %+v, %v", got, err)
	}
	again := notifications(ctx, t, id, 3, "delivered", "failed")["email"]
	if again.State != "delivered" || len(again.Resends) != 1 || again.Resends[0].Actor != "operator@example.com" {
		t.Errorf("%+v", again)
	}
	if code, answer := resend("Once more."); code != http.StatusConflict {
		t.Errorf("%d %s", code, answer)
	}
	if got, err := messages(ctx, waybill, id, 1); err != nil || len(got) != 1 {
		t.Errorf("the inbox has %+v, %v", got, err)
	}
}

// An address that no mail server would accept is refused when it is set.
func TestAnAddressThatCannotBeSentTo(t *testing.T) {
	t.Parallel()
	code, _, answer, err := call(t.Context(), http.MethodPut, waybill.App("notifications").URL+"/v1/customers/CUST-123-UTF8/contact",
		map[string]any{"email": "j\u00fcrgen@example.com"})
	if err != nil || code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s %v", code, answer, err)
	}
}
