package api

import (
	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/jsonscan"
	"waybill/services/orders/internal/order"
)

// newOrder is an order as a client or another system writes it. The schema finds wrong types and unknown fields and tells
// people the rules; whether an order is valid is for the domain alone to say, so that the bus is held to the same.
type newOrder struct {
	OrderID      string     `json:"order_id,omitempty" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"ord-1001" doc:"The client's own id for the order; made up when left out."`
	CustomerID   string     `json:"customer_id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"CUST-123"`
	Items        []newLine  `json:"items" minItems:"1" maxItems:"100" nullable:"false" doc:"What is ordered. A product may stand on several lines."`
	TotalAmount  amount     `json:"total_amount" doc:"Must equal the sum of quantity times price over all items."`
	Currency     string     `json:"currency,omitempty" pattern:"^[A-Z]{3}$" patternDescription:"an ISO 4217 code of three upper-case letters" default:"USD" doc:"A current ISO 4217 code with minor units, in upper case. It decides how many decimal places amounts may have: 2 in USD, 0 in JPY, 3 in KWD."`
	ShipTo       newAddress `json:"shipping_address"`
	PaymentToken string     `json:"payment_token,omitempty" maxLength:"255" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" doc:"Stands for the customer's means of payment at the payment provider. It is never shown again."`
}

type newLine struct {
	ProductID string   `json:"product_id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"PROD-001"`
	Name      string   `json:"name,omitempty" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters"`
	Quantity  quantity `json:"quantity"`
	Price     amount   `json:"price" doc:"The price of one piece."`
}

type newAddress struct {
	Street  string `json:"street" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"123 Main St"`
	City    string `json:"city" minLength:"1" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"Seattle"`
	State   string `json:"state,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" example:"WA"`
	Zip     string `json:"zip" minLength:"1" maxLength:"20" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"98101"`
	Country string `json:"country,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" example:"US"`
}

// amount and quantity keep a number as it was written; the domain reads it.
type (
	amount   order.Number
	quantity order.Number
)

// UnmarshalJSON takes any JSON value, a number without its exponent, and null as one that was left out.
func (a *amount) UnmarshalJSON(b []byte) error { *a = amount(written(b)); return nil }

// UnmarshalJSON takes any JSON value, a number without its exponent, and null as one that was left out.
func (q *quantity) UnmarshalJSON(b []byte) error { *q = quantity(written(b)); return nil }

func written(b []byte) order.Number {
	if string(b) == "null" {
		return ""
	}
	return order.Number(jsonscan.NormalizeNumber(string(b)))
}

// Schema describes an amount of money.
func (amount) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeNumber, Minimum: new(float64), Examples: []any{49.99},
		Description: "A decimal number with at most as many decimal places as the currency has.",
	}
}

// Schema describes a number of pieces.
func (quantity) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Minimum: new(float64(1)), Maximum: new(float64(order.MaxQuantity)), Examples: []any{2}}
}

func (n newOrder) draft() order.Draft {
	d := order.Draft{
		ID: n.OrderID, CustomerID: n.CustomerID, Total: order.Number(n.TotalAmount), Currency: n.Currency,
		ShipTo: contracts.Address(n.ShipTo), PaymentToken: n.PaymentToken, Lines: make([]order.DraftLine, len(n.Items)),
	}
	for i, line := range n.Items {
		d.Lines[i] = order.DraftLine{ProductID: line.ProductID, Name: line.Name, Quantity: order.Number(line.Quantity), Price: order.Number(line.Price)}
	}
	return d
}
