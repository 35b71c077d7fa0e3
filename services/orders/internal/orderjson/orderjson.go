// Package orderjson is the JSON form in which clients and other systems write an order. REST and the bus share it. It reads
// the form and checks nothing: package order decides whether an order is valid.
package orderjson

import (
	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/jsonscan"
	"waybill/services/orders/internal/order"
)

// NewOrder is a new order. Its schema is for REST: it finds wrong types and unknown fields, and tells people the rules.
type NewOrder struct {
	OrderID      string     `json:"order_id,omitempty" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"ord-1001" doc:"The client's own id for the order. Without it the service generates one."`
	CustomerID   string     `json:"customer_id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"CUST-123"`
	Items        []NewLine  `json:"items" minItems:"1" maxItems:"100" nullable:"false" doc:"What is ordered. Several lines may name the same product."`
	TotalAmount  Amount     `json:"total_amount" doc:"Must equal the sum of quantity times price over all items."`
	Currency     string     `json:"currency,omitempty" pattern:"^[A-Z]{3}$" patternDescription:"an ISO 4217 code of three upper-case letters" default:"USD" doc:"A current ISO 4217 code with minor units, in upper case. It sets how many decimal places amounts may have: 2 in USD, 0 in JPY, 3 in KWD."`
	ShipTo       NewAddress `json:"shipping_address"`
	PaymentToken string     `json:"payment_token,omitempty" maxLength:"255" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" doc:"Identifies the customer's means of payment at the payment provider. No API returns it."`
}

// NewLine is one line of a NewOrder.
type NewLine struct {
	ProductID string   `json:"product_id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"PROD-001"`
	Name      string   `json:"name,omitempty" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters"`
	Quantity  Quantity `json:"quantity"`
	Price     Amount   `json:"price" doc:"The price of one piece."`
}

// NewAddress is where a NewOrder is shipped to.
type NewAddress struct {
	Street  string `json:"street" minLength:"1" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"123 Main St"`
	City    string `json:"city" minLength:"1" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"Seattle"`
	State   string `json:"state,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" example:"WA"`
	Zip     string `json:"zip" minLength:"1" maxLength:"20" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters, and not blank" example:"98101"`
	Country string `json:"country,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" example:"US"`
}

type (
	// Amount is an amount of money as it was written. Package order parses it.
	Amount order.Number
	// Quantity is a number of pieces as it was written. Package order parses it.
	Quantity order.Number
)

// UnmarshalJSON accepts any JSON value. It writes a number without its exponent. Null is the same as a missing value.
func (a *Amount) UnmarshalJSON(b []byte) error { *a = Amount(written(b)); return nil }

// UnmarshalJSON accepts any JSON value. It writes a number without its exponent. Null is the same as a missing value.
func (q *Quantity) UnmarshalJSON(b []byte) error { *q = Quantity(written(b)); return nil }

func written(b []byte) order.Number {
	if string(b) == "null" {
		return ""
	}
	return order.Number(jsonscan.NormalizeNumber(string(b)))
}

// Schema describes an amount of money.
func (Amount) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeNumber, Minimum: new(float64), Examples: []any{49.99},
		Description: "A decimal number with at most as many decimal places as the currency has.",
	}
}

// Schema describes a number of pieces.
func (Quantity) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Minimum: new(float64(1)), Maximum: new(float64(order.MaxQuantity)), Examples: []any{2}}
}

// Draft returns the order for package order to check.
func (n NewOrder) Draft() order.Draft {
	d := order.Draft{
		ID: n.OrderID, CustomerID: n.CustomerID, Total: order.Number(n.TotalAmount), Currency: n.Currency,
		ShipTo: contracts.Address(n.ShipTo), PaymentToken: n.PaymentToken, Lines: make([]order.DraftLine, len(n.Items)),
	}
	for i, line := range n.Items {
		d.Lines[i] = order.DraftLine{ProductID: line.ProductID, Name: line.Name, Quantity: order.Number(line.Quantity), Price: order.Number(line.Price)}
	}
	return d
}
