package jsontext_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"waybill/platform/jsontext"
)

// value passes over a text that has to be one value.
func value(text string) bool {
	end, _, ok := jsontext.Value(text, jsontext.Space(text, 0))
	return ok && jsontext.Space(text, end) == len(text)
}

// The scanner takes what encoding/json takes, but for what is not UTF-8 and what is nested without end.
func TestTheScannerTakesWhatTheStandardLibraryTakes(t *testing.T) {
	t.Parallel()
	fragments := []string{
		"{", "}", "[", "]", ",", ":", `"`, `"a"`, `"\u00e9"`, `"\x"`, `"\`, `\u12`, "0", "01", "-", "-1", "1.", "1.5", "1e", "1e+5", "E9", ".5",
		"true", "false", "null", "nul", "NaN", " ", "\n", "\x00", "é", "\x7f", `{"a":1}`, `[1,2]`, `"a":`, `"b":null`,
	}
	dice := rand.New(rand.NewPCG(1, 1))
	valid := 0
	for range 100_000 {
		var text strings.Builder
		for range dice.IntN(8) {
			text.WriteString(fragments[dice.IntN(len(fragments))])
		}
		want := json.Valid([]byte(text.String()))
		if value(text.String()) != want {
			t.Fatalf("%q: encoding/json says %v", text.String(), want)
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

// Strings are looked at eight bytes at a time: each byte is tried at each place of texts of several lengths.
func TestEachByteAtEachPlace(t *testing.T) {
	t.Parallel()
	for length := range 20 {
		for place := range length {
			for c := range 256 {
				content := []byte(strings.Repeat("~", length))
				content[place] = byte(c)
				text := `"` + string(content) + `" `
				end, marks, ok := jsontext.Quoted(text, 0)
				want, wantEnd := c >= ' ' && c < utf8.RuneSelf && c != '\\', length+2
				if c == '"' {
					wantEnd = place + 2
				}
				if ok != want || ok && end != wantEnd {
					t.Fatalf("%q: %v, up to %d", text, ok, end)
				}
				if unusual := marks&jsontext.Unusual != 0; ok && unusual != (c == ' ' || c == 0x7f) {
					t.Fatalf("%q: unusual is %v", text, unusual)
				}
			}
		}
	}
}

func TestUnquote(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`""`, `"plain"`, `"a \"b\" \\ \/ \b\f\n\r\t"`, `"\u00e9\ud83d\ude42"`, `"\ud83d alone"`, `"ü ß"`} {
		end, marks, ok := jsontext.Quoted(text, 0)
		if !ok || end != len(text) {
			t.Fatalf("%s is no string", text)
		}
		var want string
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got := jsontext.Unquote(text[1:len(text)-1], marks); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
