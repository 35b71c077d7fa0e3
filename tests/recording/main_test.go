package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

const demo = `   0.0s  two pieces, paid and shipped       placed as ord-01M8JM3R85SWKP8VYYV380C214
   0.4s  a card that is declined            is fulfillment_failed: The card was <declined>.

ORDER                           ASKED                             ENDED AS            AFTER  BECAUSE
ord-01M8JM3R85SWKP8VYYV380C214  two pieces, paid and shipped      fulfilled           550ms

make inbox ARGS="--data .waybill" shows the mail, SMS and push messages that these orders sent.
`

func TestTheDrawingIsWellFormedAndShowsEachLine(t *testing.T) {
	t.Parallel()
	lines, err := read(strings.NewReader(demo))
	if err != nil {
		t.Fatal(err)
	}
	drawing := draw(lines)
	var texts []string
	decoder := xml.NewDecoder(strings.NewReader(drawing))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the drawing is not well-formed: %v", err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	shown := strings.Join(texts, "\n")
	for _, want := range []string{
		"   0.0s  two pieces, paid and shipped       placed as ord-…0C214",
		"is fulfillment_failed: The card was <declined>.",
		"\nORDER       ASKED", "\nord-…0C214  two pieces",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the drawing does not show %q:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "make inbox") {
		t.Error("the drawing shows the last line, which names the data folder")
	}
}

func TestOtherTextIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "start the system with `make up`\n"} {
		if _, err := read(strings.NewReader(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
