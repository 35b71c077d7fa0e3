package api

import (
	"context"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

type auditOutput struct{ Body auditBody }

type auditBody struct {
	OrderID     string            `json:"order_id"`
	Charges     []transactionBody `json:"charges" nullable:"false"`
	Refunds     []transactionBody `json:"refunds" nullable:"false"`
	Reservation *reservationBody  `json:"reservation,omitempty" doc:"Absent if the warehouse was never asked."`
	Parcels     []string          `json:"parcels" nullable:"false" doc:"The tracking numbers of the booked parcels."`
	Cancelled   bool              `json:"cancelled,omitempty" doc:"Whether the carrier was told to cancel the parcels."`
}

type transactionBody struct {
	TransactionID string           `json:"transaction_id"`
	Amount        contracts.Amount `json:"amount"`
}

type reservationBody struct {
	State string         `json:"state" enum:"reserved,refused,shipped,unshipping,releasing,released"`
	Lines map[string]int `json:"lines,omitempty" doc:"Pieces of each product."`
}

func (a API) getAudit(ctx context.Context, in *OrderPath) (*auditOutput, error) {
	var audit partner.Audit
	known := false
	for _, p := range a.Audited {
		knows, err := p.Audit(ctx, in.OrderID, &audit)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		known = known || knows
	}
	if !known {
		return nil, a.problem(ctx, record.ErrUnknown(in.OrderID))
	}
	body := auditBody{
		OrderID: in.OrderID, Charges: transactionBodies(audit.Charges), Refunds: transactionBodies(audit.Refunds),
		Parcels: append([]string{}, audit.Parcels...), Cancelled: audit.Cancelled,
	}
	if audit.Reservation != nil {
		body.Reservation = (*reservationBody)(audit.Reservation)
	}
	return &auditOutput{body}, nil
}

func transactionBodies(all []partner.Transaction) []transactionBody {
	bodies := make([]transactionBody, len(all))
	for i, t := range all {
		bodies[i] = transactionBody{t.ID, t.Amount}
	}
	return bodies
}
