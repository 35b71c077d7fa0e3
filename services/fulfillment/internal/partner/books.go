package partner

import "waybill/contracts"

// Books is what the partners hold of one order, to be compared with what the services hold.
type Books struct {
	Charges, Refunds []Transaction
	// Reservation is nil when the warehouse was never asked.
	Reservation *Reservation
	// Parcels are the tracking numbers of the parcels that were booked; Cancelled says that they were called back.
	Parcels   []string
	Cancelled bool
}

// Transaction is one movement of money.
type Transaction struct {
	ID     string
	Amount contracts.Amount
}

// Reservation is what became of an order's claim on stock.
type Reservation struct {
	State string
	Lines map[string]int
}
