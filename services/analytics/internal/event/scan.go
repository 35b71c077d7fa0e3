package event

import (
	"encoding/json"
	"unicode/utf8"
)

// maxDepth bounds how deep properties may be nested, for the scanner calls itself.
const maxDepth = 32

// scanner passes over JSON text and says where its values stand. It takes exactly what RFC 8259 takes, nested up to
// maxDepth and in UTF-8. It exists because decoding is most of the work on an event, and this is several times as fast as
// encoding/json into a struct; a test holds the two against each other.
type scanner struct {
	src string
	pos int
	// escaped and unusual say of the strings since they were last set to false whether one has an escape, and whether one
	// has anything but visible ASCII.
	escaped, unusual bool
}

// space is short for the usual case, that there is none, so that the compiler puts it in place.
func (s *scanner) space() {
	if s.pos < len(s.src) && s.src[s.pos] <= ' ' {
		s.spaces()
	}
}

func (s *scanner) spaces() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// take passes over one character if it is the next.
func (s *scanner) take(c byte) bool {
	if s.pos < len(s.src) && s.src[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// value passes over one value and returns its text.
func (s *scanner) value(depth int) (text string, ok bool) {
	start := s.pos
	if s.pos == len(s.src) {
		return "", false
	}
	switch c := s.src[s.pos]; {
	case c == '"':
		ok = s.text()
	case c == '{':
		s.pos++
		ok = depth < maxDepth && s.members(depth+1)
	case c == '[':
		s.pos++
		ok = depth < maxDepth && s.elements(depth+1)
	case c == '-' || c >= '0' && c <= '9':
		ok = s.number()
	default:
		ok = s.word("true") || s.word("false") || s.word("null")
	}
	return s.src[start:s.pos], ok
}

func (s *scanner) word(w string) bool {
	if len(s.src)-s.pos < len(w) || s.src[s.pos:s.pos+len(w)] != w {
		return false
	}
	s.pos += len(w)
	return true
}

func (s *scanner) members(depth int) bool {
	s.space()
	if s.take('}') {
		return true
	}
	for {
		s.space()
		if !s.text() {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		if _, ok := s.value(depth); !ok {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) elements(depth int) bool {
	s.space()
	if s.take(']') {
		return true
	}
	for {
		s.space()
		if _, ok := s.value(depth); !ok {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// text passes over a string.
func (s *scanner) text() bool {
	if !s.take('"') {
		return false
	}
	// The position lives in a variable of its own here, for this loop sees nearly every byte of an event.
	src, start, pos, ascii := s.src, s.pos, s.pos, true
	for {
		for pos < len(src) && visible[src[pos]] {
			pos++
		}
		s.pos = pos
		switch {
		case pos == len(src):
			return false
		case src[pos] == '"':
			s.pos++
			return ascii || utf8.ValidString(src[start:pos])
		case src[pos] == '\\':
			s.escaped, s.unusual = true, true
			if !s.escape() {
				return false
			}
			pos = s.pos
		case src[pos] < ' ':
			return false
		default:
			ascii = ascii && src[pos] < utf8.RuneSelf
			s.unusual = true
			pos++
		}
	}
}

// visible are the bytes of visible ASCII that stand for themselves in a string: all but the quotation mark and the
// backslash.
var visible = func() (table [256]bool) {
	for c := '!'; c <= '~'; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

func (s *scanner) escape() bool {
	if s.pos+1 >= len(s.src) {
		return false
	}
	c := s.src[s.pos+1]
	s.pos += 2
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if s.pos == len(s.src) || !isHex(s.src[s.pos]) {
				return false
			}
			s.pos++
		}
		return true
	default:
		return false
	}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.src) && s.src[s.pos] >= '0' && s.src[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// unquote is the content of a string's text, which the scanner has passed over.
func unquote(text string, escaped bool) string {
	if !escaped {
		return text[1 : len(text)-1]
	}
	var content string
	if json.Unmarshal([]byte(text), &content) != nil {
		return "" // the scanner takes nothing that encoding/json refuses
	}
	return content
}
