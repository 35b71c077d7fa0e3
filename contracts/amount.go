package contracts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// DefaultCurrency is the ISO 4217 code of an amount whose payload names none.
const DefaultCurrency = "USD"

// Amount is a sum of money in minor units (cents). In JSON it is a number with two decimal places, 99.98.
type Amount int64

// ErrAmount says what an amount must look like; its text is safe to show to a client.
var ErrAmount = errors.New("must be a number with at most two decimal places, such as 49.99")

// MaxAmount is the largest amount that a payload can carry, above and below zero. It keeps every sum of a hundred amounts
// times a thousand inside an int64.
const MaxAmount Amount = 9_999_999_999_99

// maxAmountDigits is how many digits MaxAmount has before its point.
const maxAmountDigits = 10

// ParseAmount reads a decimal number such as "49.99", "5" or "-0.5" exactly, without a float in between. It takes what
// JSON takes as a number, and of that refuses exponents, more than two decimals, and more than ten digits before the
// point; the error wraps ErrAmount.
func ParseAmount(s string) (Amount, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || len(whole) > maxAmountDigits || len(fraction) > 2 || point && fraction == "" ||
		len(whole) > 1 && whole[0] == '0' {
		return 0, amountError(s)
	}
	minor, err := strconv.ParseUint(whole+fraction+"00"[len(fraction):], 10, 63)
	if err != nil {
		return 0, amountError(s)
	}
	if negative {
		return -Amount(minor), nil
	}
	return Amount(minor), nil
}

// amountError repeats a short text only: it may be anything that a client sent.
func amountError(s string) error {
	if len(s) > 2*maxAmountDigits {
		return fmt.Errorf("amount of %d characters: %w", len(s), ErrAmount)
	}
	return fmt.Errorf("amount %q: %w", s, ErrAmount)
}

// String renders the amount with two decimals, as it stands in JSON.
func (a Amount) String() string {
	sign, whole, minor := "", a/100, a%100
	if a < 0 {
		sign, whole, minor = "-", -whole, -minor
	}
	return fmt.Sprintf("%s%d.%02d", sign, int64(whole), int64(minor))
}

// MarshalJSON writes the amount as a JSON number with two decimals. It refuses an amount beyond MaxAmount, which nobody
// could read.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a > MaxAmount || a < -MaxAmount {
		return nil, fmt.Errorf("amount %s: beyond %s", a, MaxAmount)
	}
	return []byte(a.String()), nil
}

// UnmarshalJSON reads a JSON number with at most two decimals; the error wraps ErrAmount.
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
