package jsonscan

import (
	"strconv"
	"strings"
)

// maxPlain limits the digits of a number without its exponent. Longer numbers fit into no int64 and no amount of money.
const maxPlain = 64

// NormalizeNumber writes a JSON number without an exponent and without trailing zeros in its fraction: 10.0 and 1e1 become 10,
// and 1.25e1 becomes 12.5. The value stays exactly the same. Text that is not a JSON number, or that would have more than 64
// digits, stays as it is.
func NormalizeNumber(number string) string {
	if !strings.ContainsAny(number, ".eE") {
		return number
	}
	mantissa, exponent, scientific := strings.Cut(strings.ReplaceAll(number, "E", "e"), "e")
	shift := 0
	if scientific {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift > maxPlain || shift < -maxPlain {
			shift = maxPlain + 1 // with this shift, only zero is short enough
		}
	}
	sign := ""
	if rest, negative := strings.CutPrefix(mantissa, "-"); negative {
		sign, mantissa = "-", rest
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	if !allDigits(whole) || point && !allDigits(fraction) || len(whole) > 1 && whole[0] == '0' || scientific && !allDigits(unsigned(exponent)) {
		return number
	}
	all := strings.TrimLeft(whole+fraction, "0")
	if all == "" {
		return sign + "0"
	}
	if shift > maxPlain || len(all) > maxPlain {
		return number
	}
	// The value is 0.all × 10^place.
	place := len(all) - len(fraction) + shift
	all = strings.TrimRight(all, "0")
	switch {
	case place > maxPlain || len(all)-place > maxPlain:
		return number
	case place >= len(all):
		return sign + all + strings.Repeat("0", place-len(all))
	case place > 0:
		return sign + all[:place] + "." + all[place:]
	default:
		return sign + "0." + strings.Repeat("0", -place) + all
	}
}

// unsigned returns the exponent without its sign.
func unsigned(exponent string) string {
	if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
		return exponent[1:]
	}
	return exponent
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// NormalizeNumbers returns the JSON text with every number as NormalizeNumber writes it. It changes nothing else, and accepts text
// that is not JSON. If there is nothing to change, it returns text itself.
func NormalizeNumbers(text []byte) []byte {
	var out []byte
	copied := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i++
		case c == '-' || c >= '0' && c <= '9':
			end := i + 1
			for end < len(text) && strings.IndexByte("0123456789.eE+-", text[end]) >= 0 {
				end++
			}
			number := string(text[i:end])
			if plain := NormalizeNumber(number); plain != number {
				out = append(append(out, text[copied:i]...), plain...)
				copied = end
			}
			i = end
		default:
			i++
		}
	}
	if copied == 0 {
		return text
	}
	return append(out, text[copied:]...)
}
