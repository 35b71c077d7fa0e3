package jsonscan_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"waybill/platform/jsonscan"
	"waybill/platform/strictjson"
)

// value reports whether the text is exactly one value.
func value(text string) bool {
	end, _, ok := jsonscan.SkipValue(text, jsonscan.SkipSpace(text, 0))
	return ok && jsonscan.SkipSpace(text, end) == len(text)
}

// The scanner accepts what the strict decoder accepts, except values that are nested more than 32 deep.
func TestScannerAgreesWithStrictDecoder(t *testing.T) {
	t.Parallel()
	fragments := []string{
		"{", "}", "[", "]", ",", ":", `"`, `"a"`, `"\u00e9"`, `"\x"`, `"\`, `\u12`, "0", "01", "-", "-1", "1.", "1.5", "1e", "1e+5", "E9", ".5",
		"true", "false", "null", "nul", "NaN", " ", "\n", "\x00", "é", "\x7f", `{"a":1}`, `[1,2]`, `"a":`, `"b":null`,
		`"\ud83d\ude42"`, `"\ud83d"`, `"\ude42"`, `"\ud83d\u0041"`, `"\ud83d\ud83d"`, "\"\xff\"", "\"\xed\xa0\xbd\"", `"\u0061":`, `"a":1,`, `"b":2,`, `"c":[],`, `{"a":`,
	}
	dice := rand.New(rand.NewPCG(1, 1))
	valid := 0
	for range 100_000 {
		var text strings.Builder
		for range dice.IntN(8) {
			text.WriteString(fragments[dice.IntN(len(fragments))])
		}
		want := strictjson.Check([]byte(text.String())) == nil
		if value(text.String()) != want {
			t.Fatalf("%q: the strict decoder: %v", text.String(), want)
		}
		if want {
			valid++
		}
	}
	if valid < 1000 {
		t.Errorf("only %d texts were JSON", valid)
	}
	for text, want := range map[string]bool{
		strings.Repeat("[", 32) + strings.Repeat("]", 32): true,
		strings.Repeat("[", 33) + strings.Repeat("]", 33): false,
		strings.Repeat(`{"a":`, 1_000_000):                false,
		"\"\xff\"":                                        false,
		`"` + strings.Repeat("long ", 100_000) + `"`:      true,
	} {
		if value(text) != want {
			t.Errorf("%.40q: want %v", text, want)
		}
	}
}

// SkipString checks eight bytes at a time, so this tries each byte at each position of strings of several lengths.
func TestEachByteAtEachPosition(t *testing.T) {
	t.Parallel()
	for length := range 20 {
		for place := range length {
			for c := range 256 {
				content := []byte(strings.Repeat("~", length))
				content[place] = byte(c)
				text := `"` + string(content) + `" `
				end, marks, ok := jsonscan.SkipString(text, 0)
				want, wantEnd := c >= ' ' && c < utf8.RuneSelf && c != '\\', length+2
				if c == '"' {
					wantEnd = place + 2
				}
				if ok != want || ok && end != wantEnd {
					t.Fatalf("%q: %v, up to %d", text, ok, end)
				}
				if unusual := marks&jsonscan.NotVisibleASCII != 0; ok && unusual != (c == ' ' || c == 0x7f) {
					t.Fatalf("%q: unusual is %v", text, unusual)
				}
			}
		}
	}
}

func TestUnquote(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`""`, `"plain"`, `"a \"b\" \\ \/ \b\f\n\r\t"`, `"\u00e9\ud83d\ude42"`, `"ü ß"`} {
		end, marks, ok := jsonscan.SkipString(text, 0)
		if !ok || end != len(text) {
			t.Fatalf("%s is not a string", text)
		}
		var want string
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got := jsonscan.Unquote(text[1:len(text)-1], marks); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// SkipValue finds duplicate names for every number of members and every pair.
func TestDuplicateNames(t *testing.T) {
	t.Parallel()
	for _, members := range []int{1, 2, 11, 12, 13, 14, 40, 200} {
		text := func(twice int) string {
			var b strings.Builder
			for i := range members {
				fmt.Fprintf(&b, `,"name-%d":{"name-%d":[]}`, i, i)
			}
			if twice >= 0 {
				fmt.Fprintf(&b, `,"n\u0061me-%d":null`, twice)
			}
			return `[{` + b.String()[1:] + `}]`
		}
		if !value(text(-1)) {
			t.Errorf("SkipValue rejects %d members with different names", members)
		}
		for twice := range members {
			if value(text(twice)) {
				t.Errorf("SkipValue accepts %d members and a duplicate of name %d", members, twice)
			}
		}
	}
}

func FuzzScannerAgreesWithStrictDecoder(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e+3,"\u00e9\ud83d\ude42"],"b":{"a":null}}`, `{"a":1,"\u0061":2}`, `"\ud83d"`, "\"\xff\"", `{"":1,"":2}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "[")+strings.Count(text, "{") > 32 {
			return
		}
		if want := strictjson.Check([]byte(text)); value(text) != (want == nil) {
			t.Fatalf("%q: the strict decoder: %v", text, want)
		}
	})
}
