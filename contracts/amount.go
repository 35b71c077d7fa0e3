package contracts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Amount is an amount of money in ten-thousandths of a currency unit. That is exact for every currency, because none has more than
// four decimal places. An Amount does not know its currency; Fits checks it and In writes it in a currency. In JSON it is a decimal
// number with two to four decimal places: 99.98, 705.00, 1.234. The number of decimal places in JSON does not depend on the currency.
type Amount int64

// Unit is one unit of a currency, such as one dollar.
const Unit Amount = 10_000

// amountPlaces is the number of decimal places of an Amount. JSON always shows at least shownPlaces of them.
const (
	amountPlaces = 4
	shownPlaces  = 2
)

// ErrAmount says what an amount must look like. Its text is safe for clients.
var ErrAmount = errors.New("must be a number with at most four decimal places, such as 49.99")

// MaxAmount is the largest absolute amount in a payload. A sum of many such amounts overflows an int64, so check a sum against
// MaxAmount at each step.
const MaxAmount Amount = 9_999_999_999_9999

// maxAmountDigits is the number of digits of MaxAmount before the decimal point.
const maxAmountDigits = 10

// maxFraction limits the digits after the decimal point, with trailing zeros.
const maxFraction = 32

// ParseAmount parses a decimal number such as "49.99", "5" or "-0.5" exactly, without a float. It accepts JSON numbers without an
// exponent, with at most four decimal places (without trailing zeros) and at most ten digits before the decimal point. The error
// wraps ErrAmount.
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

// amountError repeats the text only if it is short, because it may come from a client.
func amountError(s string) error {
	if len(s) > 2*maxAmountDigits {
		return fmt.Errorf("amount of %d characters: %w", len(s), ErrAmount)
	}
	return fmt.Errorf("amount %q: %w", s, ErrAmount)
}

// String returns the amount as in JSON, with two to four decimal places.
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

// Float returns the amount as the nearest floating-point number of currency units, for statistics.
func (a Amount) Float() float64 { return float64(a) / float64(Unit) }

// MarshalJSON writes the amount as a JSON number with two to four decimal places. It returns an error for an amount beyond MaxAmount,
// which UnmarshalJSON would reject.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a > MaxAmount || a < -MaxAmount {
		return nil, fmt.Errorf("amount %s: beyond %s", a, MaxAmount)
	}
	return []byte(a.String()), nil
}

// UnmarshalJSON reads a JSON number with at most four decimal places. The error wraps ErrAmount.
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
