package contracts

import (
	"fmt"

	"github.com/bojanz/currency"
)

// DefaultCurrency is the ISO 4217 code of an amount whose payload names none.
const DefaultCurrency = "USD"

// CurrencyPlaces is how many decimal places amounts in a currency have: 2 in USD, 0 in JPY, 3 in KWD, 4 in CLF. It is false
// for every code that ISO 4217 does not list as current with a number of minor units: unknown and withdrawn codes, XXX, XTS,
// and the precious metals. Codes are in upper case.
func CurrencyPlaces(code string) (int, bool) {
	places, ok := currency.GetDigits(code)
	return int(places), ok && int(places) <= amountPlaces
}

// MinorUnit is the smallest amount in a currency: 0.01 in USD, 1 in JPY. It is the smallest Amount in an unknown one.
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

// Fits reports whether the amount has no more decimal places than the currency. Nothing fits an unknown currency.
func (a Amount) Fits(code string) bool {
	_, ok := CurrencyPlaces(code)
	return ok && a%MinorUnit(code) == 0
}

// In writes the amount for people, with the currency's decimal places and code: 49.99 USD, 705 JPY, 1.234 KWD. An amount
// that has more decimal places than its currency is written exactly, not rounded.
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

// PlacesRule says, for an error's text, how many decimal places an amount in a known currency may have.
func PlacesRule(code string) string {
	places, _ := CurrencyPlaces(code)
	if places == 0 {
		return fmt.Sprintf("must have no decimal places in %s, such as 4999", code)
	}
	const example Amount = 49_9900
	return fmt.Sprintf("must have at most %d decimal places in %s, such as %s", places, code, example.text(places))
}
