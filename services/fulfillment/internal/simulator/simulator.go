// Package simulator simulates the payment provider and the carrier: companies whose API is not part of this repository. Each keeps
// what the real company would know of an order, answers a repeated call as it answered the first one, and can be made to fail.
//
// The state store has one document for each order and company.
package simulator

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"waybill/platform/state"
)

// Keys of the documents. Order ids hold no colon, so keys cannot collide.
func paymentKey(order string) string  { return "payment:" + order }
func shipmentKey(order string) string { return "shipment:" + order }

// OfOrder reports whether the key is that of a document of this package. Such documents can expire some time after their last
// write.
func OfOrder(key string) bool {
	kind, _, _ := strings.Cut(key, ":")
	return kind == "payment" || kind == "shipment"
}

// createOrUpdate creates a document, and updates it only if it exists. Most documents do not exist yet, so this saves a read.
func createOrUpdate[T any](ctx context.Context, s state.Store, key string, doc T, change func(doc *T, exists bool) error) (T, error) {
	err := s.Create(ctx, key, doc)
	if errors.Is(err, state.ErrConflict) {
		return state.Update(ctx, s, key, change)
	}
	return doc, err
}

// read reads a document and reports whether it exists.
func read(ctx context.Context, s state.Store, key string, doc any) (exists bool, err error) {
	_, err = s.Get(ctx, key, doc)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// slow is how long a slow partner takes.
const slow = 2 * time.Second

// countAfter returns the n of a trigger such as tok_fail_<n>, and 0 for every other text.
func countAfter(prefix, trigger string) int {
	digits, ok := strings.CutPrefix(trigger, prefix)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0
	}
	return n
}

// sleep returns after d, or with an error when ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
