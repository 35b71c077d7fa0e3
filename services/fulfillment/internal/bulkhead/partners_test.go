package bulkhead_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/bulkhead"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/simulator"
)

// A carrier that does not answer delays neither its own cancellations nor the payment provider.
func TestACarrierThatHangsDelaysNoOtherCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := state.NewMemory()
		payments, err := bulkhead.Payments(simulator.NewPayments(store, time.Now), 1)
		if err != nil {
			t.Fatal(err)
		}
		carrier, err := bulkhead.Carrier(hanging{simulator.NewCarrier(store, time.Now)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		order := contracts.Order{OrderID: "ord-1", TotalAmount: 10_0000, Currency: "USD"}
		ctx, release := context.WithCancel(t.Context())
		var held sync.WaitGroup
		held.Go(func() { _, _, _ = carrier.Book(ctx, order, "held") })
		synctest.Wait()
		began := time.Now()
		if _, _, err := carrier.Book(t.Context(), order, "next"); !errors.Is(err, partner.ErrBusy) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("waited for %s", waited)
		}
		if id, refused, err := payments.Charge(t.Context(), order, "charge"); id == "" || refused != nil || err != nil {
			t.Errorf("charge: %q, %v, %v", id, refused, err)
		}
		if amount, id, err := payments.Refund(t.Context(), order, "refund"); amount != 10_0000 || id == "" || err != nil {
			t.Errorf("refund: %v, %q, %v", amount, id, err)
		}
		if cancelled, err := carrier.Cancel(t.Context(), order); cancelled || err != nil {
			t.Errorf("cancel: %v, %v", cancelled, err)
		}
		release()
		held.Wait()
		shipment, refused, err := carrier.Book(t.Context(), contracts.Order{OrderID: "quick", Currency: "USD"}, "quick")
		if shipment.TrackingNumber == "" || refused != nil || err != nil {
			t.Errorf("book: %+v, %v, %v", shipment, refused, err)
		}
	})
}

// hanging is a carrier that never answers, except for the order "quick".
type hanging struct{ *simulator.Carrier }

func (h hanging) Book(ctx context.Context, o contracts.Order, key string) (partner.Shipment, *partner.Reason, error) {
	if o.OrderID != "quick" {
		<-ctx.Done()
		return partner.Shipment{}, nil, ctx.Err()
	}
	return h.Carrier.Book(ctx, o, key)
}
