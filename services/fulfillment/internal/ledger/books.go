package ledger

import (
	"context"
	"errors"
	"fmt"

	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/journal"
	"waybill/services/fulfillment/internal/partner"
)

// Auditor reads the books of all partners.
type Auditor struct{ store state.Store }

// NewAuditor returns an Auditor of the books in store.
func NewAuditor(store state.Store) Auditor { return Auditor{store} }

// Books reads an order's books. A *journal.Error says that the order is unknown.
func (a Auditor) Books(ctx context.Context, orderID string) (partner.Books, error) {
	var b partner.Books
	docs, err := a.store.GetMany(ctx, []string{paymentKey(orderID), reservationKey(orderID), shipmentKey(orderID)})
	if err != nil {
		return b, fmt.Errorf("read the books of %s: %w", orderID, err)
	}
	if len(docs) == 0 {
		return b, journal.ErrUnknown(orderID)
	}
	var paid account
	var sent parcels
	read := func(key string, into any) error {
		doc, there := docs[key]
		if !there {
			return nil
		}
		return state.Decode(key, doc, into)
	}
	if err := errors.Join(read(paymentKey(orderID), &paid), read(shipmentKey(orderID), &sent)); err != nil {
		return b, err
	}
	if doc, there := docs[reservationKey(orderID)]; there {
		var r inventory.Reservation
		if err := state.Decode(reservationKey(orderID), doc, &r); err != nil {
			return b, err
		}
		b.Reservation = &partner.Reservation{State: string(r.State), Lines: r.Lines}
	}
	for _, c := range paid.Charges {
		b.Charges = append(b.Charges, partner.Transaction{ID: c.TransactionID, Amount: c.Amount})
	}
	for _, r := range paid.Refunds {
		b.Refunds = append(b.Refunds, partner.Transaction{ID: r.TransactionID, Amount: r.Amount})
	}
	for _, p := range sent.Booked {
		b.Parcels = append(b.Parcels, p.Shipment.TrackingNumber)
	}
	b.Cancelled = sent.Cancelled
	return b, nil
}
