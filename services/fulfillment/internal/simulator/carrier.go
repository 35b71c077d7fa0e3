package simulator

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

// Carrier simulates a carrier. Like a real one it books a parcel once per idempotency key. The zip of the address selects its
// behaviour:
//
//	X-REFUSED   refuses: it does not deliver there
//	X-SLOW      books after two seconds
//	X-SLOW-<n>  books after n seconds
//	X-FAIL-<n>  fails n times, then books
//	X-DOWN      always fails
//	X-LOST      books, but never confirms it
//
// It books any other zip at once.
type Carrier struct {
	store state.Store
	now   func() time.Time
}

// NewCarrier returns a carrier that stores its bookings in store.
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
	// Cancelled says that the parcel was cancelled and that nothing may be booked any more.
	Cancelled bool `json:"cancelled,omitempty"`
}

const (
	zipRefused   = "X-REFUSED"
	zipSlow      = "X-SLOW"
	zipSlowFor   = "X-SLOW-"
	zipDown      = "X-DOWN"
	zipLost      = "X-LOST"
	zipFails     = "X-FAIL-"
	deliveryDays = 3
)

// Book books the parcel or refuses it. A repeated key books nothing more and returns the same shipment. After an error it is unknown
// whether a parcel was booked.
func (c *Carrier) Book(ctx context.Context, o contracts.Order, key string) (partner.Shipment, *partner.Reason, error) {
	switch o.ShipTo.Zip {
	case zipRefused:
		return partner.Shipment{}, &partner.Reason{Code: "undeliverable", Message: "The carrier does not deliver to this address."}, nil
	case zipDown:
		return partner.Shipment{}, nil, errors.New("the carrier is down")
	}
	if d := delay(o.ShipTo.Zip); d > 0 {
		if err := sleep(ctx, d); err != nil {
			return partner.Shipment{}, nil, err
		}
	}
	if err := c.fail(ctx, o); err != nil {
		return partner.Shipment{}, nil, err
	}
	now := c.now()
	booking := parcel{Key: key, Shipment: shipment(o, now), BookedAt: now}
	first := parcels{OrderID: o.OrderID, Booked: []parcel{booking}}
	p, err := createOrUpdate(ctx, c.store, shipmentKey(o.OrderID), first, func(p *parcels, _ bool) error {
		// Cancelled comes first: a cancelled parcel is not delivered.
		if p.Cancelled || len(p.Booked) > 0 && p.Booked[0].Key == key {
			return state.ErrUnchanged
		}
		p.OrderID, p.Booked = o.OrderID, append(p.Booked, booking)
		return nil
	})
	if err != nil {
		return partner.Shipment{}, nil, fmt.Errorf("book: %w", err)
	}
	if p.Cancelled {
		return partner.Shipment{}, &partner.Reason{Code: "shipment_cancelled", Message: "The shipment was cancelled before, so nothing is booked any more.", Undone: true}, nil
	}
	if o.ShipTo.Zip == zipLost {
		return partner.Shipment{}, nil, errors.New("the carrier did not answer")
	}
	return p.Booked[len(p.Booked)-1].Shipment, nil, nil
}

// delay is how long the carrier takes for an address, 0 for most.
func delay(zip string) time.Duration {
	if zip == zipSlow {
		return slow
	}
	return time.Duration(countAfter(zipSlowFor, zip)) * time.Second
}

// shipment derives carrier, number and cost from the order's id, so they are the same on every call. The cost is in the order's
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

// fail fails as often as the order's zip says.
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

// Cancel cancels the order's parcel; after it nothing more can be booked. It reports whether there was a parcel.
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

// Audit adds the order's parcels to a, and reports whether the carrier knows the order.
func (c *Carrier) Audit(ctx context.Context, orderID string, a *partner.Audit) (known bool, err error) {
	var of parcels
	if known, err = read(ctx, c.store, shipmentKey(orderID), &of); err != nil {
		return false, fmt.Errorf("read parcels of %s: %w", orderID, err)
	}
	for _, p := range of.Booked {
		a.Parcels = append(a.Parcels, p.Shipment.TrackingNumber)
	}
	a.Cancelled = of.Cancelled
	return known, nil
}
