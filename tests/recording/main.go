// Command recording draws the output of `devrun demo` as an animated SVG for the README.
//
//	devrun demo | go run ./recording -write ../docs/demo.svg
//
// Each line of the demo begins with the second at which it was printed. The drawing shows the lines in that order, slower,
// and ends with the table. Viewers that do not animate show the end.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

func main() {
	path := flag.String("write", "", "`file` to write")
	flag.Parse()
	if err := run(os.Stdin, *path); err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, path string) error {
	lines, err := read(in)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(draw(lines)), 0o600)
}

// line is one line of the demo and the second at which it was printed.
type line struct {
	text string
	at   float64
}

var (
	stamp   = regexp.MustCompile(`^ *([0-9]+\.[0-9])s  `)
	orderID = regexp.MustCompile(`ord-[0-9A-Z]{21}([0-9A-Z]{5})`)
)

// cut is how much shorter an order id is in the drawing than in the output.
const cut = 20

// read returns the demo's lines. It shortens the order ids, so that the table fits on a page, and leaves out the last line,
// which names the data folder.
func read(in io.Reader) ([]line, error) {
	var lines []line
	at := 0.0
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		text := strings.TrimRight(scanner.Text(), " ")
		if strings.Contains(text, "make inbox") {
			continue
		}
		if match := stamp.FindStringSubmatch(text); match != nil {
			var err error
			if at, err = strconv.ParseFloat(match[1], 64); err != nil {
				return nil, fmt.Errorf("read the time of %q: %w", text, err)
			}
		}
		text = orderID.ReplaceAllString(text, "ord-…$1")
		if rest, header := strings.CutPrefix(text, "ORDER"+strings.Repeat(" ", cut)); header {
			text = "ORDER" + rest
		}
		lines = append(lines, line{text, at})
	}
	for len(lines) > 0 && lines[len(lines)-1].text == "" {
		lines = lines[:len(lines)-1]
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if len(lines) == 0 || at == 0 {
		return nil, fmt.Errorf("the output of devrun demo is expected, got %d lines and %.1f seconds", len(lines), at)
	}
	return lines, nil
}

const (
	rows       = 26 // lines that are visible at a time
	lineHeight = 18 // pixels
	charWidth  = 8  // pixels, of the font size below
	margin     = 16 // pixels
	title      = 34 // height of the title bar, pixels
	play       = 16 // seconds for all lines
	hold       = 10 // seconds for the end
)

// colours of the outcomes, each readable on a dark and on a light page.
var outcomes = []struct{ text, class string }{
	{"is fulfilled", "good"},
	{"is fulfillment_failed", "bad"},
	{"is cancelled", "stopped"},
	{"is awaiting_approval", "waits"},
	{"approved by", "waits"},
	{"asked to cancel", "waits"},
	{"  fulfilled  ", "good"},
	{"  fulfillment_failed  ", "bad"},
	{"  cancelled  ", "stopped"},
	{"placed as", "faint"},
}

func class(text string) string {
	for _, o := range outcomes {
		if strings.Contains(text, o.text) {
			return o.class
		}
	}
	return "plain"
}

// draw is the drawing of lines. It depends on nothing else, so a repeated run changes nothing.
func draw(lines []line) string {
	widest := 0
	for _, l := range lines {
		widest = max(widest, utf8.RuneCountInString(l.text))
	}
	width := int(float64(widest)*charWidth) + 2*margin
	height := title + rows*lineHeight + margin
	moves := len(lines) - rows // lines that have left the top at the end
	seconds := lines[len(lines)-1].at
	total := float64(play + hold)

	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" xml:space="preserve" aria-label="Recording of make demo: six orders, each with another end">`, width, height, width, height)
	say(`<style>`)
	say(`text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-variant-ligatures: none; white-space: pre; fill: #d5dbe3 }`)
	say(`.card { fill: #161b22; stroke: #6e7681 } .bar { fill: #8b949e } .faint { fill: #8b949e } .good { fill: #56d364 } .bad { fill: #ff7b72 } .stopped { fill: #e3b341 } .waits { fill: #79c0ff }`)
	say(`@media (prefers-color-scheme: light) { text { fill: #1f2328 } .card { fill: #f6f8fa } .bar, .faint { fill: #59636e } .good { fill: #116329 } .bad { fill: #cf222e } .stopped { fill: #7d4e00 } .waits { fill: #0550ae } }`)
	say(`@keyframes lines {`)
	for i, l := range lines {
		// The demo prints many lines within one tenth of a second; show those one after the other, too.
		share := (l.at/seconds + float64(i)/float64(len(lines))) / 2
		moved := i + 1 - rows // the newest line is at the bottom
		say(`%.2f%% { transform: translateY(%dpx) }`, 100*share*play/total, -moved*lineHeight)
	}
	say(`100%% { transform: translateY(%dpx) } }`, -moves*lineHeight)
	say(`@media (prefers-reduced-motion: no-preference) {`)
	say(`.lines { animation: lines %.0fs step-end infinite }`, total)
	say(`}`)
	say(`</style>`)
	say(`<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`, width-1, height-1)
	say(`<text class="bar" x="%d" y="22">$ make demo     (%.1f seconds, shown in %d)</text>`, margin, seconds, play)
	say(`<clipPath id="window"><rect x="0" y="%d" width="%d" height="%d"/></clipPath>`, title, width, rows*lineHeight)
	say(`<g clip-path="url(#window)"><g class="lines" transform="translate(0 %d)">`, -moves*lineHeight)
	for i, l := range lines {
		if l.text == "" {
			continue
		}
		say(`<text class="%s" x="%d" y="%d">%s</text>`, class(l.text), margin, title+i*lineHeight+13, html.EscapeString(l.text))
	}
	say(`</g></g>`)
	say(`</svg>`)
	return b.String()
}
