package order

import (
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// MaxReason bounds, in characters, what a customer says of why an order is cancelled.
const MaxReason = 500

// CheckReason checks a customer's reason. The error is an *Error of kind Invalid.
func CheckReason(reason string) error {
	var f faults
	if f.text("reason", strings.TrimSpace(reason), MaxReason, optional); len(f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: "invalid_cancellation", Text: "The reason is not valid.", Faults: f}
}

// RequestCancellation takes the customer's wish to have the order cancelled. An order that is not confirmed yet is
// cancelled at once, for nobody has begun to fulfil it and Confirm will not let anybody begin. For any other the wish is
// noted, and the saga decides. It reports false, and changes nothing, when the order is cancelled or its cancellation is
// under way. The error is an *Error, of kind TooLate once the order has shipped, has ended, or needs a person anyhow.
func (o *Order) RequestCancellation(reason string, now time.Time) (changed bool, err error) {
	if err := CheckReason(reason); err != nil {
		return false, err
	}
	reason = strings.TrimSpace(reason)
	id := string(o.ID())
	switch {
	case o.s.Status == Cancelled:
		return false, nil
	case o.shipped():
		return false, o.tooLate("order_shipped", "has shipped")
	case o.s.Status.Final():
		return false, o.tooLate("order_final", "has ended")
	case o.s.Status == NeedsAttention:
		return false, o.tooLate("order_needs_attention", "is in the hands of our staff")
	case o.CancellationPending():
		return false, nil
	}
	previous := o.s.Status
	o.s.UpdatedAt = now.UTC()
	if previous != Received {
		o.note(Entry{
			EventID: id + ":" + contracts.TypeOrderCancellationRequested, Type: contracts.TypeOrderCancellationRequested,
			Time: now, Source: Source, Reason: reason,
		})
		return true, nil
	}
	o.s.Status = Cancelled
	o.note(Entry{
		EventID: id + ":" + contracts.TypeOrderCancelled, Type: contracts.TypeOrderCancelled,
		Time: now, Source: Source, Previous: previous, Reason: reason,
	})
	return true, nil
}

// CancellationAnswer reports whether it is known what becomes of the customer's wish. Without an error the order is cancelled, or
// will be: fulfilment has recorded the wish, and ships nothing after it. The error is an *Error of kind TooLate.
func (o *Order) CancellationAnswer() (known bool, err error) {
	switch {
	case o.s.Status == Cancelled:
		return true, nil
	case o.s.Status == Fulfilled || o.did(contracts.StepCancel, contracts.OutcomeRefused):
		return true, o.tooLate("order_shipped", "has shipped")
	case o.s.Status.Final():
		return true, o.tooLate("order_final", "has ended")
	case o.did(contracts.StepCancel, contracts.OutcomeDone):
		return true, nil
	case o.shipped():
		return true, o.tooLate("order_shipped", "has shipped")
	default:
		return false, nil
	}
}

func (o *Order) tooLate(code, why string) error {
	return &Error{
		Kind: TooLate, Code: code,
		Text: "The order " + string(o.ID()) + " " + why + ", its status is " + string(o.s.Status) + ": it cannot be cancelled.",
	}
}

// shipped reports whether the parcel has left, as far as this service knows; the saga may know more.
func (o *Order) shipped() bool {
	return o.s.Status == Fulfilled || o.did(contracts.StepCancel, contracts.OutcomeRefused) ||
		o.did(contracts.StepProcessShipment, contracts.OutcomeDone) && !o.did(contracts.StepCancelShipment, contracts.OutcomeDone)
}

// cancelledUnconfirmed tells the end of an order that this service cancelled by itself.
func (e Entry) cancelledUnconfirmed() bool {
	return e.Source == Source && e.Type == contracts.TypeOrderCancelled && e.CausedBy == ""
}

// Cancellation is a customer's wish to have an order cancelled. Refused says that it came too late, Accepted that the order is
// cancelled or will be.
type Cancellation struct {
	RequestedAt time.Time
	Reason      string
	Refused     bool
	Accepted    bool
}

// Cancellation returns the wish, if there was one.
func (o *Order) Cancellation() (c Cancellation, requested bool) {
	i := slices.IndexFunc(o.s.Timeline, func(e Entry) bool {
		return e.Source == Source && (e.Type == contracts.TypeOrderCancellationRequested || e.Type == contracts.TypeOrderCancelled)
	})
	if i < 0 {
		return Cancellation{}, false
	}
	e := o.s.Timeline[i]
	refused := o.did(contracts.StepCancel, contracts.OutcomeRefused)
	accepted := o.s.Status == Cancelled || o.did(contracts.StepCancel, contracts.OutcomeDone) && !refused
	return Cancellation{e.Time, e.Reason, refused, accepted}, true
}

// CancellationPending reports whether a cancellation was requested that was not refused, of an order that has not ended.
func (o *Order) CancellationPending() bool {
	c, requested := o.Cancellation()
	return requested && !c.Refused && !o.s.Status.Final()
}
