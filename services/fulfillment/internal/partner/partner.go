// Package partner holds what the saga's partners (payment provider, warehouse, carrier) answer with.
package partner

import (
	"time"

	"waybill/contracts"
)

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
