package contracts_test

import (
	"encoding/json"
	"strings"
	"testing"

	"waybill/contracts"
)

// TestCurrenciesHaveTheDecimalPlacesOfISO4217 compares the library's table with a copy of the exceptions in ISO 4217. CLDR, which
// other libraries use, differs in some of them.
func TestCurrenciesHaveTheDecimalPlacesOfISO4217(t *testing.T) {
	t.Parallel()
	for places, codes := range []string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
		2: "USD EUR GBP CHF CNY INR BRL MXN CAD AUD HUF TWD IDR COP IRR LBP MGA MRU RSD AMD SLE VES ZWG XCG",
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for code := range strings.FieldsSeq(codes) {
			if got, ok := contracts.CurrencyPlaces(code); !ok || got != places {
				t.Errorf("%s has %d decimal places (known: %v), want %d", code, got, ok, places)
			}
		}
	}
}

func TestOnlyCurrentCurrenciesWithMinorUnitsAreKnown(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"", "ZZZ", "XXX", "XTS", "XAU", "XAG", "XPT", "XPD", "XDR", "XUA", "XSU", "XBA", "DEM", "HRK", "CNH", "usd", "Usd", "US", "USDT", "$", "ÜSD",
	} {
		if places, ok := contracts.CurrencyPlaces(code); ok {
			t.Errorf("%q is known with %d decimal places", code, places)
		}
		if contracts.Amount(0).Fits(code) {
			t.Errorf("an amount fits %q", code)
		}
	}
}

func TestAmountsInTheirCurrency(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		number, currency string
		fits             bool
		written          string
	}{
		{"705", "JPY", true, "705 JPY"},
		{"705.00", "JPY", true, "705 JPY"},
		{"705.50", "JPY", false, "705.5 JPY"},
		{"1.234", "KWD", true, "1.234 KWD"},
		{"1.2", "KWD", true, "1.200 KWD"},
		{"1.2345", "KWD", false, "1.2345 KWD"},
		{"1.2345", "CLF", true, "1.2345 CLF"},
		{"49.99", "USD", true, "49.99 USD"},
		{"49.999", "USD", false, "49.999 USD"},
		{"-0.5", "USD", true, "-0.50 USD"},
		{"49.99", "ZZZ", false, "49.99 ZZZ"},
		{"49.99", "", false, "49.99"},
	} {
		amount, err := contracts.ParseAmount(c.number)
		if err != nil {
			t.Fatal(err)
		}
		if got := amount.Fits(c.currency); got != c.fits {
			t.Errorf("%s fits %s: %v, want %v", c.number, c.currency, got, c.fits)
		}
		if got := amount.In(c.currency); got != c.written {
			t.Errorf("%s in %s is written %q, want %q", c.number, c.currency, got, c.written)
		}
	}
	for currency, want := range map[string]contracts.Amount{"JPY": 1_0000, "USD": 100, "KWD": 10, "CLF": 1, "ZZZ": 1} {
		if got := contracts.MinorUnit(currency); got != want {
			t.Errorf("the minor unit of %s is %d, want %d", currency, got, want)
		}
	}
	for currency, want := range map[string]string{
		"JPY": "must have no decimal places in JPY, such as 4999",
		"USD": "must have at most 2 decimal places in USD, such as 49.99",
		"KWD": "must have at most 3 decimal places in KWD, such as 49.990",
	} {
		if got := contracts.PlacesRule(currency); got != want {
			t.Errorf("the rule of %s is %q, want %q", currency, got, want)
		}
	}
}

// Documents, recorded histories and events of the last release have two decimal places.
func TestStoredAmountsStayExact(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{"0.00", "0.01", "99.98", "5000.00", "9999999999.99"} {
		var amount contracts.Amount
		if err := json.Unmarshal([]byte(stored), &amount); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(amount); err != nil || string(again) != stored {
			t.Errorf("%s is written again as %s, %v", stored, again, err)
		}
	}
}
