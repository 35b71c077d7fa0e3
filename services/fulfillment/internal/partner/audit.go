package partner

import "waybill/contracts"

// Audit is what the partners know of one order. It is compared with what the services know.
type Audit struct {
	Charges, Refunds []Transaction
	// Reservation is nil if the warehouse was never asked.
	Reservation *Reservation
	// Parcels are the tracking numbers of the booked parcels. Cancelled says that the carrier was told to cancel them.
	Parcels   []string
	Cancelled bool
}

// Transaction is one movement of money.
type Transaction struct {
	ID     string
	Amount contracts.Amount
}

// Reservation is what the warehouse reserved for an order.
type Reservation struct {
	State string
	Lines map[string]int
}
