// Package event is what analytics counts: one thing that somebody or some algorithm did, checked. It owns what makes such
// an event valid and how it is read from JSON. It does no I/O and knows neither clock nor randomness.
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
	// Viewed is a look at a product.
	Viewed Type = iota + 1
	// Purchased is the purchase of a product.
	Purchased
	// Recommended is one run of an algorithm that recommends products.
	Recommended
)

// String is the name that the contract gives to the type.
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

// ID names the fact among those of the event's source.
func (e *Event) ID() string { return e.id }

// Source is who names the fact.
func (e *Event) Source() string { return e.source }

// Key identifies the event: it stands for the pair of source and id, and no other pair has the same one.
func (e *Event) Key() string { return e.key }

// Type says what happened.
func (e *Event) Type() Type { return e.kind }

// At is when it happened, in UTC.
func (e *Event) At() time.Time { return e.at }

// User is who did it, empty when unknown.
func (e *Event) User() string { return e.user }

// Session is the visit during which it was done, empty when unknown.
func (e *Event) Session() string { return e.session }

// Product is what was viewed or purchased; a recommendation may have none.
func (e *Event) Product() string { return e.product }

// Algorithm made the recommendation; empty for the other types.
func (e *Event) Algorithm() string { return e.algorithm }

// Value is what was paid for a purchase; a view may have a value too, which is kept and not counted. It is never negative.
func (e *Event) Value() contracts.Amount { return e.value }

// Currency is that of Value, an ISO 4217 code.
func (e *Event) Currency() string { return e.currency }

// Properties is the JSON object that came with the event, as it was written; empty when none came.
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

// Payload is the event as it stands on the bus. Decoding its JSON gives the same event again.
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

// Purchases makes one purchase of each line of an order that was fulfilled. Their ids follow from the order and the place
// of the line in it, so that an order told twice gives the same events. The error is an *Error.
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
