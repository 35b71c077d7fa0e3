package contracts_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"waybill/contracts"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	accepted := map[string]contracts.Amount{
		"0": 0, "-0": 0, "0.5": 5000, "0.05": 500, "5": 5_0000, "49.9": 49_9000, "49.99": 49_9900, "-0.01": -100,
		"1.234": 1_2340, "0.0001": 1, "705.0": 705_0000, "49.990000": 49_9900,
		"9999999999.99": contracts.MaxAmount - 99, "9999999999.9999": contracts.MaxAmount, "-9999999999.9999": -contracts.MaxAmount,
	}
	for text, want := range accepted {
		got, err := contracts.ParseAmount(text)
		if err != nil || got != want {
			t.Errorf("ParseAmount(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	rejected := []string{
		"", "-", ".", ".5", "5.", "-.5", "--5", "+5", " 5", "5 ", "1e2", "1E2", "5.1e1", "0x10", "1_000", "1,5", "1.23456", "1.00001", "1." + strings.Repeat("0", 1<<10), "1.2.3", "1.-5",
		"00.1", "007", "-01", "10000000000", "99999999999999999999", "NaN", "Infinity", `"5"`, "٣",
		strings.Repeat("9", 1<<20),
	}
	for _, text := range rejected {
		got, err := contracts.ParseAmount(text)
		if !errors.Is(err, contracts.ErrAmount) {
			t.Errorf("ParseAmount(%.30q) = %d, %v; want ErrAmount", text, got, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("ParseAmount(%.30q): the error repeats all of a long text", text)
		}
	}
}

func TestAmountString(t *testing.T) {
	t.Parallel()
	for amount, want := range map[contracts.Amount]string{
		0: "0.00", 5: "0.0005", -500: "-0.05", 49_9900: "49.99", -1_0000: "-1.00", 705_0000: "705.00", 1_2340: "1.234",
		math.MinInt64: "-922337203685477.5808",
	} {
		if got := amount.String(); got != want {
			t.Errorf("%d is written %s, want %s", int64(amount), got, want)
		}
	}
}

func TestAmountInJSON(t *testing.T) {
	t.Parallel()
	type line struct {
		Price contracts.Amount `json:"price"`
	}
	for _, text := range []string{`{"price":"49.99"}`, `{"price":1e2}`, `{"price":1.00001}`, `{"price":{}}`, `{"price":true}`} {
		var l line
		if err := json.Unmarshal([]byte(text), &l); !errors.Is(err, contracts.ErrAmount) {
			t.Errorf("%s is read as %v, %v; want ErrAmount", text, l.Price, err)
		}
	}
	l := line{Price: 7}
	if err := json.Unmarshal([]byte(`{"price":null}`), &l); err != nil || l.Price != 7 {
		t.Errorf("null is read as %v, %v; want it to change nothing, as encoding/json has it", l.Price, err)
	}
	// An amount that UnmarshalJSON rejects must not be written.
	for _, amount := range []contracts.Amount{contracts.MaxAmount + 1, -contracts.MaxAmount - 1, math.MinInt64} {
		if b, err := json.Marshal(line{amount}); err == nil {
			t.Errorf("%s is written as %s, want an error", amount, b)
		}
	}
}

func FuzzParseAmount(f *testing.F) {
	for _, seed := range []string{"0", "49.99", "-0.5", "9999999999.99", "1e9", "00.1", "1.234", "1.2345", "49.9900"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		amount, err := contracts.ParseAmount(text)
		if err != nil {
			return
		}
		b, err := json.Marshal(amount)
		if err != nil {
			t.Fatalf("%q is read as %d, which cannot be written: %v", text, int64(amount), err)
		}
		var again contracts.Amount
		if err := json.Unmarshal(b, &again); err != nil || again != amount {
			t.Fatalf("%q is %d, written %s, read again %d, %v", text, int64(amount), b, int64(again), err)
		}
	})
}
