package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// letter is what the tests read of a dead letter.
type letter struct {
	Topic        string
	EventID      string `json:"event_id"`
	Type         string
	Subject      string
	Key          string
	State        string
	Reason       string
	DeadLetterAt time.Time `json:"parked_at"`
	DeadLetterBy string    `json:"parked_by"`
	Attempts     []deadLetterAttempt
	Event        map[string]any
	Raw          []byte
}

type deadLetterAttempt struct{ Actor, Reason, Outcome, Error string }

// letters reads a page of a service's dead letters.
func letters(ctx context.Context, app, query string) ([]letter, error) {
	code, _, answer, err := call(ctx, http.MethodGet, waybill.App(app).URL+"/v1/dead-letters?"+query, nil)
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("dead letters of %s: %d %s %w", app, code, answer, err)
	}
	var page struct{ Items []letter }
	return page.Items, json.Unmarshal(answer, &page)
}

// awaitDeadLetter polls a service's dead letters until wanted accepts one.
func awaitDeadLetter(ctx context.Context, t *testing.T, app, topic, state string, wanted func(l letter) bool) letter {
	t.Helper()
	query := url.Values{"topic": {topic}, "state": {state}, "limit": {"100"}}.Encode()
	for {
		found, err := letters(ctx, app, query)
		if i := slices.IndexFunc(found, wanted); i >= 0 {
			return found[i]
		}
		if !wait(ctx, 50*time.Millisecond) {
			t.Fatalf("the dead letter of %s from %s is not %s in time: %v, %+v", app, topic, state, err, found)
		}
	}
}

func ofEvent(id string) func(letter) bool { return func(l letter) bool { return l.EventID == id } }

// redrive answers with the outcome of one event.
func redrive(ctx context.Context, t *testing.T, app, topic, eventID string, dryRun bool) (outcome, reason string) {
	t.Helper()
	return handleDeadLetter(ctx, t, "redrive", app, topic, eventID, dryRun, "The order is there now.")
}

// handleDeadLetter redrives or dismisses one event; what is redrive or dismiss.
func handleDeadLetter(ctx context.Context, t *testing.T, what, app, topic, eventID string, dryRun bool, why string) (outcome, reason string) {
	t.Helper()
	code, _, answer, err := call(ctx, http.MethodPost, waybill.App(app).URL+"/v1/dead-letters/"+what, map[string]any{
		"topic": topic, "event_ids": []string{eventID}, "dry_run": dryRun, "actor": "operator@example.com", "reason": why,
	})
	var answered struct {
		Results []struct {
			EventID string `json:"event_id"`
			Outcome string
			Error   string
		}
	}
	if err == nil {
		err = json.Unmarshal(answer, &answered)
	}
	if err != nil || code != http.StatusOK || len(answered.Results) != 1 || answered.Results[0].EventID != eventID {
		t.Fatalf("%s %s: %d %s %v", what, eventID, code, answer, err)
	}
	return answered.Results[0].Outcome, answered.Results[0].Error
}

// A poison message is listed with its reason until it can be processed. A message that is not a CloudEvent, which never reaches
// the handlers of the service, is listed as well.
func TestDeadLettersAreListedWithTheirReason(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	client := foreign(t)
	poison := orderBody("CUST-LETTER", 11, line("PROD-LETTER", 1, 10))
	poison["order_id"] = "LETTER-POISON"
	publish(t, client, "orders", "CUST-LETTER", created(t, "letter-poison", poison))
	publish(t, client, "orders", "CUST-LETTER", []byte(`no JSON, says the letter test`))

	listed := awaitDeadLetter(ctx, t, "orders", "orders", "open", ofEvent("letter-poison"))
	if !strings.Contains(listed.Reason, "total_amount") || listed.DeadLetterBy != "orders" || listed.DeadLetterAt.IsZero() || listed.Key != "CUST-LETTER" ||
		listed.Type != "Order.Created" || listed.Subject != "orders/LETTER-POISON" || listed.Event["id"] != "letter-poison" {
		t.Errorf("listed %+v", listed)
	}
	unreadable := awaitDeadLetter(ctx, t, "orders", "orders", "open", func(l letter) bool {
		return string(l.Raw) == "no JSON, says the letter test"
	})
	if unreadable.Reason != "not a CloudEvent" || unreadable.DeadLetterBy != "sidecar" {
		t.Errorf("listed %+v", unreadable)
	}
	if outcome, _ := redrive(ctx, t, "orders", "orders", unreadable.EventID, false); outcome != "not_redrivable" {
		t.Errorf("redriving what is no CloudEvent: %s", outcome)
	}
	if outcome, _ := handleDeadLetter(ctx, t, "dismiss", "orders", "orders", unreadable.EventID, false, "A test of another system."); outcome != "dismissed" {
		t.Errorf("dismissing it: %s", outcome)
	}
	gone := awaitDeadLetter(ctx, t, "orders", "orders", "dismissed", ofEvent(unreadable.EventID))
	if len(gone.Attempts) != 1 || gone.Attempts[0].Outcome != "dismissed" || string(gone.Raw) != string(unreadable.Raw) {
		t.Errorf("on record is %+v", gone)
	}

	if outcome, _ := redrive(ctx, t, "orders", "orders", "letter-poison", true); outcome != "would_redrive" {
		t.Errorf("dry run: %s", outcome)
	}
	if diff := cmp.Diff(listed, awaitDeadLetter(ctx, t, "orders", "orders", "open", ofEvent("letter-poison"))); diff != "" {
		t.Errorf("the dry run changed the letter (-before +after):\n%s", diff)
	}
	if outcome, reason := redrive(ctx, t, "orders", "orders", "letter-poison", false); outcome != "failed" || !strings.Contains(reason, "total_amount") {
		t.Errorf("redrive of what is still poison: %s, %s", outcome, reason)
	}
	if after := awaitDeadLetter(ctx, t, "orders", "orders", "open", ofEvent("letter-poison")); len(after.Attempts) != 1 || after.Attempts[0].Outcome != "failed" {
		t.Errorf("attempts %+v", after.Attempts)
	}
	code, _, answer, err := call(ctx, http.MethodGet, waybill.App("orders").URL+"/v1/dead-letters?topic=inventory", nil)
	if err != nil || code != http.StatusUnprocessableEntity || !strings.Contains(string(answer), "fulfillment, orders") {
		t.Errorf("a topic that orders does not read: %d %s %v", code, answer, err)
	}
}

// A step of a saga whose order is not known is dead-lettered; when the order is there, a redrive puts the step on its timeline.
func TestADeadLetterIsRedrivenOnceItsCauseIsRepaired(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	const id, eventID = "LETTER-1", "letter-step"
	step, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": eventID, "type": "Fulfillment.StepCompleted", "source": "/another/system", "subject": "orders/" + id,
		"datacontenttype": "application/json", "data": map[string]any{
			"order_id": id, "customer_id": "CUST-LETTER", "step": "ValidatePayment", "outcome": "done", "completed_at": "2026-03-14T09:26:53Z",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, foreign(t), "fulfillment", "CUST-LETTER", step)
	if listed := awaitDeadLetter(ctx, t, "orders", "fulfillment", "open", ofEvent(eventID)); listed.Reason == "" || listed.DeadLetterBy != "orders" {
		t.Errorf("listed %+v", listed)
	}
	if outcome, _ := redrive(ctx, t, "orders", "fulfillment", eventID, false); outcome != "failed" {
		t.Errorf("while the order is unknown: %s", outcome)
	}

	setStock(t, waybill, "PROD-LETTER", 5)
	body := orderBody("CUST-LETTER", 10, line("PROD-LETTER", 1, 10))
	body["order_id"] = id
	if _, err := place(ctx, waybill, "letter-key", body); err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	if outcome, reason := redrive(ctx, t, "orders", "fulfillment", eventID, false); outcome != "redriven" {
		t.Errorf("when the order is there: %s, %s", outcome, reason)
	}
	if !slices.ContainsFunc(timeline(t, waybill, id), func(e timelineEntry) bool { return e.EventID == eventID }) {
		t.Errorf("the timeline of %s lacks %s: %v", id, eventID, timeline(t, waybill, id))
	}
	recorded := awaitDeadLetter(ctx, t, "orders", "fulfillment", "redriven", ofEvent(eventID))
	if len(recorded.Attempts) != 2 || recorded.Attempts[0].Outcome != "failed" || recorded.Attempts[0].Error == "" {
		t.Fatalf("recorded %+v", recorded.Attempts)
	}
	want := deadLetterAttempt{Actor: "operator@example.com", Reason: "The order is there now.", Outcome: "redriven"}
	if diff := cmp.Diff(want, recorded.Attempts[1]); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if found, err := letters(ctx, "orders", "topic=fulfillment&state=open&limit=100"); err != nil || slices.ContainsFunc(found, ofEvent(eventID)) {
		t.Errorf("it is still open: %+v, %v", found, err)
	}
	if outcome, _ := redrive(ctx, t, "orders", "fulfillment", eventID, false); outcome != "already_redriven" {
		t.Errorf("once more: %s", outcome)
	}
}

// An order that can never be accepted and an event that no store can keep do not block the events behind them in their partition:
// both are dead-lettered with their reasons, and the orders around them are fulfilled within 30 seconds.
func TestPoisonDoesNotBlockItsPartition(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	client := foreign(t)
	const customer = "CUST-POISON"
	setStock(t, waybill, "PROD-POISON", 100)
	order := func(id string, total float64) map[string]any {
		body := orderBody(customer, total, line("PROD-POISON", 1, 10))
		body["order_id"] = id
		return body
	}
	// Fulfillment stores a saga under its order's id, and every state store refuses a key with ||.
	confirmed, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": "poison-event", "type": "Order.Confirmed", "source": "/another/system", "subject": "orders/POISON||1",
		"datacontenttype": "application/json", "data": order("POISON||1", 10),
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	publish(t, client, "orders", customer, created(t, "poison-before", order("POISON-BEFORE", 10)))
	publish(t, client, "orders", customer, created(t, "poison-order", order("POISON-ORDER", 11)))
	publish(t, client, "orders", customer, confirmed)
	publish(t, client, "orders", customer, created(t, "poison-after", order("POISON-AFTER", 10)))
	for _, id := range []string{"POISON-BEFORE", "POISON-AFTER"} {
		if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	t.Logf("the orders around the poison were fulfilled in %v", took)
	if took > 30*time.Second {
		t.Errorf("the orders around the poison took %v", took)
	}
	for app, c := range map[string]struct{ eventID, reason string }{
		"orders": {"poison-order", "total_amount"}, "fulfillment": {"poison-event", "POISON||1"},
	} {
		listed := awaitDeadLetter(ctx, t, app, "orders", "open", ofEvent(c.eventID))
		t.Logf("%s dead-lettered %s: %s", app, listed.EventID, listed.Reason)
		if !strings.Contains(listed.Reason, c.reason) || listed.DeadLetterBy != app || listed.Key != customer {
			t.Errorf("%s listed %+v", app, listed)
		}
		if outcome, _ := handleDeadLetter(ctx, t, "dismiss", app, "orders", c.eventID, false, "A test of poison."); outcome != "dismissed" {
			t.Errorf("dismissing it: %s", outcome)
		}
	}
}
