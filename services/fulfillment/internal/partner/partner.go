// Package partner holds what the saga's partners (payment provider, warehouse, carrier) answer.
package partner

import (
	"time"

	"waybill/contracts"
)

// ErrBusy says that a call waited too long for a free slot in one of this service's own limits. The partner was not called, so this is
// no failure of the partner.
var ErrBusy error = busy{}

type busy struct{}

func (busy) Error() string { return "too many calls wait for a free slot" }

// Retryable says that the same call can succeed later (platform/retryable asks for it).
func (busy) Retryable() bool { return true }

// Reason is why a partner refuses a request for a business reason. Code is stable and meant for programs, Message is a sentence for
// people that is safe to show.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Undone says that a compensation caused the refusal: what was requested had been released or cancelled before.
	Undone bool `json:"undone,omitempty"`
}

func (r *Reason) Error() string { return r.Message }

// Shipment is a booked parcel.
type Shipment struct {
	Carrier           string           `json:"carrier"`
	TrackingNumber    string           `json:"tracking_number"`
	Cost              contracts.Amount `json:"cost"`
	EstimatedDelivery time.Time        `json:"estimated_delivery"`
}
