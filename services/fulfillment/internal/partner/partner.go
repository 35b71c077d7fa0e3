// Package partner holds what the saga's partners (payment provider, warehouse, carrier) answer with.
package partner

import (
	"time"

	"waybill/contracts"
)

// ErrBusy says that a call waited for its turn in this service's own queue, in vain, and that the partner was not asked. That is
// no failure of the partner.
var ErrBusy error = busy{}

type busy struct{}

func (busy) Error() string { return "too many calls wait for their turn" }

// Retryable says that the same call can succeed later (platform/retryable asks for it).
func (busy) Retryable() bool { return true }

// Reason is why a partner, for business reasons, does not do what it was asked. Code is stable and meant for programs,
// Message is a sentence for people that is safe to show.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Undone says that the refusal follows from an undo: what was asked for was given back, or called off, before.
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
