package contracts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Amount is a sum of money in ten-thousandths of a currency's unit, which is exact for every currency: none has more than
// four decimal places. An Amount does not know its currency; Fits and In check and write it in one. In JSON it is a decimal
// number with two to four decimal places: 99.98, 705.00, 1.234. The number of decimal places in JSON says nothing about the
// currency.
type Amount int64

// Unit is one unit of a currency, such as one dollar.
const Unit Amount = 10_000

// amountPlaces is how many decimal places an Amount has, shownPlaces how many of them JSON always shows.
const (
	amountPlaces = 4
	shownPlaces  = 2
)

// ErrAmount says what an amount must look like; its text is safe to show to a client.
var ErrAmount = errors.New("must be a number with at most four decimal places, such as 49.99")

// MaxAmount is the largest amount that a payload can carry, above and below zero. A thousand of it fit into an int64, a
// hundred thousand do not: check a sum against MaxAmount at each step.
const MaxAmount Amount = 9_999_999_999_9999

// maxAmountDigits is how many digits MaxAmount has before its point.
const maxAmountDigits = 10

// maxFraction bounds the zeros that may follow an amount's last decimal place.
const maxFraction = 32

// ParseAmount reads a decimal number such as "49.99", "5" or "-0.5" exactly, without a float in between. It accepts JSON
// numbers, except exponents, more than four decimal places (zeros at the end do not count) and more than ten digits before
// the point; the error wraps ErrAmount.
func ParseAmount(s string) (Amount, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || len(whole) > maxAmountDigits || len(fraction) > maxFraction || point && fraction == "" ||
		len(whole) > 1 && whole[0] == '0' {
		return 0, amountError(s)
	}
	if len(fraction) > amountPlaces {
		if strings.Trim(fraction[amountPlaces:], "0") != "" {
			return 0, amountError(s)
		}
		fraction = fraction[:amountPlaces]
	}
	parsed, err := strconv.ParseUint(whole+fraction+"0000"[len(fraction):], 10, 63)
	if err != nil {
		return 0, amountError(s)
	}
	if negative {
		return -Amount(parsed), nil
	}
	return Amount(parsed), nil
}

// amountError repeats a short text only: it may be anything that a client sent.
func amountError(s string) error {
	if len(s) > 2*maxAmountDigits {
		return fmt.Errorf("amount of %d characters: %w", len(s), ErrAmount)
	}
	return fmt.Errorf("amount %q: %w", s, ErrAmount)
}

// String writes the amount as JSON has it, with two to four decimal places.
func (a Amount) String() string { return a.text(shownPlaces) }

// text writes the amount exactly, with at least the given number of decimal places.
func (a Amount) text(places int) string {
	sign, whole, part := "", a/Unit, a%Unit
	if a < 0 {
		sign, whole, part = "-", -whole, -part
	}
	fraction := fmt.Sprintf("%0*d", amountPlaces, int64(part))
	for len(fraction) > places && fraction[len(fraction)-1] == '0' {
		fraction = fraction[:len(fraction)-1]
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	return sign + strconv.FormatInt(int64(whole), 10) + fraction
}

// Float is the amount as the nearest floating-point number of units, for statistics.
func (a Amount) Float() float64 { return float64(a) / float64(Unit) }

// MarshalJSON writes the amount as a JSON number with two to four decimal places. It refuses an amount beyond MaxAmount,
// which UnmarshalJSON would refuse too.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a > MaxAmount || a < -MaxAmount {
		return nil, fmt.Errorf("amount %s: beyond %s", a, MaxAmount)
	}
	return []byte(a.String()), nil
}

// UnmarshalJSON reads a JSON number with at most four decimal places; the error wraps ErrAmount.
func (a *Amount) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	parsed, err := ParseAmount(string(b))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
