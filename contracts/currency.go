package contracts

import (
	"fmt"

	"github.com/bojanz/currency"
)

// DefaultCurrency is the ISO 4217 code of amounts in a payload without a currency.
const DefaultCurrency = "USD"

// CurrencyPlaces returns the number of decimal places of a currency: 2 for USD, 0 for JPY, 3 for KWD, 4 for CLF. It returns false for
// codes that ISO 4217 does not list as current with minor units: unknown and withdrawn codes, XXX, XTS and precious metals. Codes
// are in upper case.
func CurrencyPlaces(code string) (int, bool) {
	places, ok := currency.GetDigits(code)
	return int(places), ok && int(places) <= amountPlaces
}

// MinorUnit returns the smallest amount of a currency: 0.01 for USD, 1 for JPY. For an unknown currency it is the smallest Amount.
func MinorUnit(code string) Amount {
	places, ok := CurrencyPlaces(code)
	if !ok {
		return 1
	}
	unit := Unit
	for range places {
		unit /= 10
	}
	return unit
}

// Fits reports whether the amount has no more decimal places than the currency. It is false for an unknown currency.
func (a Amount) Fits(code string) bool {
	_, ok := CurrencyPlaces(code)
	return ok && a%MinorUnit(code) == 0
}

// In returns the amount for people, with the currency's decimal places and code: 49.99 USD, 705 JPY, 1.234 KWD. It does not round an
// amount with more decimal places than the currency.
func (a Amount) In(code string) string {
	places, ok := CurrencyPlaces(code)
	if !ok {
		places = shownPlaces
	}
	if code == "" {
		return a.text(places)
	}
	return a.text(places) + " " + code
}

// PlacesRule returns an error text that says how many decimal places an amount in a known currency may have.
func PlacesRule(code string) string {
	places, _ := CurrencyPlaces(code)
	if places == 0 {
		return fmt.Sprintf("must have no decimal places in %s, such as 4999", code)
	}
	const example Amount = 49_9900
	return fmt.Sprintf("must have at most %d decimal places in %s, such as %s", places, code, example.text(places))
}
