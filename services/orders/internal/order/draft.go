package order

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"waybill/contracts"
)

// Number is the text of a JSON number as its sender wrote it. A float could change it before it is checked. It is empty if the
// field is missing.
type Number string

// Draft is an order as it was requested. Nothing in it is checked.
type Draft struct {
	ID           string
	CustomerID   string
	Lines        []DraftLine
	Total        Number
	Currency     string
	ShipTo       contracts.Address
	PaymentToken string
}

// DraftLine is one unchecked line of a Draft.
type DraftLine struct {
	ProductID string
	Name      string
	Quantity  Number
	Price     Number
}

// The limits of an order. The REST schema repeats them, and a test compares the two.
const (
	MaxLines    = 100
	MaxQuantity = 1000
	IDPattern   = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`

	maxName    = 200
	maxStreet  = 200
	maxPlace   = 100
	maxZip     = 20
	maxPayment = 255
)

var idPattern = regexp.MustCompile(IDPattern)

// ID is the id of an order. It matches IDPattern.
type ID string

// ParseID checks an order id from outside.
func ParseID(s string) (ID, error) {
	var f faults
	f.id("order_id", s)
	return ID(s), f.err()
}

// New makes a received order from a draft. The customer placed it at the time created. The error is an *Error of kind Invalid
// that lists every fault of the draft under its JSON path. It contains no values, so it can be logged.
func New(d Draft, created time.Time) (*Order, error) {
	var f faults
	content := contracts.Order{
		OrderID: d.ID, CustomerID: d.CustomerID, Currency: d.Currency, ShipTo: d.ShipTo, PaymentToken: d.PaymentToken,
	}
	f.id("order_id", d.ID)
	f.id("customer_id", d.CustomerID)
	if content.Currency == "" {
		content.Currency = contracts.DefaultCurrency
	}
	currency := content.Currency
	if _, known := contracts.CurrencyPlaces(currency); !known {
		f.add("currency", "must be a current ISO 4217 currency with minor units, in upper case, such as USD, JPY or KWD")
		currency = "" // then amounts are checked as numbers only
	}
	content.Items = f.lines(d.Lines, currency)
	content.TotalAmount = f.total(d.Total, content.Items, currency)
	f.text("shipping_address.street", d.ShipTo.Street, maxStreet, required)
	f.text("shipping_address.city", d.ShipTo.City, maxPlace, required)
	f.text("shipping_address.state", d.ShipTo.State, maxPlace, optional)
	f.text("shipping_address.zip", d.ShipTo.Zip, maxZip, required)
	f.text("shipping_address.country", d.ShipTo.Country, maxPlace, optional)
	f.text("payment_token", d.PaymentToken, maxPayment, optional)
	if err := f.err(); err != nil {
		return nil, err
	}
	created = created.UTC()
	return &Order{Snapshot{Content: content, Status: Received, CreatedAt: created, UpdatedAt: created}}, nil
}

// faults collects the faults of a draft.
type faults []Fault

func (f *faults) add(path, expectation string) { *f = append(*f, Fault{path, expectation}) }

func (f *faults) err() error {
	if len(*f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: "invalid_order", Text: "The order is not valid.", Faults: *f}
}

func (f *faults) id(path, value string) {
	switch {
	case value == "":
		f.add(path, "is required")
	case !idPattern.MatchString(value):
		f.add(path, "must be 1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit")
	}
}

const (
	required = true
	optional = false
)

func (f *faults) text(path, value string, most int, required bool) {
	switch {
	case required && strings.TrimSpace(value) == "":
		f.add(path, "is required")
	case utf8.RuneCountInString(value) > most:
		f.add(path, fmt.Sprintf("must be at most %d characters long", most))
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		f.add(path, "must not hold control characters")
	}
}

// lines checks the lines. If there are too many, that is the only fault. It returns nil if there is a fault.
func (f *faults) lines(drafts []DraftLine, currency string) []contracts.Line {
	if len(drafts) == 0 || len(drafts) > MaxLines {
		f.add("items", fmt.Sprintf("must hold 1 to %d lines", MaxLines))
		return nil
	}
	before := len(*f)
	lines := make([]contracts.Line, len(drafts))
	for i, d := range drafts {
		path := fmt.Sprintf("items[%d].", i)
		f.id(path+"product_id", d.ProductID)
		f.text(path+"name", d.Name, maxName, optional)
		lines[i] = contracts.Line{
			ProductID: d.ProductID, Name: d.Name,
			Quantity: f.quantity(path+"quantity", d.Quantity), Price: f.amount(path+"price", d.Price, currency),
		}
	}
	if len(*f) > before {
		return nil
	}
	return lines
}

func (f *faults) quantity(path string, n Number) int {
	if n == "" {
		f.add(path, "is required")
		return 0
	}
	quantity, err := strconv.Atoi(string(n))
	if err != nil || quantity < 1 || quantity > MaxQuantity {
		f.add(path, fmt.Sprintf("must be a whole number from 1 to %d", MaxQuantity))
	}
	return quantity
}

// amount checks an amount of money. The currency is empty if it is not valid.
func (f *faults) amount(path string, n Number, currency string) contracts.Amount {
	if n == "" {
		f.add(path, "is required")
		return 0
	}
	amount, err := contracts.ParseAmount(string(n))
	switch {
	case err != nil || amount < 0:
		f.add(path, "must be a number from 0 to "+contracts.MaxAmount.String()+" with at most as many decimal places as the currency has, such as 49.99 USD")
	case currency != "" && !amount.Fits(currency):
		f.add(path, contracts.PlacesRule(currency))
	}
	return amount
}

// total checks the total, and compares it with the lines if they are valid.
func (f *faults) total(n Number, lines []contracts.Line, currency string) contracts.Amount {
	before := len(*f)
	total := f.amount("total_amount", n, currency)
	if lines == nil || len(*f) > before {
		return total
	}
	var sum contracts.Amount
	for _, line := range lines {
		sum += line.Price * contracts.Amount(line.Quantity) // MaxAmount times MaxQuantity fits
		if sum > contracts.MaxAmount {
			f.add("total_amount", "must be at most "+contracts.MaxAmount.String()+", and the sum of quantity times price over all items is more")
			return total
		}
	}
	if total != sum {
		f.add("total_amount", "must equal the sum of quantity times price over all items, which is "+sum.In(currency))
	}
	return total
}
