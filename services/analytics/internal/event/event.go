// Package event has the valid events that analytics counts: one action of a user or an algorithm. It owns the rules for a valid
// event and how an event is read from JSON. It does no I/O and uses neither clock nor randomness.
package event

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waybill/contracts"
)

// Type says what happened.
type Type uint8

// The types of events.
const (
	// Viewed is the view of a product.
	Viewed Type = iota + 1
	// Purchased is the purchase of a product.
	Purchased
	// Recommended is one run of an algorithm that recommends products.
	Recommended
)

// String is the name of the type in the contract.
func (t Type) String() string {
	switch t {
	case Viewed:
		return contracts.TypeProductViewed
	case Purchased:
		return contracts.TypeProductPurchased
	case Recommended:
		return contracts.TypeRecommendationGenerated
	default:
		return "unknown"
	}
}

// typeOf reads a type's name or alias; it is 0 for any other name.
func typeOf(name string) Type {
	switch name {
	case contracts.TypeProductViewed, contracts.AliasProductViewed:
		return Viewed
	case contracts.TypeProductPurchased:
		return Purchased
	case contracts.TypeRecommendationGenerated:
		return Recommended
	default:
		return 0
	}
}

// Event is one valid event. Only Decode, Purchases and FromRecord make it.
type Event struct {
	key, id, source, user, session, product, algorithm, currency, order, properties string

	at       time.Time
	value    contracts.Amount
	scores   []float64
	quantity int
	kind     Type
}

// ID identifies the event among those of its source.
func (e *Event) ID() string { return e.id }

// Source is the source of the event.
func (e *Event) Source() string { return e.source }

// Key identifies the event by its source and id; no other pair has the same key.
func (e *Event) Key() string { return e.key }

// Type says what happened.
func (e *Event) Type() Type { return e.kind }

// At is when it happened, in UTC.
func (e *Event) At() time.Time { return e.at }

// User is the user, empty if unknown.
func (e *Event) User() string { return e.user }

// Session is the session of the user, empty if unknown.
func (e *Event) Session() string { return e.session }

// Product is what was viewed or purchased; a recommendation may have none.
func (e *Event) Product() string { return e.product }

// Algorithm made the recommendation; empty for the other types.
func (e *Event) Algorithm() string { return e.algorithm }

// Value is the amount paid for a purchase. A view may have a value too, which is stored and not counted. It is never negative.
func (e *Event) Value() contracts.Amount { return e.value }

// Currency is the currency of Value, an ISO 4217 code.
func (e *Event) Currency() string { return e.currency }

// Properties is the JSON object that came with the event, unchanged; empty if there was none.
func (e *Event) Properties() string { return e.properties }

// Confidence is the mean of a recommendation's confidence scores, from 0 to 1; ok is false when it has none.
func (e *Event) Confidence() (mean float64, ok bool) {
	if len(e.scores) == 0 {
		return 0, false
	}
	var sum float64
	for _, score := range e.scores {
		sum += score
	}
	return sum / float64(len(e.scores)), true
}

// Payload is the event in its form on the bus. Decoding its JSON gives the same event.
func (e *Event) Payload() contracts.Payload {
	properties := e.propertyMap()
	switch e.kind {
	case Purchased:
		return contracts.ProductPurchased{
			EventID: e.id, UserID: e.user, SessionID: e.session, ProductID: e.product, Value: e.value, Currency: e.currency,
			Quantity: e.quantity, OrderID: e.order, Timestamp: e.at, Properties: properties,
		}
	case Recommended:
		scores := e.scores
		if scores == nil {
			scores = []float64{}
		}
		return contracts.RecommendationGenerated{
			EventID: e.id, UserID: e.user, SessionID: e.session, ProductID: e.product, Algorithm: e.algorithm,
			ConfidenceScores: scores, Timestamp: e.at, Properties: properties,
		}
	default:
		return contracts.ProductViewed{
			EventID: e.id, UserID: e.user, SessionID: e.session, ProductID: e.product, Value: e.value, Timestamp: e.at,
			Properties: properties,
		}
	}
}

func (e *Event) propertyMap() map[string]any {
	if e.properties == "" {
		return nil
	}
	// Numbers keep the digits with which they came.
	decoder := json.NewDecoder(strings.NewReader(e.properties))
	decoder.UseNumber()
	var properties map[string]any
	if decoder.Decode(&properties) != nil || len(properties) == 0 {
		return nil // Decode checked that it is an object; an empty one stands on the bus as none
	}
	return properties
}

// Purchases makes one purchase of each line of a fulfilled order. Their ids are derived from the order and the position of the
// line, so a repeated order gives the same events. The error is an *Error.
func Purchases(o contracts.OrderFulfilled) ([]Event, error) {
	purchases := make([]Event, 0, len(o.Items))
	var faults []Fault
	for i, line := range o.Items {
		e := Event{
			id: fmt.Sprintf("%s%s:%d", orderPrefix, o.OrderID, i+1), source: SourceOrders, kind: Purchased, user: o.CustomerID, product: line.ProductID, order: o.OrderID,
			value: line.Price * contracts.Amount(line.Quantity), currency: o.Currency, quantity: line.Quantity, at: o.FulfilledAt.UTC(),
		}
		if e.currency == "" {
			e.currency = contracts.DefaultCurrency
		}
		e.key = keyOf(e.source, e.id)
		path := "items[" + strconv.Itoa(i) + "]."
		if problem := idProblem(line.ProductID); problem != "" {
			faults = append(faults, Fault{path + "product_id", problem})
		}
		// The bounds are checked on the factors: their product might not fit.
		if line.Quantity < 1 || line.Price < 0 || line.Price > contracts.MaxAmount/contracts.Amount(line.Quantity) {
			faults = append(faults, Fault{path + "price", "times quantity must be an amount of money"})
		}
		purchases = append(purchases, e)
	}
	if problem := idProblem(o.OrderID); problem != "" {
		faults = append(faults, Fault{"order_id", problem})
	}
	if o.FulfilledAt.Before(earliest) || !o.FulfilledAt.Before(latest) {
		faults = append(faults, Fault{"fulfilled_at", "must be a time in the years 2000 to 2100"})
	}
	if len(faults) > 0 {
		return nil, &Error{Code: CodeInvalid, Text: "The order's purchases cannot be counted.", Faults: faults}
	}
	return purchases, nil
}
