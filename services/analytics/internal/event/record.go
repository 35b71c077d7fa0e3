package event

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/jsonscan"
)

// Record is an event as the columns of the store's table.
type Record struct {
	// ID is the event's key.
	ID, Type, User, Session, Product string
	At                               time.Time
	// Value is an amount of money, 49.99, in the currency that is added up; 0 for a purchase in another currency, whose amount is
	// in the properties, so no sum mixes currencies.
	Value float64
	// Properties is a JSON object, empty if there is none: what the client sent, and in the member own what has no column.
	Properties string
}

// own is the name of the member of a stored event's properties that keeps what has no column. A client's member of this name is
// kept inside it, so clients may use every name and every value.
const own = "waybill"

// beside is the part of an event that has no column.
type beside struct {
	// Value is the amount of a purchase in a currency that is not added up.
	Value     json.RawMessage `json:"value,omitempty"`
	Currency  string          `json:"currency,omitempty"`
	Quantity  int             `json:"quantity,omitempty"`
	OrderID   string          `json:"order_id,omitempty"`
	Algorithm string          `json:"algorithm,omitempty"`
	Scores    []float64       `json:"confidence_scores,omitempty"`
	// Theirs is the client's own property with this name.
	Theirs json.RawMessage `json:"waybill,omitempty"`
}

func (b *beside) empty() bool {
	return len(b.Value) == 0 && b.Currency == "" && b.Quantity == 0 && b.OrderID == "" && b.Algorithm == "" && len(b.Scores) == 0 && len(b.Theirs) == 0
}

// Record is the event in its stored form, for a service that adds up amounts in currency. FromRecord gives the same event.
func (e *Event) Record(currency string) Record {
	r := Record{
		ID: e.key, Type: e.kind.String(), User: e.user, Session: e.session, Product: e.product, At: e.at,
		Value: e.value.Float(), Properties: e.properties,
	}
	properties, theirs := without(e.properties, own)
	rest := beside{Quantity: e.quantity, OrderID: e.order, Algorithm: e.algorithm, Scores: e.scores, Theirs: json.RawMessage(theirs)}
	if e.currency != contracts.DefaultCurrency {
		rest.Currency = e.currency
	}
	if e.kind == Purchased && e.currency != currency {
		r.Value, rest.Value = 0, json.RawMessage(e.value.String())
	}
	if rest.empty() {
		return r
	}
	text, err := json.Marshal(rest)
	if err != nil {
		return r // texts and finite numbers always encode
	}
	r.Properties = with(properties, own, string(text))
	return r
}

// FromRecord reads a stored event. It was checked before it was stored, so newer rules do not apply. The error is an *Error; it
// means that the row does not hold an event.
func FromRecord(r Record) (Event, error) {
	e := Event{
		key: r.ID, kind: typeOf(r.Type), user: r.User, session: r.Session, product: r.Product, at: r.At.UTC(),
		currency: contracts.DefaultCurrency, value: contracts.Amount(math.Round(r.Value * float64(contracts.Unit))),
	}
	if e.kind == 0 {
		return Event{}, refusal(Fault{fieldType.String(), expectedTypes})
	}
	e.source, e.id = pairOf(r.ID, e.kind)
	rest, properties := besideOf(r.Properties)
	if len(rest.Value) > 0 {
		value, err := contracts.ParseAmount(string(rest.Value))
		if err != nil {
			return Event{}, refusal(Fault{"properties." + own + ".value", "must be what was stored"})
		}
		e.value = value
	}
	if rest.Currency != "" {
		e.currency = rest.Currency
	}
	e.quantity, e.order, e.algorithm, e.scores = rest.Quantity, rest.OrderID, rest.Algorithm, rest.Scores
	e.properties = properties
	return e, nil
}

// besideOf separates what is kept without a column from what the client sent. Anything that Record would not write is the
// client's: another version or another program may have stored it.
func besideOf(stored string) (rest beside, properties string) {
	properties = stored
	if object, text := without(stored, own); strings.HasPrefix(text, "{") {
		var kept beside
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if decoder.Decode(&kept) == nil {
			rest, properties = kept, object
			if len(kept.Theirs) > 0 {
				properties = with(object, own, string(kept.Theirs))
			}
		}
	}
	if trimmed := strings.TrimSpace(properties); !strings.HasPrefix(trimmed, "{") || strings.TrimSpace(trimmed[1:]) == "}" {
		return rest, ""
	}
	return rest, properties
}

// with is the object with one more member.
func with(object, name, value string) string {
	member := `"` + name + `":` + value + "}"
	inside := strings.TrimSpace(object)
	if inside = strings.TrimSpace(strings.TrimPrefix(inside, "{")); inside == "" || inside == "}" {
		return "{" + member
	}
	return strings.TrimSuffix(strings.TrimSpace(object), "}") + "," + member
}

// without is the object without the members of a name, and the value of the last of them; empty if there is none. Only names of
// the object itself count: the same text deeper in it or in a value belongs to the client.
func without(object, name string) (rest, value string) {
	// Most have none, and then there is nothing to take apart. An escaped name has a backslash.
	if !strings.Contains(object, name) && !strings.Contains(object, `\`) {
		return object, ""
	}
	pos, ok := jsonscan.SkipByte(object, jsonscan.SkipSpace(object, 0), '{')
	if !ok {
		return object, ""
	}
	var kept strings.Builder
	for more := true; more; {
		start := jsonscan.SkipSpace(object, pos)
		written, at, marks, ok := jsonscan.MemberName(object, start)
		if !ok {
			return object, "" // an empty object, or none
		}
		if pos, _, ok = jsonscan.SkipValue(object, at); !ok {
			return object, ""
		}
		if jsonscan.Unquote(written, marks) == name {
			value = object[at:pos]
		} else {
			kept.WriteString([]string{"{", ","}[min(kept.Len(), 1)])
			kept.WriteString(object[start:pos])
		}
		if pos, more, ok = jsonscan.Next(object, pos, '}'); !ok {
			return object, ""
		}
	}
	if value == "" {
		return object, ""
	}
	if kept.Len() == 0 {
		return "", value
	}
	return kept.String() + "}", value
}
