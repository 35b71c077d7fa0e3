package api

import (
	"context"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

type booksOutput struct{ Body booksBody }

type booksBody struct {
	OrderID     string            `json:"order_id"`
	Charges     []transactionBody `json:"charges" nullable:"false"`
	Refunds     []transactionBody `json:"refunds" nullable:"false"`
	Reservation *reservationBody  `json:"reservation,omitempty" doc:"Absent when the warehouse was never asked."`
	Parcels     []string          `json:"parcels" nullable:"false" doc:"The tracking numbers of the parcels that were booked."`
	Cancelled   bool              `json:"cancelled,omitempty" doc:"Whether the parcels were called back."`
}

type transactionBody struct {
	TransactionID string           `json:"transaction_id"`
	Amount        contracts.Amount `json:"amount"`
}

type reservationBody struct {
	State string         `json:"state" enum:"reserved,refused,shipped,unshipping,releasing,released"`
	Lines map[string]int `json:"lines,omitempty" doc:"Pieces of each product."`
}

func (a API) getBooks(ctx context.Context, in *OrderPath) (*booksOutput, error) {
	b, err := a.Auditor.Books(ctx, in.OrderID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	body := booksBody{
		OrderID: in.OrderID, Charges: shownTransactions(b.Charges), Refunds: shownTransactions(b.Refunds),
		Parcels: append([]string{}, b.Parcels...), Cancelled: b.Cancelled,
	}
	if b.Reservation != nil {
		body.Reservation = (*reservationBody)(b.Reservation)
	}
	return &booksOutput{body}, nil
}

func shownTransactions(all []partner.Transaction) []transactionBody {
	shown := make([]transactionBody, len(all))
	for i, t := range all {
		shown[i] = transactionBody{t.ID, t.Amount}
	}
	return shown
}
