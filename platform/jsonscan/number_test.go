package jsonscan_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"waybill/platform/jsonscan"
)

func TestNormalizeNumber(t *testing.T) {
	t.Parallel()
	for number, want := range map[string]string{
		"10": "10", "10.0": "10", "1e1": "10", "1E+1": "10", "1.25e1": "12.5", "125e-1": "12.5", "0.5": "0.5", "0.50": "0.5", "-1.0": "-1",
		"0e0": "0", "-0.0": "-0", "0e999999999": "0", "5e-3": "0.005", "49.990": "49.99", "9.223372036854775807e18": "9223372036854775807",
		"100e-2": "1", "1.10e1": "11", "0.00e5": "0", "1000e-1": "100",
		// too long, or not a number
		"1e65": "1e65", "1e-65": "1e-65", "1e999": "1e999", "1e99999999999999999999": "1e99999999999999999999",
		"": "", "1.": "1.", ".5": ".5", "01.0": "01.0", "1e": "1e", "1e+": "1e+", "1.2.3": "1.2.3", "1e1e1": "1e1e1", "e5": "e5", "--1.0": "--1.0", "1e--1": "1e--1",
	} {
		if got := jsonscan.NormalizeNumber(number); got != want {
			t.Errorf("NormalizeNumber(%q) is %q, want %q", number, got, want)
		}
	}
}

func TestNormalizeNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"n":10.0,"s":"10.0 \" 1e1","l":[1e1,-2.50,true,null]}`: `{"n":10,"s":"10.0 \" 1e1","l":[10,-2.5,true,null]}`,
		`{"n": 5}`: `{"n": 5}`, `1e2`: `100`, `"1e2`: `"1e2`, `"\`: `"\`, ``: ``, `[1.`: `[1.`,
	} {
		if got := string(jsonscan.NormalizeNumbers([]byte(text))); got != want {
			t.Errorf("NormalizeNumbers(%s) is %s, want %s", text, got, want)
		}
	}
}

// FuzzNormalizeNumber compares the result with the number as math/big reads it.
func FuzzNormalizeNumber(f *testing.F) {
	for _, seed := range []string{"10.0", "1e1", "-1.25e-3", "0.0e9", "1e64", "1e-64"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		var n json.Number
		if len(number) > 40 || json.Unmarshal([]byte(number), &n) != nil || strings.TrimSpace(number) != number || n == "" {
			if plain := jsonscan.NormalizeNumber(number); json.Valid([]byte(plain)) != json.Valid([]byte(number)) {
				t.Fatalf("NormalizeNumber(%q) is %q", number, plain)
			}
			return
		}
		plain := jsonscan.NormalizeNumber(number)
		if plain == number {
			return
		}
		want, ok := new(big.Rat).SetString(number)
		if !ok { // math/big rejects such a large exponent; NormalizeNumber shortens only zero then
			want = new(big.Rat)
		}
		got, ok := new(big.Rat).SetString(plain)
		if !ok || got.Cmp(want) != 0 || strings.ContainsAny(plain, "eE") || !json.Valid([]byte(plain)) {
			t.Fatalf("NormalizeNumber(%q) is %q", number, plain)
		}
	})
}
