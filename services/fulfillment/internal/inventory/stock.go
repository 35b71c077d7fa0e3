// Package inventory holds the rules of stock: what a product has, what orders hold of it, and how a hold becomes a
// shipment or is given back. It does no I/O.
package inventory

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Codes of the reasons for which a change of stock is refused.
const (
	// CodeUnknownProduct says that no stock was ever set for the product.
	CodeUnknownProduct = "unknown_product"
	// CodeOutOfStock says that fewer pieces are available than the order wants.
	CodeOutOfStock = "out_of_stock"
	// CodeStockReserved says that on_hand cannot be set below what orders hold.
	CodeStockReserved = "stock_reserved"
	// CodeReleased says that the order's claim was given back, so that nothing more is held for it.
	CodeReleased = "reservation_released"
)

// Unknown is the reason why nothing can be had of a product that does not exist.
func Unknown(product string) *partner.Reason {
	return &partner.Reason{Code: CodeUnknownProduct, Message: fmt.Sprintf("There is no product %s.", product)}
}

// Stock is one product's stock. Pieces leave OnHand when they are shipped, so only Set and Adjust change OnHand + Shipped.
type Stock struct {
	ProductID string `json:"product_id"`
	OnHand    int    `json:"on_hand"`
	Shipped   int    `json:"shipped"`
	// Held is how many pieces each order holds; the sum is reserved.
	Held map[string]int `json:"held,omitempty"`
	// Last is the latest change of what can be sold.
	Last Change `json:"last"`
	// Version counts the writes of the document; zero in documents of former releases.
	Version int `json:"version,omitempty"`
	// Adjustments are those whose keys are remembered, the oldest first.
	Adjustments []Adjustment `json:"adjustments,omitempty"`
}

// Change is one change of what can be sold of a product. Revision counts these changes.
type Change struct {
	Revision int       `json:"revision"`
	Previous int       `json:"previous"`
	Current  int       `json:"current"`
	At       time.Time `json:"at"`
}

// Reserved is how many pieces orders hold.
func (s *Stock) Reserved() int {
	reserved := 0
	for _, quantity := range s.Held {
		reserved += quantity
	}
	return reserved
}

// Available is how many pieces can still be sold.
func (s *Stock) Available() int { return s.OnHand - s.Reserved() }

// Set makes onHand the number of pieces in the warehouse; it cannot be fewer than orders hold.
func (s *Stock) Set(onHand int, at time.Time) *partner.Reason {
	if reserved := s.Reserved(); onHand < reserved {
		return &partner.Reason{Code: CodeStockReserved, Message: fmt.Sprintf("on_hand cannot be %d: orders hold %d pieces of %s.", onHand, reserved, s.ProductID)}
	}
	s.change(at, func() { s.OnHand = onHand })
	return nil
}

// Lacks says why an order cannot hold quantity pieces, or nil when it can. What the order holds already counts for it.
func (s *Stock) Lacks(order string, quantity int) *partner.Reason {
	if available := s.Available() + s.Held[order]; quantity > available {
		return &partner.Reason{Code: CodeOutOfStock, Message: fmt.Sprintf("%d of %s are wanted, %d are available.", quantity, s.ProductID, available)}
	}
	return nil
}

// Hold lets the order hold quantity pieces. It reports whether anything changed: holding again changes nothing.
func (s *Stock) Hold(order string, quantity int, at time.Time) (bool, *partner.Reason) {
	if _, held := s.Held[order]; held {
		return false, nil
	}
	if lack := s.Lacks(order, quantity); lack != nil {
		return false, lack
	}
	s.change(at, func() {
		if s.Held == nil {
			s.Held = map[string]int{}
		}
		s.Held[order] = quantity
	})
	return true, nil
}

// GiveBack ends the order's hold, if there is one, and reports whether there was.
func (s *Stock) GiveBack(order string, at time.Time) bool {
	if _, held := s.Held[order]; !held {
		return false
	}
	s.change(at, func() { delete(s.Held, order) })
	return true
}

// Ship turns the order's hold, if there is one, into shipped pieces, and reports whether there was. What can be sold
// stays the same.
func (s *Stock) Ship(order string) bool {
	quantity, held := s.Held[order]
	if !held {
		return false
	}
	delete(s.Held, order)
	s.OnHand -= quantity
	s.Shipped += quantity
	return true
}

// Unship turns quantity shipped pieces back into the order's hold, unless it holds them already, and reports whether it
// did.
func (s *Stock) Unship(order string, quantity int) bool {
	if _, held := s.Held[order]; held {
		return false
	}
	if s.Held == nil {
		s.Held = map[string]int{}
	}
	s.Held[order] = quantity
	s.OnHand += quantity
	s.Shipped -= quantity
	return true
}

func (s *Stock) change(at time.Time, apply func()) {
	previous := s.Available()
	apply()
	if current := s.Available(); current != previous || s.Last.Revision == 0 {
		s.Last = Change{Revision: s.Last.Revision + 1, Previous: previous, Current: current, At: at}
	}
}

// Quantities is how many pieces of each product an order wants.
type Quantities map[string]int

// Wanted adds up an order's lines, for a product may stand on several.
func Wanted(lines []contracts.Line) Quantities {
	q := make(Quantities, len(lines))
	for _, line := range lines {
		q[line.ProductID] += line.Quantity
	}
	return q
}

// Products lists the products in a fixed order, so that every writer takes them in the same one.
func (q Quantities) Products() []string { return slices.Sorted(maps.Keys(q)) }

// Reservation is what became of an order's claim on stock. A claim is held by the products' own Stock; the reservation
// records where it stands, so that a step that runs again, or too late, does no harm.
type Reservation struct {
	OrderID string          `json:"order_id"`
	State   State           `json:"state"`
	Lines   Quantities      `json:"lines,omitempty"`
	Refused *partner.Reason `json:"refused,omitempty"`
	// Never says that a release was asked for and no reservation before it.
	Never bool `json:"never,omitempty"`
}

// State is where a reservation stands.
type State string

const (
	// Reserved says that every line is held, or shipped by a step that has not ended.
	Reserved State = "reserved"
	// Refused says that no line is held.
	Refused State = "refused"
	// Shipped says that every line has left the warehouse.
	Shipped State = "shipped"
	// Releasing says that no more may be held and that the holds are being given back.
	Releasing State = "releasing"
	// Released says that every hold was given back.
	Released State = "released"
)

// Ended reports whether no hold may come of this reservation any more.
func (s State) Ended() bool { return s == Refused || s == Releasing || s == Released }
