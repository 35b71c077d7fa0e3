package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"waybill/tests/internal/system"
)

// A message that the provider refuses permanently is sent once, and its record says why it failed. A provider that asks for a
// pause gets it. Both answers come through the real bindings of Dapr.
func TestProvidersThatAnswer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	refused := fmt.Sprintf("CUST-REFUSED-%d", time.Now().UnixNano())
	setContact(t, refused, map[string]any{"email": "refused@example.com", "phone": "+15005550001", "preferences": map[string]bool{"email": true, "sms": true, "push": false}})
	got := notifications(ctx, t, orderOf(ctx, t, refused, "PROD-PARTNERS"), 3, "failed")
	for _, channel := range []string{"email", "sms"} {
		if n := got[channel]; n.Attempts != 1 || n.Outcome.Code != "rejected" {
			t.Errorf("%s: %d attempts, code %q, want one attempt and rejected", channel, n.Attempts, n.Outcome.Code)
		}
	}
	busy := fmt.Sprintf("CUST-BUSY-%d", time.Now().UnixNano())
	setContact(t, busy, map[string]any{"phone": "+15005550429", "preferences": map[string]bool{"email": false, "sms": true, "push": false}})
	if n := notifications(ctx, t, orderOf(ctx, t, busy, "PROD-PARTNERS"), 3, "delivered", "failed")["sms"]; n.State != "delivered" || n.Attempts > 3 {
		t.Errorf("the text message to a busy provider is %s after %d attempts, want delivered after two", n.State, n.Attempts)
	}
}

// A mail server that does not answer is called less and less often, and the other channels are not delayed.
func TestAMailServerThatHangs(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	s, err := system.Start(ctx, runner, t.TempDir(), io.Discard, "SEND_TIMEOUT=1s", "SEND_FIRST_RETRY=1s", "SEND_ATTEMPTS=30")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	put := map[string]any{"email": "hangs@example.com", "phone": "+12065550123"}
	if code, _, answer, err := call(ctx, http.MethodPut, s.App("notifications").URL+"/v1/customers/CUST-HANGS/contact", put); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s %v", code, answer, err)
	}
	setStock(t, s, "PROD-HANGS", 10)
	const orders = 5
	began := time.Now()
	ids := make([]string, 0, orders)
	for n := range orders {
		id, err := place(ctx, s, fmt.Sprintf("hangs-%d", n), orderBody("CUST-HANGS", 10, line("PROD-HANGS", 1, 10)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		if _, err := messages(ctx, s, id, 1); err != nil { // the text message
			t.Error(err)
		}
	}
	for time.Since(began) < 20*time.Second && wait(ctx, 100*time.Millisecond) {
	}
	calls := 0
	for _, id := range ids {
		_, _, answer, err := call(ctx, http.MethodGet, s.App("notifications").URL+"/v1/notifications?order_id="+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Items []notification }
		if err := json.Unmarshal(answer, &list); err != nil {
			t.Fatal(err)
		}
		for _, n := range list.Items {
			if n.Channel == "email" {
				calls += n.Attempts
			}
		}
	}
	// One second for each call and pauses of 1, 2, 4, 8 ... seconds: five or six calls in twenty seconds, however many messages
	// wait.
	if calls == 0 || calls > 7 {
		t.Errorf("%d calls of a mail server that hangs, for %d messages, want at most 7", calls, orders)
	}
}
