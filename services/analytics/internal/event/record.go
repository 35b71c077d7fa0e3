package event

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"waybill/contracts"
)

// Record is an event as the columns of the store's table have it.
type Record struct {
	ID, Type, User, Session, Product string
	At                               time.Time
	// Value is an amount of money, 49.99, in the currency that the shop adds up; 0 of a purchase in another one, whose amount
	// stands among the properties, so that no sum mixes currencies.
	Value float64
	// Properties is a JSON object, empty for none: what the client sent, and under the name waybill what has no column.
	Properties string
}

// reserved is the property that keeps what has no column.
const reserved = "waybill"

// beside is what of an event has no column.
type beside struct {
	// Value is that of a purchase in another currency than the one that is added up.
	Value     json.RawMessage `json:"value,omitempty"`
	Currency  string          `json:"currency,omitempty"`
	Quantity  int             `json:"quantity,omitempty"`
	OrderID   string          `json:"order_id,omitempty"`
	Algorithm string          `json:"algorithm,omitempty"`
	Scores    []float64       `json:"confidence_scores,omitempty"`
}

// Record is the event as it is stored where amounts in a currency are added up. FromRecord gives the same event again.
func (e *Event) Record(currency string) Record {
	r := Record{
		ID: e.id, Type: e.kind.String(), User: e.user, Session: e.session, Product: e.product, At: e.at,
		Value: float64(e.value) / 100, Properties: e.properties,
	}
	rest := beside{Quantity: e.quantity, OrderID: e.order, Algorithm: e.algorithm, Scores: e.scores}
	if e.currency != contracts.DefaultCurrency {
		rest.Currency = e.currency
	}
	if e.kind == Purchased && e.currency != currency {
		r.Value, rest.Value = 0, json.RawMessage(e.value.String())
	}
	if len(rest.Value) == 0 && rest.Currency == "" && rest.Quantity == 0 && rest.OrderID == "" && rest.Algorithm == "" && len(rest.Scores) == 0 {
		return r
	}
	text, err := json.Marshal(rest)
	if err != nil {
		return r // texts and finite numbers always encode
	}
	own := `"` + reserved + `":` + string(text) + "}"
	if inside := strings.TrimSpace(strings.TrimPrefix(e.properties, "{")); inside == "" || inside == "}" {
		r.Properties = "{" + own
	} else {
		r.Properties = strings.TrimSuffix(e.properties, "}") + "," + own
	}
	return r
}

// FromRecord reads an event that was stored. The error is an *Error; it says that no event was stored there.
func FromRecord(r Record) (Event, error) {
	text := struct {
		beside

		ID         string          `json:"event_id"`
		Type       string          `json:"event_type"`
		User       string          `json:"user_id"`
		Session    string          `json:"session_id"`
		Product    string          `json:"product_id"`
		Value      json.RawMessage `json:"value"`
		At         time.Time       `json:"timestamp"`
		Scores     []float64       `json:"confidence_scores"`
		Properties json.RawMessage `json:"properties,omitempty"`
	}{ID: r.ID, Type: r.Type, User: r.User, Session: r.Session, Product: r.Product, At: r.At, Scores: []float64{}}
	text.Value = json.RawMessage(contracts.Amount(math.Round(r.Value * 100)).String())
	if r.Properties != "" && r.Properties != "{}" {
		text.Properties = json.RawMessage(r.Properties)
	}
	if strings.Contains(r.Properties, `"`+reserved+`"`) {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(text.Properties, &members); err != nil {
			return Event{}, refusal(Fault{"properties", "must be an object"})
		}
		if err := json.Unmarshal(members[reserved], &text.beside); err != nil {
			return Event{}, refusal(Fault{"properties." + reserved, "must be what was stored"})
		}
		delete(members, reserved)
		text.Properties = nil
		if len(members) > 0 {
			own, err := json.Marshal(members)
			if err != nil {
				return Event{}, refusal(Fault{"properties", "must be an object"})
			}
			text.Properties = own
		}
	}
	if len(text.beside.Value) > 0 {
		text.Value = text.beside.Value
	}
	if text.beside.Scores != nil {
		text.Scores = text.beside.Scores
	}
	data, err := json.Marshal(text)
	if err != nil {
		return Event{}, refusal(Fault{"properties", "must be an object"})
	}
	return Decode(data, Rules{})
}

// takesReserved says whether a client's properties use the name that is kept for the store.
func takesReserved(properties string) bool {
	if !strings.Contains(properties, reserved) {
		return false
	}
	var members map[string]json.RawMessage
	return json.Unmarshal([]byte(properties), &members) == nil && members[reserved] != nil
}
