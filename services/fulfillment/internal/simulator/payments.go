package simulator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/partner"
)

// Payments simulates a payment provider. Like a real one it charges once per idempotency key and refunds what it charged. The
// payment token selects its behaviour:
//
//	tok_declined            refuses: the card was declined
//	tok_insufficient_funds  refuses: the account does not hold the amount
//	tok_slow                charges after two seconds
//	tok_fail_<n>            fails n times, then charges
//	tok_down                always fails
//	tok_refund_slow         charges at once, refunds after two seconds
//	tok_refund_fail_<n>     charges at once, fails to refund n times, then refunds
//	tok_refund_down         charges at once, never refunds
//
// It charges any other token, and an empty one, at once.
type Payments struct {
	store state.Store
	now   func() time.Time
}

// NewPayments returns a provider that stores its accounts in store.
func NewPayments(store state.Store, now func() time.Time) *Payments {
	return &Payments{store: store, now: now}
}

// account is what the provider knows of one order.
type account struct {
	OrderID  string         `json:"order_id"`
	Attempts int            `json:"attempts,omitempty"`
	Charges  []paymentEntry `json:"charges,omitempty"`
	Refunds  []paymentEntry `json:"refunds,omitempty"`
	// Closed says that a refund was requested, so nothing may be charged any more.
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
	tokenRefundFails       = "tok_refund_fail_" //nolint:gosec // selects a behaviour; it is no credential
	tokenRefundDown        = "tok_refund_down"
)

// Charge charges the order's total and returns the transaction's id, or why it refuses. A repeated key charges nothing more and
// returns the same id. After an error it is unknown whether money was charged.
func (p *Payments) Charge(ctx context.Context, o contracts.Order, key string) (transactionID string, refused *partner.Reason, err error) {
	switch o.PaymentToken {
	case tokenDeclined:
		return "", &partner.Reason{Code: "card_declined", Message: "The card was declined."}, nil
	case tokenInsufficientFunds:
		return "", &partner.Reason{Code: "insufficient_funds", Message: "The account does not hold the amount."}, nil
	case tokenDown:
		return "", nil, errors.New("the payment provider is down")
	case tokenSlow:
		if err := sleep(ctx, slow); err != nil {
			return "", nil, err
		}
	}
	if err := p.fail(ctx, o, tokenFails); err != nil {
		return "", nil, fmt.Errorf("charge: %w", err)
	}
	charge := paymentEntry{Key: key, TransactionID: "TXN-" + o.OrderID, Amount: o.TotalAmount, Currency: o.Currency, At: p.now()}
	first := account{OrderID: o.OrderID, Charges: []paymentEntry{charge}}
	a, err := createOrUpdate(ctx, p.store, paymentKey(o.OrderID), first, func(a *account, _ bool) error {
		// Closed comes first: a refunded charge pays for nothing.
		if a.Closed || len(a.Charges) > 0 && a.Charges[0].Key == key {
			return state.ErrUnchanged
		}
		a.OrderID, a.Charges = o.OrderID, append(a.Charges, charge)
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("charge: %w", err)
	}
	if a.Closed {
		return "", &partner.Reason{Code: "payment_refunded", Message: "A refund was requested before, so nothing is charged any more.", Undone: true}, nil
	}
	return a.Charges[len(a.Charges)-1].TransactionID, nil, nil
}

// fail fails as often as the order's token says.
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

// Refund refunds all charges of the order; after it nothing more can be charged. It returns the refunded amount, 0 if nothing had
// been charged. A repeated call refunds nothing more and returns the same.
func (p *Payments) Refund(ctx context.Context, o contracts.Order, key string) (contracts.Amount, string, error) {
	switch o.PaymentToken {
	case tokenRefundDown:
		return 0, "", errors.New("the payment provider is down")
	case tokenRefundSlow:
		if err := sleep(ctx, slow); err != nil {
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

// Audit adds the order's charges and refunds to a, and reports whether the provider knows the order.
func (p *Payments) Audit(ctx context.Context, orderID string, a *partner.Audit) (known bool, err error) {
	var of account
	if known, err = read(ctx, p.store, paymentKey(orderID), &of); err != nil {
		return false, fmt.Errorf("read payments of %s: %w", orderID, err)
	}
	for _, c := range of.Charges {
		a.Charges = append(a.Charges, partner.Transaction{ID: c.TransactionID, Amount: c.Amount})
	}
	for _, r := range of.Refunds {
		a.Refunds = append(a.Refunds, partner.Transaction{ID: r.TransactionID, Amount: r.Amount})
	}
	return known, nil
}
