// Package jsontext passes over JSON text without making anything of it. It is for the few places where most of the work would
// else be encoding/json's. It does no I/O and knows no format.
package jsontext

import (
	"encoding/json"
	"unicode/utf8"
)

// maxDepth bounds how deep values may be nested, for the Scanner calls itself.
const maxDepth = 32

// Scanner passes over JSON text and says where its values stand. It takes exactly what RFC 8259 takes, nested up to 32 deep
// and in UTF-8. It exists because decoding is most of the work on an event, and this is several times as fast as
// encoding/json into a struct; a test holds the two against each other.
type Scanner struct {
	// Src is the text, Pos the byte that comes next.
	Src string
	Pos int
	// Escaped and Unusual say of the strings since they were last set to false whether one has an escape, and whether one
	// has anything but visible ASCII.
	Escaped, Unusual bool
}

// Space passes over white space. It is short for the usual case, that there is none, so that the compiler puts it in place.
func (s *Scanner) Space() {
	if s.Pos < len(s.Src) && s.Src[s.Pos] <= ' ' {
		s.spaces()
	}
}

func (s *Scanner) spaces() {
	for s.Pos < len(s.Src) {
		switch s.Src[s.Pos] {
		case ' ', '\t', '\n', '\r':
			s.Pos++
		default:
			return
		}
	}
}

// Take passes over one character if it is the next.
func (s *Scanner) Take(c byte) bool {
	if s.Pos < len(s.Src) && s.Src[s.Pos] == c {
		s.Pos++
		return true
	}
	return false
}

// Value passes over one value and returns its text; ok is false when there is none.
func (s *Scanner) Value() (text string, ok bool) { return s.value(0) }

func (s *Scanner) value(depth int) (text string, ok bool) {
	start := s.Pos
	if s.Pos == len(s.Src) {
		return "", false
	}
	switch c := s.Src[s.Pos]; {
	case c == '"':
		ok = s.Quoted()
	case c == '{':
		s.Pos++
		ok = depth < maxDepth && s.members(depth+1)
	case c == '[':
		s.Pos++
		ok = depth < maxDepth && s.elements(depth+1)
	case c == '-' || c >= '0' && c <= '9':
		ok = s.number()
	default:
		ok = s.word("true") || s.word("false") || s.word("null")
	}
	return s.Src[start:s.Pos], ok
}

func (s *Scanner) word(w string) bool {
	if len(s.Src)-s.Pos < len(w) || s.Src[s.Pos:s.Pos+len(w)] != w {
		return false
	}
	s.Pos += len(w)
	return true
}

func (s *Scanner) members(depth int) bool {
	s.Space()
	if s.Take('}') {
		return true
	}
	for {
		s.Space()
		if !s.Quoted() {
			return false
		}
		s.Space()
		if !s.Take(':') {
			return false
		}
		s.Space()
		if _, ok := s.value(depth); !ok {
			return false
		}
		s.Space()
		if s.Take('}') {
			return true
		}
		if !s.Take(',') {
			return false
		}
	}
}

func (s *Scanner) elements(depth int) bool {
	s.Space()
	if s.Take(']') {
		return true
	}
	for {
		s.Space()
		if _, ok := s.value(depth); !ok {
			return false
		}
		s.Space()
		if s.Take(']') {
			return true
		}
		if !s.Take(',') {
			return false
		}
	}
}

// Quoted passes over a string; it is false when there is none.
func (s *Scanner) Quoted() bool {
	if !s.Take('"') {
		return false
	}
	// The position lives in a variable of its own here, for this loop sees nearly every byte of an event.
	src, start, pos, ascii := s.Src, s.Pos, s.Pos, true
	for {
		for pos < len(src) && visible[src[pos]] {
			pos++
		}
		s.Pos = pos
		switch {
		case pos == len(src):
			return false
		case src[pos] == '"':
			s.Pos++
			return ascii || utf8.ValidString(src[start:pos])
		case src[pos] == '\\':
			s.Escaped, s.Unusual = true, true
			if !s.escape() {
				return false
			}
			pos = s.Pos
		case src[pos] < ' ':
			return false
		default:
			ascii = ascii && src[pos] < utf8.RuneSelf
			s.Unusual = true
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

func (s *Scanner) escape() bool {
	if s.Pos+1 >= len(s.Src) {
		return false
	}
	c := s.Src[s.Pos+1]
	s.Pos += 2
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if s.Pos == len(s.Src) || !isHex(s.Src[s.Pos]) {
				return false
			}
			s.Pos++
		}
		return true
	default:
		return false
	}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *Scanner) number() bool {
	s.Take('-')
	if !s.Take('0') && !s.digits() {
		return false
	}
	if s.Take('.') && !s.digits() {
		return false
	}
	if s.Take('e') || s.Take('E') {
		if !s.Take('+') {
			s.Take('-')
		}
		return s.digits()
	}
	return true
}

func (s *Scanner) digits() bool {
	start := s.Pos
	for s.Pos < len(s.Src) && s.Src[s.Pos] >= '0' && s.Src[s.Pos] <= '9' {
		s.Pos++
	}
	return s.Pos > start
}

// Unquote is the content of a string's text, which the Scanner has passed over.
func Unquote(text string, escaped bool) string {
	if !escaped {
		return text[1 : len(text)-1]
	}
	var content string
	if json.Unmarshal([]byte(text), &content) != nil {
		return "" // the Scanner takes nothing that encoding/json refuses
	}
	return content
}
