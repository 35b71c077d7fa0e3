package inventory

import (
	"fmt"
	"time"

	"waybill/services/fulfillment/internal/partner"
)

// Limits of a product's stock and of its remembered adjustments.
const (
	// MaxOnHand is how many pieces of a product a warehouse can hold.
	MaxOnHand = 1_000_000_000
	// KeyLifetime is how long an adjustment's key is remembered at least.
	KeyLifetime = 24 * time.Hour
	// MaxAdjustments is how many adjustments of one product are remembered. They are part of the product's document, so a change and its
	// key are written together.
	MaxAdjustments = 1000
)

// Codes of refused adjustments.
const (
	// CodeStockLimit says that on_hand would be more than MaxOnHand.
	CodeStockLimit = "stock_limit"
	// CodeKeyReused says that the key was used for another adjustment of the product.
	CodeKeyReused = "idempotency_key_reused"
	// CodeTooManyAdjustments says that MaxAdjustments keys are remembered, and none may be forgotten yet.
	CodeTooManyAdjustments = "too_many_adjustments"
	// CodeChanged says that a request's precondition does not hold: the stock has changed since the client read it.
	CodeChanged = "precondition_failed"
)

// Adjustment is a change of on_hand by a number of pieces, and the stock right after it, which is the answer.
type Adjustment struct {
	// Key is the client's idempotency key.
	Key    string    `json:"key"`
	Delta  int       `json:"delta"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`

	OnHand   int `json:"on_hand"`
	Reserved int `json:"reserved"`
	Shipped  int `json:"shipped"`
}

// Adjust changes on_hand by delta unless the key's adjustment was applied before. It returns the adjustment as it was first applied, and
// whether that was now.
func (s *Stock) Adjust(key string, delta int, reason string, at time.Time) (Adjustment, bool, *partner.Reason) {
	for _, a := range s.Adjustments {
		switch {
		case a.Key != key:
		case a.Delta != delta || a.Reason != reason:
			return Adjustment{}, false, &partner.Reason{Code: CodeKeyReused, Message: fmt.Sprintf("The Idempotency-Key was used for another adjustment of %s. Use a new key for a new adjustment.", s.ProductID)}
		default:
			return a, false, nil
		}
	}
	// Both are bounded, so their sum does not overflow once delta is.
	switch onHand, reserved := s.OnHand+delta, s.Reserved(); {
	case delta > MaxOnHand || onHand > MaxOnHand:
		return Adjustment{}, false, &partner.Reason{Code: CodeStockLimit, Message: fmt.Sprintf("on_hand of %s is %d and cannot grow by %d: it must be at most %d.", s.ProductID, s.OnHand, delta, MaxOnHand)}
	case delta < -MaxOnHand || onHand < reserved:
		return Adjustment{}, false, &partner.Reason{Code: CodeStockReserved, Message: fmt.Sprintf("on_hand of %s is %d and cannot change by %d: orders hold %d pieces.", s.ProductID, s.OnHand, delta, reserved)}
	}
	s.forget(at)
	if len(s.Adjustments) >= MaxAdjustments {
		return Adjustment{}, false, &partner.Reason{Code: CodeTooManyAdjustments, Message: fmt.Sprintf(
			"%d adjustments of %s were made within %v, which is the most that can be remembered. The next one is possible at %s.",
			MaxAdjustments, s.ProductID, KeyLifetime, s.Adjustments[0].At.Add(KeyLifetime).UTC().Format(time.RFC3339))}
	}
	s.change(at, func() { s.OnHand += delta })
	a := Adjustment{Key: key, Delta: delta, Reason: reason, At: at, OnHand: s.OnHand, Reserved: s.Reserved(), Shipped: s.Shipped}
	s.Adjustments = append(s.Adjustments, a)
	return a, true, nil
}

// forget removes the adjustments whose keys were remembered for KeyLifetime. The oldest is first.
func (s *Stock) forget(at time.Time) {
	old := 0
	for old < len(s.Adjustments) && at.Sub(s.Adjustments[old].At) > KeyLifetime {
		old++
	}
	s.Adjustments = s.Adjustments[old:]
}

// ETag returns the stock's ETag, a quoted string. It changes with every change of the stock.
func (s *Stock) ETag() string {
	return fmt.Sprintf(`"%d-%d-%d-%d"`, s.Version, s.OnHand, s.Reserved(), s.Shipped)
}

// Condition reports whether the stock may be changed. The product id is empty if no stock was ever set.
type Condition func(s *Stock) bool

// Check returns why the stock does not meet every condition, nil if it does.
func (s *Stock) Check(product string, conditions []Condition) *partner.Reason {
	for _, holds := range conditions {
		if holds(s) {
			continue
		}
		now := "it has no stock"
		if s.ProductID != "" {
			now = fmt.Sprintf("on_hand is %d, reserved %d, shipped %d, and the ETag %s", s.OnHand, s.Reserved(), s.Shipped, s.ETag())
		}
		return &partner.Reason{Code: CodeChanged, Message: fmt.Sprintf("The stock of %s does not meet the request's precondition: %s.", product, now)}
	}
	return nil
}
