package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/partner"
)

// Carrier is a simulated carrier. Like a real one it books a parcel once per idempotency key and remembers it. The zip
// of the address tells it how to behave:
//
//	X-REFUSED   refuses: it does not deliver there
//	X-SLOW      books after two seconds
//	X-SLOW-<n>  books after n seconds
//	X-FAIL-<n>  fails n times, then books
//	X-DOWN      fails always
//	X-LOST      books, and then never answers that it did
//
// Any other zip is booked at once.
type Carrier struct {
	store state.Store
	now   func() time.Time
}

// NewCarrier returns a carrier that keeps its books in store.
func NewCarrier(store state.Store, now func() time.Time) *Carrier {
	return &Carrier{store: store, now: now}
}

// parcel is one booking.
type parcel struct {
	Key      string           `json:"key"`
	Shipment partner.Shipment `json:"shipment"`
	BookedAt time.Time        `json:"booked_at"`
}

// parcels is what the carrier knows of one order.
type parcels struct {
	OrderID  string   `json:"order_id"`
	Attempts int      `json:"attempts,omitempty"`
	Booked   []parcel `json:"booked,omitempty"`
	// Cancelled says that the parcel was taken back and that nothing may be booked any more.
	Cancelled bool `json:"cancelled,omitempty"`
}

const (
	zipRefused   = "X-REFUSED"
	zipSlow      = "X-SLOW"
	zipSlows     = "X-SLOW-"
	zipDown      = "X-DOWN"
	zipLost      = "X-LOST"
	zipFails     = "X-FAIL-"
	deliveryDays = 3
)

// Book books the parcel or refuses it. Repeating a key books nothing more and gives the same shipment. An error leaves
// open whether a parcel was booked.
func (c *Carrier) Book(ctx context.Context, o contracts.Order, key string) (partner.Shipment, *partner.Reason, error) {
	switch o.ShipTo.Zip {
	case zipRefused:
		return partner.Shipment{}, &partner.Reason{Code: "undeliverable", Message: "The carrier does not deliver to this address."}, nil
	case zipDown:
		return partner.Shipment{}, nil, errors.New("the carrier is down")
	}
	if takes := slownessOf(o.ShipTo.Zip); takes > 0 {
		if err := pause(ctx, takes); err != nil {
			return partner.Shipment{}, nil, err
		}
	}
	if err := c.fail(ctx, o); err != nil {
		return partner.Shipment{}, nil, err
	}
	now := c.now()
	booking := parcel{Key: key, Shipment: shipment(o, now), BookedAt: now}
	first := parcels{OrderID: o.OrderID, Booked: []parcel{booking}}
	p, err := createOr(ctx, c.store, shipmentKey(o.OrderID), first, func() (parcels, error) {
		return state.Update(ctx, c.store, shipmentKey(o.OrderID), func(p *parcels, _ bool) error {
			// Cancelled first: a parcel that was called back goes nowhere.
			if p.Cancelled || len(p.Booked) > 0 && p.Booked[0].Key == key {
				return state.ErrUnchanged
			}
			p.OrderID, p.Booked = o.OrderID, append(p.Booked, booking)
			return nil
		})
	})
	if err != nil {
		return partner.Shipment{}, nil, fmt.Errorf("book: %w", err)
	}
	if p.Cancelled {
		return partner.Shipment{}, &partner.Reason{Code: "shipment_cancelled", Message: "The shipment was cancelled already, so nothing is booked any more.", Undone: true}, nil
	}
	if o.ShipTo.Zip == zipLost {
		return partner.Shipment{}, nil, errors.New("the carrier did not answer")
	}
	return p.Booked[len(p.Booked)-1].Shipment, nil, nil
}

// slownessOf is how long the carrier takes for an address, 0 for most.
func slownessOf(zip string) time.Duration {
	if zip == zipSlow {
		return slowness
	}
	return time.Duration(countAfter(zipSlows, zip)) * time.Second
}

// shipment makes up carrier, number and cost from the order's id, the same whenever asked. The cost is in the order's
// currency: 5.99 to 29.99 USD, 599 to 2999 JPY.
func shipment(o contracts.Order, now time.Time) partner.Shipment {
	h := fnv.New32a()
	h.Write([]byte(o.OrderID)) // never fails
	n := h.Sum32()
	name := []string{"FedEx", "UPS", "DHL", "USPS"}[n%4]
	return partner.Shipment{
		Carrier: name, TrackingNumber: fmt.Sprintf("%s-%s-%05d", name, o.OrderID, 10000+n/4%90000),
		Cost: contracts.Amount(599+n/7%2401) * contracts.MinorUnit(o.Currency), EstimatedDelivery: now.AddDate(0, 0, deliveryDays),
	}
}

func (c *Carrier) fail(ctx context.Context, o contracts.Order) error {
	times := countAfter(zipFails, o.ShipTo.Zip)
	if times == 0 {
		return nil
	}
	p, err := state.Update(ctx, c.store, shipmentKey(o.OrderID), func(p *parcels, _ bool) error {
		p.OrderID = o.OrderID
		p.Attempts++
		return nil
	})
	if err != nil {
		return fmt.Errorf("book: %w", err)
	}
	if p.Attempts <= times {
		return fmt.Errorf("the carrier failed, attempt %d", p.Attempts)
	}
	return nil
}

// Cancel takes the order's parcel back and lets nothing more be booked. It reports whether there was a parcel.
func (c *Carrier) Cancel(ctx context.Context, o contracts.Order) (bool, error) {
	p, err := state.Update(ctx, c.store, shipmentKey(o.OrderID), func(p *parcels, _ bool) error {
		if p.Cancelled {
			return state.ErrUnchanged
		}
		p.OrderID, p.Cancelled = o.OrderID, true
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("cancel shipment: %w", err)
	}
	return len(p.Booked) > 0, nil
}
