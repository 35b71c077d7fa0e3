package eventing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"waybill/platform/eventing"
)

// OrderPlaced is a payload: the data of an event, and the attributes that the event derives from it.
type OrderPlaced struct {
	OrderID  string `json:"order_id"`
	Quantity int    `json:"quantity"`
}

func (OrderPlaced) EventType() string { return "Order.Placed" }
func (o OrderPlaced) Subject() string { return o.OrderID }
func (o OrderPlaced) Key() string     { return o.OrderID }

// A handler gets the event and its decoded data. Reject dead-letters an event that can never be processed.
func ExampleOn() {
	handle := eventing.On(func(_ context.Context, e eventing.Event, order OrderPlaced) error {
		if order.Quantity < 1 {
			return eventing.Reject(fmt.Errorf("quantity must be at least 1, got %d", order.Quantity))
		}
		fmt.Println(e.Type, order.OrderID, order.Quantity)
		return nil
	})

	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, order := range []OrderPlaced{{"ord-1", 2}, {"ord-2", 0}} {
		// The id is derived from the fact, so a retry publishes the same event again.
		e, err := eventing.New(order.OrderID+":placed", "/shop", "1.0", at, order)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := handle(context.Background(), e); err != nil {
			fmt.Printf("rejected: %v, %v\n", eventing.Rejected(err), err)
		}
	}
	// Output:
	// Order.Placed ord-1 2
	// rejected: true, quantity must be at least 1, got 0
}

// An event is a CloudEvent. Its id is derived from the fact, so that a consumer can deduplicate.
func ExampleNew() {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e, err := eventing.New("ord-1:placed", "/shop", "1.0", at, OrderPlaced{"ord-1", 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := e.MarshalJSON()
	fmt.Println(string(text), err)
	// Output:
	// {"specversion":"1.0","id":"ord-1:placed","type":"Order.Placed","source":"/shop","subject":"ord-1","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","dataversion":"1.0","data":{"order_id":"ord-1","quantity":2}} <nil>
}

// A Receiver adds the routes that the sidecar calls: one that describes the subscriptions, and one for each topic and event
// type. Here a test plays the sidecar.
func ExampleNewReceiver() {
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{App: "billing", Token: "app-token", Logger: slog.New(slog.DiscardHandler)},
		eventing.Subscription{
			Component: "orderbus", Topic: "orders", DeadLetter: "orders.billing.dead",
			Handlers: map[string]eventing.Handler{
				"Order.Placed": eventing.On(func(_ context.Context, _ eventing.Event, order OrderPlaced) error {
					if order.OrderID == "ord-2" {
						return eventing.Retry(errors.New("the invoice of an earlier order is open"))
					}
					fmt.Println("invoice for", order.OrderID)
					return nil
				}),
			},
		})
	if err != nil {
		fmt.Println(err)
		return
	}
	router := chi.NewMux()
	receiver.Mount(router)

	for _, id := range []string{"ord-1", "ord-2"} {
		event := `{"specversion":"1.0","id":"` + id + `:placed","type":"Order.Placed","source":"/shop","data":{"order_id":"` + id + `"}}`
		delivery := httptest.NewRequest(http.MethodPost, "/events/orders/Order.Placed", strings.NewReader(event))
		delivery.Header.Set("Dapr-Api-Token", "app-token")
		answer := httptest.NewRecorder()
		router.ServeHTTP(answer, delivery)
		fmt.Print(answer.Body)
	}
	// Output:
	// invoice for ord-1
	// {"status":"SUCCESS"}
	// {"status":"RETRY"}
}

// A batch handler writes many events at once. It returns an outcome for each event, so that one that fails is retried alone.
func ExampleOnBatch() {
	handle := eventing.OnBatch(func(_ context.Context, orders []eventing.Typed[OrderPlaced]) []error {
		fmt.Println("one write of", len(orders), "orders")
		return make([]error, len(orders))
	})

	outcomes := handle(context.Background(), []eventing.Event{
		{ID: "1", Type: "Order.Placed", Data: []byte(`{"order_id":"ord-1","quantity":2}`)},
		{ID: "2", Type: "Order.Placed", Data: []byte(`not JSON`)},
		{ID: "3", Type: "Order.Placed", Data: []byte(`{"order_id":"ord-3","quantity":1}`)},
	})
	for i, err := range outcomes {
		fmt.Println(i+1, "rejected:", eventing.Rejected(err))
	}
	// Output:
	// one write of 2 orders
	// 1 rejected: false
	// 2 rejected: true
	// 3 rejected: false
}

// A handler decides with Reject or Retry. For any other error, its kind decides.
func ExampleRetryable() {
	err := errors.New("the payment provider answers 503")
	fmt.Println(eventing.Retryable(eventing.Retry(err)), eventing.Retryable(eventing.Reject(err)), eventing.Retryable(err))
	// Output: true false false
}
