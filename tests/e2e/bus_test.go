package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// foreign is a Kafka client of another system, without Dapr.
func foreign(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	status, err := waybill.Status()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(status.Broker))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func publish(t *testing.T, client *kgo.Client, topic, key string, value []byte) {
	t.Helper()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte(key), Value: value}).FirstErr(); err != nil {
		t.Fatalf("publish to %s: %v", topic, err)
	}
}

type partition struct {
	topic  string
	number int32
}

// endOffsets are the current end offsets of the partitions that hold records.
func endOffsets(ctx context.Context, t *testing.T, topics []string) map[partition]int64 {
	t.Helper()
	listed, err := kadm.NewClient(foreign(t)).ListEndOffsets(ctx, topics...)
	if err != nil || listed.Error() != nil {
		t.Fatalf("list offsets: %v %v", err, listed.Error())
	}
	ends := map[partition]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			ends[partition{o.Topic, o.Partition}] = o.Offset
		}
	})
	return ends
}

// created is an Order.Created as another system would publish it.
func created(t *testing.T, eventID string, data map[string]any) []byte {
	t.Helper()
	event, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": eventID, "type": "Order.Created", "source": "/another/system",
		"subject": fmt.Sprintf("orders/%v", data["order_id"]), "datacontenttype": "application/json", "data": data,
	})
	if err != nil {
		t.Fatal(err)
	}
	return event
}

// deadLettered reads a dead-letter topic from its start until wanted accepts an event.
func deadLettered(ctx context.Context, t *testing.T, topic string, wanted func(event map[string]any) bool) map[string]any {
	t.Helper()
	client := foreign(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("nothing was dead-lettered on %s: %v", topic, err)
		}
		for _, record := range fetches.Records() {
			var event map[string]any
			if err := json.Unmarshal(record.Value, &event); err == nil && wanted(event) {
				return event
			}
		}
	}
}

func TestAnOrderPublishedToTheBusIsFulfilledOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-BUS", 5)
	client := foreign(t)
	data := orderBody("CUST-BUS", 299.99, line("PROD-BUS", 1, 299.99))
	data["order_id"] = "BUS-1"
	event := created(t, "their-event-1", data)
	publish(t, client, "orders", "CUST-BUS", event)
	got, err := await(ctx, waybill, "BUS-1", "fulfilled")
	if err != nil {
		t.Fatal(err)
	}
	if got.ProcessedAt == "" || got.TrackingNumber == "" {
		t.Errorf("order %+v, want processed_at and a tracking number", got)
	}
	before := timeline(t, waybill, "BUS-1")

	// The same event again, and an order behind it with the same key, which shows when the repetition has been processed.
	publish(t, client, "orders", "CUST-BUS", event)
	data["order_id"] = "BUS-2"
	publish(t, client, "orders", "CUST-BUS", created(t, "their-event-2", data))
	if _, err := await(ctx, waybill, "BUS-2", "fulfilled"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, timeline(t, waybill, "BUS-1")); diff != "" {
		t.Errorf("the repeated event changed the timeline (-before +after):\n%s", diff)
	}
	wantBooks(t, waybill, "BUS-1", fulfilledBooks)
	if diff := cmp.Diff(stock{OnHand: 3, Shipped: 2}, stockOf(t, waybill, "PROD-BUS")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// An event that can never be processed is dead-lettered with the reason, and the order behind it on the same key goes on.
func TestAnInvalidEventIsParkedAndBlocksNothing(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-POISON", 50)
	client := foreign(t)
	valid := func(id string) map[string]any {
		data := orderBody("CUST-POISON", 10, line("PROD-POISON", 1, 10))
		data["order_id"] = id
		return data
	}
	wrongTotal := valid("POISON-TOTAL")
	wrongTotal["total_amount"] = 11
	noItems := valid("POISON-ITEMS")
	noItems["items"] = []any{}
	negative := valid("POISON-NEGATIVE")
	negative["items"] = []any{line("PROD-POISON", -5, 10)}

	publish(t, client, "orders", "CUST-POISON", created(t, "poison-total", wrongTotal))
	publish(t, client, "orders", "CUST-POISON", created(t, "poison-items", noItems))
	publish(t, client, "orders", "CUST-POISON", created(t, "poison-negative", negative))
	publish(t, client, "orders", "CUST-POISON", created(t, "poison-data", nil))
	publish(t, client, "orders", "CUST-POISON", []byte(`{"specversion":"1.0","id":"poison-type","source":"/another/system","data":{}}`))
	publish(t, client, "orders", "CUST-POISON", []byte(`not even JSON`))
	publish(t, client, "orders", "CUST-POISON", created(t, "healthy", valid("POISON-BEHIND")))
	if _, err := await(ctx, waybill, "POISON-BEHIND", "fulfilled"); err != nil {
		t.Fatal(err)
	}
	for id, reason := range map[string]string{
		"poison-total": "total_amount", "poison-items": "items", "poison-negative": "quantity", "poison-data": "order_id", "poison-type": "type",
	} {
		event := deadLettered(ctx, t, "orders.orders.dead", func(event map[string]any) bool { return event["id"] == id })
		if got, _ := event["parkedreason"].(string); !strings.Contains(got, reason) {
			t.Errorf("%s is dead-lettered because %q, want a reason that names %s", id, got, reason)
		}
	}
	for _, id := range []string{"POISON-TOTAL", "POISON-ITEMS", "POISON-NEGATIVE"} {
		if _, code, err := read(ctx, waybill, id); err != nil || code != 404 {
			t.Errorf("%s answers %d, %v; want 404", id, code, err)
		}
	}
	deadLettered(ctx, t, "orders", func(event map[string]any) bool {
		data, _ := event["data"].(map[string]any)
		return event["type"] == "System.Error" && data["event_id"] == "poison-total"
	})
}

// A second order with the id of another one and different content is dead-lettered; the first order does not change.
func TestADifferentOrderWithATakenIDIsDeadLettered(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-TAKEN", 5)
	client := foreign(t)
	data := orderBody("CUST-TAKEN", 10, line("PROD-TAKEN", 1, 10))
	data["order_id"] = "TAKEN-1"
	publish(t, client, "orders", "CUST-TAKEN", created(t, "taken-first", data))
	if _, err := await(ctx, waybill, "TAKEN-1", "fulfilled"); err != nil {
		t.Fatal(err)
	}
	other := orderBody("CUST-TAKEN", 20, line("PROD-TAKEN", 2, 10))
	other["order_id"] = "TAKEN-1"
	publish(t, client, "orders", "CUST-TAKEN", created(t, "taken-second", other))
	deadLettered(ctx, t, "orders.orders.dead", func(event map[string]any) bool { return event["id"] == "taken-second" })
	if code, _, answer, err := call(ctx, "POST", waybill.App("orders").URL+"/v1/orders", other); err != nil || code != 409 {
		t.Errorf("the same over REST: %d %s %v, want 409", code, answer, err)
	}
	if diff := cmp.Diff(stock{OnHand: 4, Shipped: 1}, stockOf(t, waybill, "PROD-TAKEN")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// Only the sidecar may deliver events.
func TestEventRoutesAnswerOnlyTheSidecar(t *testing.T) {
	t.Parallel()
	for _, app := range []string{"orders", "fulfillment"} {
		for _, path := range []string{"/events/orders", "/events/orders/Order.Created", "/events/orders/Order.Confirmed"} {
			code, _, _, err := call(t.Context(), "POST", waybill.App(app).URL+path, map[string]any{"id": "x"})
			if err != nil || code != 403 && code != 404 && code != 405 {
				t.Errorf("POST %s to %s without the token: %d %v, want a refusal", path, app, code, err)
			}
		}
		if code, _, _, err := call(t.Context(), "POST", waybill.App(app).URL+"/events/orders", map[string]any{"id": "x"}); err != nil || code != 403 {
			t.Errorf("POST /events/orders to %s without the token: %d %v, want 403", app, code, err)
		}
	}
}
