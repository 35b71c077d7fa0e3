// Package inventory holds the rules of stock: how many pieces of a product there are, how many of them orders hold, and how a hold
// becomes a shipment or is released. It does no I/O.
package inventory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Codes of the reasons for which a change of stock is refused.
const (
	// CodeUnknownProduct says that no stock was ever set for the product.
	CodeUnknownProduct = "unknown_product"
	// CodeOutOfStock says that fewer pieces are available than the order needs.
	CodeOutOfStock = "out_of_stock"
	// CodeStockReserved says that on_hand cannot be set below what orders hold.
	CodeStockReserved = "stock_reserved"
	// CodeInvalidOrder says that orders cannot have confirmed such an order.
	CodeInvalidOrder = "invalid_order"
	// CodeReleased says that the order's reservation was released, so nothing more is reserved for it.
	CodeReleased = "reservation_released"
)

// Unknown is the refusal for a product that does not exist.
func Unknown(product string) *partner.Reason {
	return &partner.Reason{Code: CodeUnknownProduct, Message: fmt.Sprintf("There is no product %s.", product)}
}

// Stock is one product's stock. Pieces leave OnHand when they are shipped, so only Set and Adjust change OnHand + Shipped.
//
// An order's position is its mark, if the stock has one; otherwise it follows from the order's Reservation (ADR 28). An order has a mark
// only until its reservation is known to say the same, so the document does not grow with open orders.
type Stock struct {
	ProductID string `json:"product_id"`
	OnHand    int    `json:"on_hand"`
	Shipped   int    `json:"shipped"`
	// Held is how many pieces each order with a mark holds. Under the key settled it has what all orders without a mark hold. The sum is
	// reserved, also for former releases, which mark every order.
	Held map[string]int `json:"held,omitempty"`
	// Moved marks orders that hold nothing: it is how many pieces were shipped to them, zero if the hold was released.
	Moved map[string]int `json:"moved,omitempty"`
	// Last is the latest change of the available pieces.
	Last Change `json:"last"`
	// Version counts the changes of the stock. It is zero in documents of former releases.
	Version int `json:"version,omitempty"`
	// Adjustments are those whose keys are remembered, oldest first.
	Adjustments []Adjustment `json:"adjustments,omitempty"`
}

// settled is the key in Held of all orders without a mark. Order ids hold no colon.
const settled = ":settled"

// Change is one change of the available pieces, or several that were written together. Revision counts changes.
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

// Set sets the number of pieces in the warehouse. It cannot be less than orders hold.
func (s *Stock) Set(onHand int, at time.Time) *partner.Reason {
	if reserved := s.Reserved(); onHand < reserved {
		return &partner.Reason{Code: CodeStockReserved, Message: fmt.Sprintf("on_hand cannot be %d: orders hold %d pieces of %s.", onHand, reserved, s.ProductID)}
	}
	s.change(at, func() { s.OnHand = onHand })
	return nil
}

// Lacks returns why an order cannot hold quantity pieces, nil if it can. Pieces that its mark holds count as available to it.
func (s *Stock) Lacks(order string, quantity int) *partner.Reason {
	if available := s.Available() + s.Held[order]; quantity > available {
		return &partner.Reason{Code: CodeOutOfStock, Message: fmt.Sprintf("%d pieces of %s are needed, %d are available.", quantity, s.ProductID, available)}
	}
	return nil
}

// place is where the pieces of an order are.
type place string

const (
	nowhere   place = "not held"
	inHold    place = "held"
	inParcels place = "shipped"
)

// position is where the pieces of a product are that belong to an order.
type position struct {
	place    place
	quantity int
}

// position returns the order's position, and whether a mark says so. The reservation must have been read after the stock; it is nil if
// there is none.
func (s *Stock) position(order string, r *Reservation) (p position, marked bool) {
	if quantity, ok := s.Held[order]; ok {
		return position{inHold, quantity}, true
	}
	if quantity, ok := s.Moved[order]; ok {
		return moved(quantity), true
	}
	return r.position(s.ProductID), false
}

func moved(quantity int) position {
	if quantity == 0 {
		return position{place: nowhere}
	}
	return position{inParcels, quantity}
}

// move brings the order to a position and marks it. It reports whether the order was elsewhere.
func (s *Stock) move(order string, r *Reservation, to position, at time.Time) (bool, error) {
	from, marked := s.position(order, r)
	if from.place == to.place {
		return false, nil
	}
	if from.place == inHold && !marked && s.Held[settled] < from.quantity {
		return false, fmt.Errorf("stock of %s: the reservation of %s holds %d pieces, but all orders without a mark hold only %d", s.ProductID, order, from.quantity, s.Held[settled])
	}
	s.change(at, func() {
		switch {
		case from.place == inHold && marked:
			delete(s.Held, order)
		case from.place == inHold:
			s.addSettled(-from.quantity)
		case from.place == inParcels:
			s.OnHand += from.quantity
			s.Shipped -= from.quantity
		}
		delete(s.Moved, order)
		switch {
		case to.place == inHold:
			s.Held = set(s.Held, order, to.quantity)
		case to.place == inParcels:
			s.OnHand -= to.quantity
			s.Shipped += to.quantity
			s.Moved = set(s.Moved, order, to.quantity)
		case r.position(s.ProductID).place != nowhere:
			s.Moved = set(s.Moved, order, 0)
		}
	})
	return true, nil
}

func (s *Stock) addSettled(quantity int) {
	s.Held = set(s.Held, settled, s.Held[settled]+quantity)
	if s.Held[settled] == 0 {
		delete(s.Held, settled)
	}
}

func set(m map[string]int, key string, value int) map[string]int {
	if m == nil {
		m = map[string]int{}
	}
	m[key] = value
	return m
}

// Hold lets the order hold quantity pieces. It reports whether anything changed: to hold again, or to hold shipped pieces, changes
// nothing.
func (s *Stock) Hold(order string, r *Reservation, quantity int, at time.Time) (changed bool, lack *partner.Reason, err error) {
	if at, _ := s.position(order, r); at.place != nowhere {
		return false, nil, nil
	}
	if lack := s.Lacks(order, quantity); lack != nil {
		return false, lack, nil
	}
	changed, err = s.move(order, r, position{inHold, quantity}, at)
	return changed, nil, err
}

// Release releases the order's pieces, held or shipped, and reports whether there were any.
func (s *Stock) Release(order string, r *Reservation, at time.Time) (bool, error) {
	return s.move(order, r, position{place: nowhere}, at)
}

// Ship turns the order's hold into shipped pieces, and reports whether it did. The available pieces stay the same.
func (s *Stock) Ship(order string, r *Reservation, at time.Time) (bool, error) {
	from, _ := s.position(order, r)
	if from.place == nowhere {
		return false, fmt.Errorf("stock of %s: order %s must hold pieces to be shipped, and holds none", s.ProductID, order)
	}
	return s.move(order, r, position{inParcels, from.quantity}, at)
}

// Unship turns the order's shipped pieces back into its hold, and reports whether it did.
func (s *Stock) Unship(order string, r *Reservation, at time.Time) (bool, error) {
	from, _ := s.position(order, r)
	if from.place == nowhere {
		return false, fmt.Errorf("stock of %s: order %s must have shipped pieces to be unshipped, and has none", s.ProductID, order)
	}
	return s.move(order, r, position{inHold, from.quantity}, at)
}

// Marks lists the orders that have a mark, in the order of their ids.
func (s *Stock) Marks() []string {
	marks := make([]string, 0, len(s.Held)+len(s.Moved))
	for order := range s.Held {
		if order != settled {
			marks = append(marks, order)
		}
	}
	for order := range s.Moved {
		marks = append(marks, order)
	}
	slices.Sort(marks)
	return marks
}

// Settle removes the order's mark if the reservation, which was read after the stock, says the same: the reservation does not change its
// meaning before the stock has a mark again. It releases the hold of an order whose reservation ended without it.
func (s *Stock) Settle(order string, r *Reservation, at time.Time) {
	here, marked := s.position(order, r)
	if !marked {
		return
	}
	switch says := r.position(s.ProductID); {
	case here == says:
		delete(s.Moved, order)
		if here.place == inHold {
			delete(s.Held, order)
			s.addSettled(here.quantity)
		}
	case r == nil && here.place == inParcels:
		delete(s.Moved, order) // the reservation was shipped, and has expired
	case r != nil && (r.State == Refused || r.State == Released):
		_, _ = s.move(order, r, position{place: nowhere}, at) // it has a mark, so it cannot fail
	}
}

func (s *Stock) change(at time.Time, apply func()) {
	previous := s.Available()
	apply()
	s.Version++
	if current := s.Available(); current != previous || s.Last.Revision == 0 {
		s.Last = Change{Revision: s.Last.Revision + 1, Previous: previous, Current: current, At: at}
	}
}

// Quantities is how many pieces of each product an order needs.
type Quantities map[string]int

// Wanted adds up an order's lines, because several may have the same product.
func Wanted(lines []contracts.Line) Quantities {
	q := make(Quantities, len(lines))
	for _, line := range lines {
		q[line.ProductID] += line.Quantity
	}
	return q
}

// Products lists the products in a fixed order, so that every writer changes them in the same order.
func (q Quantities) Products() []string { return slices.Sorted(maps.Keys(q)) }

// Check returns why no stock can be reserved for the order, nil if it can. A confirmed order always passes.
func Check(order string, lines Quantities) *partner.Reason {
	invalid := func(format string, values ...any) *partner.Reason {
		return &partner.Reason{Code: CodeInvalidOrder, Message: fmt.Sprintf(format, values...)}
	}
	if !isKey(order) {
		return invalid("The order id must have 1 to %d characters and no colon or vertical bar, got %q.", maxKey, order)
	}
	if len(lines) == 0 {
		return invalid("The order must have at least one line.")
	}
	for _, product := range lines.Products() {
		if quantity := lines[product]; !isKey(product) {
			return invalid("A product id must have 1 to %d characters and no colon or vertical bar, got %q.", maxKey, product)
		} else if quantity < 1 || quantity > MaxOnHand {
			return invalid("The quantity of %s must be between 1 and %d, got %d.", product, MaxOnHand, quantity)
		}
	}
	return nil
}

// maxKey is the longest id of an order or a product that can be part of a key.
const maxKey = 200

// isKey reports whether the id can be part of a document's key.
func isKey(id string) bool { return id != "" && len(id) <= maxKey && !strings.ContainsAny(id, ":|") }

// Reservation is an order's reservation of stock. It says the order's position at every product that has no mark of the order, and
// which steps are still allowed. A step that runs again, or too late, finds here that it must not.
type Reservation struct {
	OrderID string          `json:"order_id"`
	State   State           `json:"state"`
	Lines   Quantities      `json:"lines,omitempty"`
	Refused *partner.Reason `json:"refused,omitempty"`
	// Never says that a release was requested without a reservation before it.
	Never bool `json:"never,omitempty"`
	// Derives says that the position at a product without a mark follows from State. In a former release every order that held pieces
	// had a mark.
	Derives bool `json:"derives,omitempty"`
	// Was is the State before it was Unshipping or Releasing. It decides the position in the meantime.
	Was State `json:"was,omitempty"`
	// Unships counts how often the reservation became Unshipping.
	Unships int `json:"unships,omitempty"`
}

// State is the state of a reservation.
type State string

const (
	// Reserved says that every line is held, or shipped by a step that has not ended.
	Reserved State = "reserved"
	// Refused says that no line is held, or that held lines are about to be released.
	Refused State = "refused"
	// Shipped says that every line has left the warehouse.
	Shipped State = "shipped"
	// Unshipping says that shipped pieces are being returned to the hold. They may not be shipped in the meantime.
	Unshipping State = "unshipping"
	// Releasing says that nothing more may be held and that the holds are being released.
	Releasing State = "releasing"
	// Released says that every hold was released.
	Released State = "released"
)

// Ended reports whether this reservation may hold nothing any more.
func (s State) Ended() bool { return s == Refused || s == Releasing || s == Released }

// Become makes the reservation Unshipping or Releasing, and keeps the state before in Was.
func (r *Reservation) Become(next State) {
	if r.State != Unshipping && r.State != Releasing {
		r.Was = r.State
	}
	r.State = next
}

// position is the order's position at a product that has no mark of it. The reservation may be nil.
func (r *Reservation) position(product string) position {
	if r == nil || r.Lines[product] == 0 {
		return position{place: nowhere}
	}
	state := r.State
	if state == Releasing || state == Unshipping {
		state = r.Was
	}
	switch {
	case state == Shipped, state == Reserved && !r.Derives: // in a former release, shipping removed the mark
		return position{inParcels, r.Lines[product]}
	case state == Reserved:
		return position{inHold, r.Lines[product]}
	default:
		return position{place: nowhere}
	}
}
