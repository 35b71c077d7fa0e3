package simulator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/simulator"
)

func order(id string) contracts.Order {
	return contracts.Order{OrderID: id, CustomerID: "CUST-123", TotalAmount: 99_9800, Currency: "USD"}
}

func TestPaymentsAreChargedAndRefundedOnce(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	o := order("ORDER-1")
	for range 2 {
		id, refused, err := p.Charge(t.Context(), o, "key")
		if err != nil || refused != nil || id != "TXN-ORDER-1" {
			t.Fatalf("charge: %q %v %v", id, refused, err)
		}
	}
	for range 2 {
		amount, id, err := p.Refund(t.Context(), o, "refund")
		if err != nil || amount != o.TotalAmount || id != "TXN-ORDER-1" {
			t.Fatalf("refund: %v %q %v", amount, id, err)
		}
	}
}

func TestARefundStopsALateCharge(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	if amount, id, err := p.Refund(t.Context(), order("ORDER-1"), "refund"); err != nil || amount != 0 || id != "" {
		t.Fatalf("refund of nothing: %v %q %v", amount, id, err)
	}
	if _, refused, err := p.Charge(t.Context(), order("ORDER-1"), "key"); err != nil || refused == nil {
		t.Errorf("a charge succeeded after the refund: %v, %v", refused, err)
	}
}

func TestACancellationStopsALateBooking(t *testing.T) {
	t.Parallel()
	c := simulator.NewCarrier(state.NewMemory(), time.Now)
	if cancelled, err := c.Cancel(t.Context(), order("ORDER-1")); err != nil || cancelled {
		t.Fatalf("cancel nothing: %v %v", cancelled, err)
	}
	if _, refused, err := c.Book(t.Context(), order("ORDER-1"), "key"); err != nil || refused == nil {
		t.Errorf("a parcel was booked after the cancellation: %v, %v", refused, err)
	}
}

// The triggers that the doc comments of Payments and Carrier describe.
func TestTriggers(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	for token, code := range map[string]string{"tok_declined": "card_declined", "tok_insufficient_funds": "insufficient_funds"} {
		o := order("ORDER-" + code)
		o.PaymentToken = token
		if _, refused, err := p.Charge(t.Context(), o, "key"); err != nil || refused == nil || refused.Code != code {
			t.Errorf("%s: %v %v, want %s", token, refused, err, code)
		}
	}
	fails := order("ORDER-FAILS")
	fails.PaymentToken = "tok_fail_2"
	for attempt := 1; attempt <= 3; attempt++ {
		if _, _, err := p.Charge(t.Context(), fails, "key"); (err == nil) != (attempt == 3) {
			t.Errorf("tok_fail_2, attempt %d: %v", attempt, err)
		}
	}
	down := order("ORDER-DOWN")
	down.PaymentToken = "tok_down"
	if _, _, err := p.Charge(t.Context(), down, "key"); err == nil {
		t.Error("tok_down charged")
	}
	c := simulator.NewCarrier(state.NewMemory(), time.Now)
	refused := order("ORDER-REFUSED")
	refused.ShipTo.Zip = "X-REFUSED"
	if _, reason, err := c.Book(t.Context(), refused, "key"); err != nil || reason == nil || reason.Code != "undeliverable" {
		t.Errorf("X-REFUSED: %v %v", reason, err)
	}
	lost := order("ORDER-LOST")
	lost.ShipTo.Zip = "X-LOST"
	if _, _, err := c.Book(t.Context(), lost, "key"); err == nil {
		t.Error("X-LOST confirmed the booking")
	}
	if booked, err := c.Cancel(t.Context(), lost); err != nil || !booked {
		t.Errorf("X-LOST booked: %v %v", booked, err)
	}
	failing := order("ORDER-REFUND")
	failing.PaymentToken = "tok_refund_fail_1"
	if _, refused, err := p.Charge(t.Context(), failing, "key"); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if _, _, err := p.Refund(t.Context(), failing, "refund"); err == nil {
		t.Error("tok_refund_fail_1 refunded at once")
	}
	if amount, _, err := p.Refund(t.Context(), failing, "refund"); err != nil || amount != failing.TotalAmount {
		t.Errorf("tok_refund_fail_1: refunded %v, %v", amount, err)
	}
}

func TestTheAddressDecidesHowLongTheCarrierTakes(t *testing.T) {
	t.Parallel()
	for zip, want := range map[string]time.Duration{"12345": 0, "X-SLOW": 2 * time.Second, "X-SLOW-10": 10 * time.Second, "X-SLOW-": 0} {
		t.Run(zip, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := order("ORDER-" + zip)
				o.ShipTo.Zip = zip
				begun := time.Now()
				_, refused, err := simulator.NewCarrier(state.NewMemory(), time.Now).Book(t.Context(), o, "key")
				if took := time.Since(begun); err != nil || refused != nil || took != want {
					t.Errorf("took %s, %v, %v; want a booking after %s", took, refused, err, want)
				}
			})
		})
	}
}

func TestOnlyPaymentsAndShipmentsAreDocumentsOfAnOrder(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"reservation:ORD-1": false, "payment:ORD-1": true, "shipment:ORD-1": true,
		"saga:ORD-1": false, "stock:PROD-001": false, "backlog:sagas:payment:1": false, "deadletter:orders:payment": false,
	} {
		if simulator.OfOrder(key) != want {
			t.Errorf("%s is a document of an order: %v", key, !want)
		}
	}
}
