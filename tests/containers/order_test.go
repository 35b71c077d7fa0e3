package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"waybill/tests/internal/client"
)

// testTimeout is how long a test waits for anything the system must do by itself.
const testTimeout = 90 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func setStock(ctx context.Context, t *testing.T, product string, onHand int) {
	t.Helper()
	if err := client.SetStock(ctx, waybill, product, onHand); err != nil {
		t.Fatal(err)
	}
}

func wantStock(ctx context.Context, t *testing.T, product string, want client.Stock) {
	t.Helper()
	got, err := client.StockOf(ctx, waybill, product)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stock of %s (-want +got):\n%s", product, diff)
	}
}

func wantBooks(ctx context.Context, t *testing.T, id string, want client.Books) {
	t.Helper()
	got, err := client.BooksOf(ctx, waybill, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("books of %s (-want +got):\n%s", id, diff)
	}
}

// orders places n orders of one piece each, from several clients at once, and counts those that were accepted.
type orders struct {
	ids      []string
	accepted atomic.Int32
	placing  errgroup.Group
}

func place(ctx context.Context, product string, n int) *orders {
	o := &orders{ids: make([]string, n)}
	o.placing.SetLimit(5)
	for i := range n {
		o.placing.Go(func() error {
			id, err := client.Place(ctx, waybill, fmt.Sprintf("%s-%d", product, i), client.Body(fmt.Sprintf("CUST-%s-%d", product, i%10), 10, client.Line(product, 1, 10)))
			o.ids[i] = id
			o.accepted.Add(1)
			return err
		})
	}
	return o
}

// wantAllFulfilled waits for every order and checks ledgers and stock: each order is charged once and shipped once.
func (o *orders) wantAllFulfilled(ctx context.Context, t *testing.T, product string) {
	t.Helper()
	if err := o.placing.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, id := range o.ids {
		if _, err := client.Await(ctx, waybill, id, "fulfilled"); err != nil {
			t.Error(err)
			continue
		}
		wantBooks(ctx, t, id, client.Fulfilled)
	}
	wantStock(ctx, t, product, client.Stock{Shipped: len(o.ids)})
}

func TestAnOrderIsFulfilled(t *testing.T) {
	ctx := bounded(t)
	setStock(ctx, t, "PROD-REST", 5)
	id, err := client.Place(ctx, waybill, "rest-1", client.Body("CUST-123", 99.98, client.Line("PROD-REST", 2, 49.99)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Await(ctx, waybill, id, "fulfilled")
	if err != nil {
		t.Fatal(err)
	}
	if got.TrackingNumber == "" || got.ProcessedAt == "" {
		t.Errorf("order %+v, want a tracking number and processed_at", got)
	}
	wantBooks(ctx, t, id, client.Fulfilled)
	wantStock(ctx, t, "PROD-REST", client.Stock{OnHand: 3, Shipped: 2})

	// The sample customer, which the container "samples" creates, gets mail and SMS in the container of the inbox.
	want := map[string]string{"email": "delivered", "sms": "delivered"}
	for {
		channels, err := told(ctx, id)
		if diff := cmp.Diff(want, channels); err == nil && diff == "" {
			break
		} else if !client.Wait(ctx, poll) {
			t.Fatalf("messages (-want +got):\n%s%v", diff, err)
		}
	}
}

// told is the outcome of the messages about an order, by channel. Messages that the customer does not want are left out.
func told(ctx context.Context, order string) (map[string]string, error) {
	code, _, answer, err := client.Call(ctx, http.MethodGet, waybill.App("notifications").URL+"/v1/notifications?order_id="+order, nil)
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("messages of %s: %d %s: %w", order, code, answer, err)
	}
	var page struct {
		Items []struct{ Channel, State string }
	}
	if err := json.Unmarshal(answer, &page); err != nil {
		return nil, err
	}
	channels := map[string]string{}
	for _, m := range page.Items {
		if m.Channel != "push" {
			channels[m.Channel] = m.State
		}
	}
	return channels, nil
}

// The failing order of the original workshop: the product does not exist, so the payment is refunded.
func TestAnOrderForAnInvalidProductIsRefunded(t *testing.T) {
	ctx := bounded(t)
	id, err := client.Place(ctx, waybill, "invalid-product", client.Body("CUST-789", 99.99, client.Line("INVALID-PRODUCT", 1, 99.99)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Await(ctx, waybill, id, "fulfillment_failed")
	if err != nil {
		t.Fatal(err)
	}
	if got.Failure == nil || got.Failure.Code != "unknown_product" {
		t.Errorf("failure %+v, want unknown_product", got.Failure)
	}
	wantBooks(ctx, t, id, client.Books{Charges: 1, Refunds: 1, Reservation: "refused"})
}

// Another system publishes an order twice, and a second order behind it with the same key, which shows when the repetition has
// been processed.
func TestADuplicateEventChangesNothing(t *testing.T) {
	ctx := bounded(t)
	setStock(ctx, t, "PROD-TWICE", 5)
	publish := func(event string, order string) {
		t.Helper()
		data := client.Body("CUST-TWICE", 10, client.Line("PROD-TWICE", 1, 10))
		data["order_id"] = order
		body, err := json.Marshal(map[string]any{
			"specversion": "1.0", "id": event, "type": "Order.Created", "source": "/another/system",
			"subject": "orders/" + order, "datacontenttype": "application/json", "data": data,
		})
		if err != nil {
			t.Fatal(err)
		}
		to := waybill.App("orders").DaprHTTP + "/v1.0/publish/orderbus/orders?metadata.partitionKey=CUST-TWICE"
		if code, _, answer, err := client.Call(ctx, http.MethodPost, to, body, "Content-Type", "application/cloudevents+json"); err != nil || code != http.StatusNoContent {
			t.Fatalf("publish %s: %d %s %v", event, code, answer, err)
		}
	}
	publish("twice-1", "TWICE-1")
	publish("twice-1", "TWICE-1")
	publish("twice-2", "TWICE-2")
	for _, id := range []string{"TWICE-1", "TWICE-2"} {
		if _, err := client.Await(ctx, waybill, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		wantBooks(ctx, t, id, client.Fulfilled)
	}
	wantStock(ctx, t, "PROD-TWICE", client.Stock{OnHand: 3, Shipped: 2})
}
