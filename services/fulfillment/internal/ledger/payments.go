package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/partner"
)

// Payments is a simulated payment provider. Like a real one it charges once per idempotency key, refunds what it charged
// and remembers both. A payment token tells it how to behave:
//
//	tok_declined            refuses: the card was declined
//	tok_insufficient_funds  refuses: the account does not hold the amount
//	tok_slow                charges after two seconds
//	tok_fail_<n>            fails n times, then charges
//	tok_down                fails always
//	tok_refund_slow         charges at once, refunds after two seconds
//	tok_refund_fail_<n>     charges at once, fails n times to refund, then does
//	tok_refund_down         charges at once, never refunds
//
// Any other token, and none, is charged at once.
type Payments struct {
	store state.Store
	now   func() time.Time
}

// NewPayments returns a provider that keeps its books in store.
func NewPayments(store state.Store, now func() time.Time) *Payments {
	return &Payments{store: store, now: now}
}

// account is what the provider knows of one order.
type account struct {
	OrderID  string         `json:"order_id"`
	Attempts int            `json:"attempts,omitempty"`
	Charges  []paymentEntry `json:"charges,omitempty"`
	Refunds  []paymentEntry `json:"refunds,omitempty"`
	// Closed says that nothing may be charged any more, because a refund was asked for.
	Closed bool `json:"closed,omitempty"`
}

type paymentEntry struct {
	Key           string           `json:"key"`
	TransactionID string           `json:"transaction_id"`
	Amount        contracts.Amount `json:"amount"`
	Currency      string           `json:"currency"`
	At            time.Time        `json:"at"`
}

const (
	tokenDeclined          = "tok_declined"
	tokenInsufficientFunds = "tok_insufficient_funds"
	tokenSlow              = "tok_slow"
	tokenDown              = "tok_down"
	tokenFails             = "tok_fail_"
	tokenRefundSlow        = "tok_refund_slow"
	tokenRefundFails       = "tok_refund_fail_" //nolint:gosec // what a test order says, and no credential
	tokenRefundDown        = "tok_refund_down"
	slowness               = 2 * time.Second
)

// Charge takes the order's total and returns the transaction's id, or why it refuses. Repeating a key charges nothing
// more and gives the same id. An error leaves open whether money was taken.
func (p *Payments) Charge(ctx context.Context, o contracts.Order, key string) (transactionID string, refused *partner.Reason, err error) {
	switch o.PaymentToken {
	case tokenDeclined:
		return "", &partner.Reason{Code: "card_declined", Message: "The card was declined."}, nil
	case tokenInsufficientFunds:
		return "", &partner.Reason{Code: "insufficient_funds", Message: "The account does not hold the amount."}, nil
	case tokenDown:
		return "", nil, errors.New("the payment provider is down")
	case tokenSlow:
		if err := pause(ctx, slowness); err != nil {
			return "", nil, err
		}
	}
	if err := p.fail(ctx, o, tokenFails); err != nil {
		return "", nil, fmt.Errorf("charge: %w", err)
	}
	charge := paymentEntry{Key: key, TransactionID: "TXN-" + o.OrderID, Amount: o.TotalAmount, Currency: o.Currency, At: p.now()}
	first := account{OrderID: o.OrderID, Charges: []paymentEntry{charge}}
	a, err := createOr(ctx, p.store, paymentKey(o.OrderID), first, func() (account, error) {
		return state.Update(ctx, p.store, paymentKey(o.OrderID), func(a *account, _ bool) error {
			// Closed first: a charge that was given back pays for nothing.
			if a.Closed || len(a.Charges) > 0 && a.Charges[0].Key == key {
				return state.ErrUnchanged
			}
			a.OrderID, a.Charges = o.OrderID, append(a.Charges, charge)
			return nil
		})
	})
	if err != nil {
		return "", nil, fmt.Errorf("charge: %w", err)
	}
	if a.Closed {
		return "", &partner.Reason{Code: "payment_refunded", Message: "A refund was asked for already, so nothing is charged any more.", Undone: true}, nil
	}
	return a.Charges[len(a.Charges)-1].TransactionID, nil, nil
}

// fail fails as often as the order's token asks for.
func (p *Payments) fail(ctx context.Context, o contracts.Order, trigger string) error {
	times := countAfter(trigger, o.PaymentToken)
	if times == 0 {
		return nil
	}
	a, err := state.Update(ctx, p.store, paymentKey(o.OrderID), func(a *account, _ bool) error {
		a.OrderID = o.OrderID
		a.Attempts++
		return nil
	})
	if err != nil {
		return err
	}
	if a.Attempts <= times {
		return fmt.Errorf("the payment provider failed, attempt %d", a.Attempts)
	}
	return nil
}

// Refund gives back all that was charged for the order and lets nothing more be charged. It returns what was given back,
// zero when nothing had been charged. Repeating it refunds nothing more and returns the same.
func (p *Payments) Refund(ctx context.Context, o contracts.Order, key string) (contracts.Amount, string, error) {
	switch o.PaymentToken {
	case tokenRefundDown:
		return 0, "", errors.New("the payment provider is down")
	case tokenRefundSlow:
		if err := pause(ctx, slowness); err != nil {
			return 0, "", err
		}
	}
	if err := p.fail(ctx, o, tokenRefundFails); err != nil {
		return 0, "", fmt.Errorf("refund: %w", err)
	}
	a, err := state.Update(ctx, p.store, paymentKey(o.OrderID), func(a *account, _ bool) error {
		if a.Closed {
			return state.ErrUnchanged
		}
		a.OrderID, a.Closed = o.OrderID, true
		for _, c := range a.Charges {
			a.Refunds = append(a.Refunds, paymentEntry{Key: key, TransactionID: c.TransactionID, Amount: c.Amount, Currency: c.Currency, At: p.now()})
		}
		return nil
	})
	if err != nil {
		return 0, "", fmt.Errorf("refund: %w", err)
	}
	if len(a.Refunds) == 0 {
		return 0, "", nil
	}
	var total contracts.Amount
	for _, r := range a.Refunds {
		total += r.Amount
	}
	return total, a.Refunds[0].TransactionID, nil
}

// countAfter is the n of a trigger such as tok_fail_<n>, and zero of every other text.
func countAfter(prefix, trigger string) int {
	digits, ok := strings.CutPrefix(trigger, prefix)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0
	}
	return n
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
