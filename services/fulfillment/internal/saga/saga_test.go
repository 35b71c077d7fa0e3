package saga_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/saga"
)

func anOrder(id string, lines ...contracts.Line) contracts.Order {
	if len(lines) == 0 {
		lines = []contracts.Line{{ProductID: "PROD-001", Quantity: 2, Price: 4999}, {ProductID: "PROD-002", Quantity: 1, Price: 100}}
	}
	o := contracts.Order{
		OrderID: id, CustomerID: "CUST-123", Currency: "USD", Items: lines,
		ShipTo: contracts.Address{Street: "123 Test St", City: "Test City", State: "TS", Zip: "12345"},
	}
	for _, line := range lines {
		o.TotalAmount += line.Price * contracts.Amount(line.Quantity)
	}
	return o
}

func decode(t *testing.T, doc []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(doc, v); err != nil {
		t.Fatalf("decode %s: %v", doc, err)
	}
}

// books is what the ledgers say about one order.
type books struct {
	charges, refunds int
	parcels          int
	cancelled        bool
	reservation      inventory.State
}

func (w *world) books(order string) books {
	w.t.Helper()
	var payment struct{ Charges, Refunds []json.RawMessage }
	var shipment struct {
		Booked    []json.RawMessage
		Cancelled bool
	}
	var reservation inventory.Reservation
	for key, doc := range map[string]any{"payment:": &payment, "shipment:": &shipment, "reservation:": &reservation} {
		if _, err := w.store.Get(w.t.Context(), key+order, doc); err != nil && !errors.Is(err, state.ErrNotFound) {
			w.t.Fatal(err)
		}
	}
	return books{len(payment.Charges), len(payment.Refunds), len(shipment.Booked), shipment.Cancelled, reservation.State}
}

// wantStock checks that stock is conserved: what is not shipped is there, and nothing stays reserved.
func (w *world) wantStock(product string, shipped int) {
	w.t.Helper()
	s, err := w.stock.Get(w.t.Context(), product)
	if err != nil {
		w.t.Fatal(err)
	}
	if s.OnHand != initialStock-shipped || s.Shipped != shipped || s.Reserved() != 0 {
		w.t.Errorf("%s: on hand %d, shipped %d, reserved %d; want %d, %d, 0", product, s.OnHand, s.Shipped, s.Reserved(), initialStock-shipped, shipped)
	}
}

// told is the story that the events tell, in order.
func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var story []string
	for _, e := range w.events {
		switch p := e.payload.(type) {
		case contracts.StepCompleted:
			story = append(story, p.Step+" "+p.Outcome)
		default:
			story = append(story, p.EventType())
		}
	}
	return story
}

func (w *world) wantFulfilled(order contracts.Order, result saga.Result) {
	w.t.Helper()
	if !result.Success || result.TrackingNumber == "" {
		w.t.Errorf("result %+v, want success with a tracking number", result)
	}
	if diff := cmp.Diff(books{charges: 1, parcels: 1, reservation: inventory.Shipped}, w.books(order.OrderID), cmp.AllowUnexported(books{})); diff != "" {
		w.t.Errorf("books (-want +got):\n%s", diff)
	}
	w.wantStock("PROD-001", 2)
	w.wantStock("PROD-002", 1)
}

func TestAnOrderIsFulfilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	w.wantFulfilled(order, w.fulfill(order))
	want := []string{"ValidatePayment done", "ReserveInventory done", "ProcessShipment done", "Fulfillment.Completed"}
	if diff := cmp.Diff(want, w.told()); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
}

// Every call of every partner fails twice, before its effect and after it, and the order is fulfilled all the same, with
// one charge and one parcel.
func TestFaultsThatPassLeaveNoTrace(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Charge", "Reserve", "Book", "Ship", "Publish"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fails after=%v", call, after), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, quick)
				w.faults.set(call, 2, after)
				order := anOrder("ORDER-1")
				w.wantFulfilled(order, w.fulfill(order))
			})
		}
	}
}

// Every call of every partner fails for good, before its effect and after it: what was done is undone, newest first.
func TestFaultsThatStayAreUndone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call  string
		after bool
		want  books
		story []string
	}{
		{"Charge", false, books{reservation: ""}, []string{"Fulfillment.Failed"}},
		{"Charge", true, books{charges: 1, refunds: 1}, []string{"RefundPayment done", "Fulfillment.Failed"}},
		{"Reserve", false, books{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Reserve", true, books{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Book", false, books{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Book", true, books{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Ship", false, books{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Ship", true, books{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
	} {
		t.Run(fmt.Sprintf("%s fails after=%v", c.call, c.after), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			w.faults.set(c.call, -1, c.after)
			order := anOrder("ORDER-1")
			result := w.fulfill(order)
			if result.Success || result.Code != "technical_failure" || !result.Compensated {
				t.Errorf("result %+v, want a compensated technical failure", result)
			}
			if diff := cmp.Diff(c.want, w.books(order.OrderID), cmp.AllowUnexported(books{})); diff != "" {
				t.Errorf("books (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.story, w.told()); diff != "" {
				t.Errorf("story (-want +got):\n%s", diff)
			}
			w.wantStock("PROD-001", 0)
			w.wantStock("PROD-002", 0)
		})
	}
}

func TestRefusalsAreResultsAndAreUndone(t *testing.T) {
	t.Parallel()
	refundable := []string{"ValidatePayment done", "ReserveInventory refused", "RefundPayment done", "Fulfillment.Failed"}
	for _, c := range []struct {
		name  string
		order func(*contracts.Order)
		code  string
		want  books
		story []string
	}{
		{"declined card", func(o *contracts.Order) { o.PaymentToken = "tok_declined" }, "card_declined",
			books{}, []string{"ValidatePayment refused", "Fulfillment.Failed"}},
		{"unknown product", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "INVALID-PRODUCT", Quantity: 1, Price: 9999}}
		},
			"unknown_product", books{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"all products unknown", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "INVALID-1", Quantity: 1, Price: 1}, {ProductID: "INVALID-2", Quantity: 1, Price: 1}}
		}, "unknown_product", books{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"second line out of stock", func(o *contracts.Order) { o.Items[1].Quantity = initialStock + 1 }, "out_of_stock",
			books{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"same product on two lines, together out of stock", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "PROD-001", Quantity: 6, Price: 1}, {ProductID: "PROD-001", Quantity: 6, Price: 1}}
		}, "out_of_stock", books{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"carrier refuses", func(o *contracts.Order) { o.ShipTo.Zip = "X-REFUSED" }, "undeliverable",
			books{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
				"ValidatePayment done", "ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			c.order(&order)
			result := w.fulfill(order)
			if result.Success || result.Code != c.code || result.Error == "" || !result.Compensated {
				t.Errorf("result %+v, want a compensated %s", result, c.code)
			}
			if diff := cmp.Diff(c.want, w.books(order.OrderID), cmp.AllowUnexported(books{})); diff != "" {
				t.Errorf("books (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.story, w.told()); diff != "" {
				t.Errorf("story (-want +got):\n%s", diff)
			}
			w.wantStock("PROD-001", 0)
			w.wantStock("PROD-002", 0)
		})
	}
}

// The simulated partners' own troubles, as a user triggers them.
func TestPartnersThatFailAndRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	order.PaymentToken, order.ShipTo.Zip = "tok_fail_2", "X-FAIL-2"
	w.wantFulfilled(order, w.fulfill(order))
}

// An undo that cannot be done stops those behind it, and the failure names all that is not undone.
func TestAnUndoThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	w.faults.set("Ship", -1, false)
	w.faults.set("Release", -1, false)
	order := anOrder("ORDER-1")
	if result := w.fulfill(order); result.Success || result.Compensated {
		t.Errorf("result %+v, want a failure that is not compensated", result)
	}
	if got := w.books(order.OrderID); got.refunds != 0 || !got.cancelled {
		t.Errorf("books %+v, want the shipment cancelled and nothing refunded", got)
	}
	i := slices.IndexFunc(w.events, func(e published) bool { return e.payload.EventType() == contracts.TypeFulfillmentFailed })
	if i < 0 {
		t.Fatal("no Fulfillment.Failed was published")
	}
	failed := w.events[i].payload.(contracts.FulfillmentFailed)
	if diff := cmp.Diff([]string{"CancelShipment"}, failed.Undone); diff != "" {
		t.Errorf("undone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ReleaseInventory", "RefundPayment"}, failed.NotUndone); diff != "" {
		t.Errorf("not undone (-want +got):\n%s", diff)
	}
}

func TestManyStartsAreOneSaga(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	var starts sync.WaitGroup
	for range 20 {
		starts.Go(func() {
			if err := w.starts.Start(t.Context(), order); err != nil {
				t.Errorf("start: %v", err)
			}
		})
	}
	starts.Wait()
	w.wantFulfilled(order, w.fulfill(order))
	w.wantFulfilled(order, w.fulfill(order)) // a start after the end changes nothing
}

// Twenty-five orders want one of ten pieces each, at the same time: ten get it.
func TestStockIsNotOversold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	var mu sync.Mutex
	shipped, refused := 0, 0
	var orders sync.WaitGroup
	for i := range 25 {
		orders.Go(func() {
			result := w.fulfill(anOrder(fmt.Sprintf("ORDER-%d", i), contracts.Line{ProductID: "PROD-001", Quantity: 1, Price: 100}))
			mu.Lock()
			defer mu.Unlock()
			if result.Success {
				shipped++
			} else if result.Code == inventory.CodeOutOfStock {
				refused++
			}
		})
	}
	orders.Wait()
	if shipped != initialStock || refused != 25-initialStock {
		t.Errorf("%d shipped and %d refused, want %d and %d", shipped, refused, initialStock, 25-initialStock)
	}
	w.wantStock("PROD-001", initialStock)
}
