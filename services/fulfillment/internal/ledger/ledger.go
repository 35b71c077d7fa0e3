// Package ledger keeps fulfilment's books in the state store: stock, payments, shipments and sagas, each under the key
// of its order or product. Every entry is written so that a step which runs again finds what it did before.
//
// Payments and Carrier are simulated: they stand for another company's API, keep what that company would know, and can
// be told to fail. Everything else is real.
package ledger

import (
	"context"
	"errors"
	"strings"

	"waybill/platform/state"
)

// Keys of the documents. Order and product ids hold no colon, so keys cannot collide.
func stockKey(product string) string     { return "stock:" + product }
func reservationKey(order string) string { return "reservation:" + order }
func paymentKey(order string) string     { return "payment:" + order }
func shipmentKey(order string) string    { return "shipment:" + order }
func sagaKey(order string) string        { return "saga:" + order }

// OfOrder reports whether what is stored under the key is of one order and vanishes some time after it was last written: its payments
// and parcels. A reservation says where the order stands at the stock, and vanishes only once it has ended (Inventory.KeepFor).
func OfOrder(key string) bool {
	kind, _, _ := strings.Cut(key, ":")
	return kind == "payment" || kind == "shipment"
}

// createOr creates a document that is most likely not there yet; only when it is, it leaves it to update. That spares the
// read that nearly always finds nothing.
func createOr[T any](ctx context.Context, s state.Store, key string, doc T, update func() (T, error)) (T, error) {
	err := s.Create(ctx, key, doc)
	if errors.Is(err, state.ErrConflict) {
		return update()
	}
	return doc, err
}
