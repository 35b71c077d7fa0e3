package order

import (
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// MaxReason is the largest length of a customer's reason for a cancellation, in characters.
const MaxReason = 500

// CheckReason checks a customer's reason. The error is an *Error of kind Invalid.
func CheckReason(reason string) error {
	var f faults
	if f.text("reason", strings.TrimSpace(reason), MaxReason, optional); len(f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: "invalid_cancellation", Text: "The reason is not valid.", Faults: f}
}

// RequestCancellation records that the customer wants the order cancelled. An order that is not confirmed yet is cancelled at
// once: its fulfilment has not started, and Confirm refuses it from now on. For any other order the saga decides. It returns
// false and changes nothing if the order is cancelled or its cancellation is pending. The error is an *Error, of kind TooLate
// if the order has shipped, has ended, or needs attention.
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

// CancellationAnswer reports whether the outcome of a requested cancellation is known. Without an error the order is cancelled or
// will be: fulfilment has recorded the cancellation, and ships nothing after that. The error is an *Error of kind TooLate.
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

// shipped reports whether this service knows that the parcel was shipped. The saga may know it earlier.
func (o *Order) shipped() bool {
	return o.s.Status == Fulfilled || o.did(contracts.StepCancel, contracts.OutcomeRefused) ||
		o.did(contracts.StepProcessShipment, contracts.OutcomeDone) && !o.did(contracts.StepCancelShipment, contracts.OutcomeDone)
}

// cancelledUnconfirmed reports whether this service cancelled the order by this entry, without the saga.
func (e Entry) cancelledUnconfirmed() bool {
	return e.Source == Source && e.Type == contracts.TypeOrderCancelled && e.CausedBy == ""
}

// Cancellation is a customer's request to cancel an order. Refused: it came too late. Accepted: the order is cancelled or will
// be.
type Cancellation struct {
	RequestedAt time.Time
	Reason      string
	Refused     bool
	Accepted    bool
}

// Cancellation returns the customer's request, if there was one.
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

// CancellationPending reports whether a cancellation was requested and not refused, and the order has not ended.
func (o *Order) CancellationPending() bool {
	c, requested := o.Cancellation()
	return requested && !c.Refused && !o.s.Status.Final()
}
