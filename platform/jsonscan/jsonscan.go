// Package jsonscan checks JSON text and finds the bounds of its values without decoding them. It is for the hot paths, where a
// decoder would take most of the time: reading events takes 2 to 3 times as long with github.com/go-json-experiment/json/jsontext.
// It does no I/O and knows no event format.
package jsonscan

import (
	"encoding/json"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth limits how deep values may be nested, because value is recursive.
const maxDepth = 32

// Each function gets a text and a position in it, and returns the position after what it skipped, or the position of the error.
// So the position stays in a register, which matters because they read every byte of every event. They accept exactly what
// platform/strictjson accepts, nested up to 32 deep: RFC 8259 in UTF-8, without duplicate names and without halves of surrogate
// pairs. A test compares the two.

// Flags describe the content of strings.
type Flags uint8

// The flags.
const (
	// HasEscape says that a string has an escape.
	HasEscape Flags = 1 << iota
	// NotVisibleASCII says that a string has an escape, a space, a control character or a character outside ASCII.
	NotVisibleASCII
)

// SkipSpace skips white space. It is short, so that the compiler inlines the usual case, which is no white space.
func SkipSpace(src string, pos int) int {
	if pos < len(src) && src[pos] <= ' ' {
		return spaces(src, pos)
	}
	return pos
}

func spaces(src string, pos int) int {
	for pos < len(src) {
		switch src[pos] {
		case ' ', '\t', '\n', '\r':
			pos++
		default:
			return pos
		}
	}
	return pos
}

// SkipByte skips c if it is the next byte.
func SkipByte(src string, pos int, c byte) (end int, ok bool) {
	if pos < len(src) && src[pos] == c {
		return pos + 1, true
	}
	return pos, false
}

// MemberName skips the name of an object's member, the colon and the white space around them. The name keeps its escapes and has
// no quotation marks.
func MemberName(src string, pos int) (name string, end int, m Flags, ok bool) {
	start := SkipSpace(src, pos)
	if end, m, ok = SkipString(src, start); !ok {
		return "", end, 0, false
	}
	name = src[start+1 : end-1]
	if end = SkipSpace(src, end); end == len(src) || src[end] != ':' {
		return "", end, 0, false
	}
	return name, SkipSpace(src, end+1), m, true
}

// Next skips the comma after a member or an element, or the bracket that closes the object or the array, and the white space
// around it. more reports whether it was a comma; ok is false if it was neither.
func Next(src string, pos int, closing byte) (end int, more, ok bool) {
	pos = SkipSpace(src, pos)
	if pos == len(src) || src[pos] != ',' && src[pos] != closing {
		return pos, false, false
	}
	return SkipSpace(src, pos+1), src[pos] == ',', true
}

// SkipValue skips one value.
func SkipValue(src string, pos int) (end int, m Flags, ok bool) { return value(src, pos, 0) }

func value(src string, pos, depth int) (end int, m Flags, ok bool) {
	if pos == len(src) {
		return pos, 0, false
	}
	switch c := src[pos]; {
	case c == '"':
		return SkipString(src, pos)
	case c == '{' || c == '[':
		return group(src, pos, depth)
	case c == '-' || c >= '0' && c <= '9':
		end, ok = number(src, pos)
		return end, 0, ok
	default:
		for _, word := range []string{"true", "false", "null"} {
			if strings.HasPrefix(src[pos:], word) {
				return pos + len(word), 0, true
			}
		}
		return pos, 0, false
	}
}

// group skips an object or an array.
func group(src string, pos, depth int) (end int, m Flags, ok bool) {
	object, closing := src[pos] == '{', src[pos]+('}'-'{')
	if depth == maxDepth {
		return pos, 0, false
	}
	if pos, ok = SkipByte(src, SkipSpace(src, pos+1), closing); ok {
		return pos, 0, true
	}
	var names NameSet
	for more := true; more; {
		var seen Flags
		if object {
			var name string
			start := pos
			if name, pos, seen, ok = MemberName(src, pos); !ok {
				return pos, 0, false
			}
			if !names.Add(name, seen) {
				return start, 0, false
			}
			m |= seen
		}
		if pos, seen, ok = value(src, pos, depth+1); !ok {
			return pos, 0, false
		}
		m |= seen
		pos = SkipSpace(src, pos)
		end = pos + 1 // the group ends with its last character, before the white space
		if pos, more, ok = Next(src, pos, closing); !ok {
			return pos, 0, false
		}
	}
	return end, m, true
}

// SkipString skips a string.
func SkipString(src string, pos int) (end int, m Flags, ok bool) {
	if pos >= len(src) || src[pos] != '"' {
		return pos, 0, false
	}
	// This loop checks eight bytes at a time and stops at the first byte that is not visible ASCII above the quotation mark, or
	// that is a backslash. Subtracting n from a byte below n borrows and sets its top bit. The lowest bit found is right; higher
	// ones may come from its borrow.
	i := pos + 1
	for ; len(src)-i >= 8; i += 8 {
		const ones, tops = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
		s := src[i : i+8]
		x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		backslash := x ^ '\\'*ones
		if other := ((x-('"'+1)*ones)&^x | (backslash-ones)&^backslash | (x + ones) | x) & tops; other != 0 {
			if i += bits.TrailingZeros64(other) / 8; src[i] == '"' {
				return i + 1, 0, true
			}
			break
		}
	}
	return rest(src, pos+1, i)
}

// rest skips the rest of a string byte by byte. The string begins at start and is visible ASCII up to pos.
func rest(src string, start, pos int) (end int, m Flags, ok bool) {
	ascii := true
	for pos < len(src) {
		switch c := src[pos]; {
		case c == '"':
			return pos + 1, m, ascii || utf8.ValidString(src[start:pos])
		case c == '\\':
			m |= HasEscape | NotVisibleASCII
			if pos, ok = escape(src, pos+1); !ok {
				return pos, 0, false
			}
		case c < ' ':
			return pos, 0, false
		default:
			ascii = ascii && c < utf8.RuneSelf
			if c == ' ' || c > '~' {
				m |= NotVisibleASCII
			}
			pos++
		}
	}
	return len(src), 0, false
}

// escape skips what follows a backslash.
func escape(src string, pos int) (end int, ok bool) {
	if pos == len(src) {
		return pos, false
	}
	switch src[pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return pos + 1, true
	case 'u':
		unit, end, ok := hex(src, pos+1)
		if !ok || !utf16.IsSurrogate(unit) {
			return end, ok
		}
		if end+1 >= len(src) || src[end] != '\\' || src[end+1] != 'u' {
			return pos, false
		}
		low, end, ok := hex(src, end+2)
		return end, ok && utf16.DecodeRune(unit, low) != utf8.RuneError
	default:
		return pos, false
	}
}

// hex reads the four digits of an escape.
func hex(src string, pos int) (unit rune, end int, ok bool) {
	for end = pos; end < pos+4; end++ {
		if end >= len(src) || !isHex(src[end]) {
			return 0, end, false
		}
		digit := src[end]
		switch {
		case digit <= '9':
			digit -= '0'
		case digit <= 'F':
			digit -= 'A' - 10
		default:
			digit -= 'a' - 10
		}
		unit = unit<<4 | rune(digit)
	}
	return unit, end, true
}

// NameSet holds the member names of one object. The zero value is empty.
type NameSet struct {
	few   [fewNames]string
	count int
	kinds uint64
	many  map[string]struct{}
}

// fewNames is how many names a NameSet compares one by one; most objects have fewer.
const fewNames = 16

// Add adds a name as it is written. It reports false if the set has the name already.
func (n *NameSet) Add(written string, m Flags) bool {
	name := Unquote(written, m)
	if n.count < fewNames {
		// Most names differ in this small hash, and then no comparison is needed.
		var kind uint64 = 1
		if len(name) > 0 {
			kind = 1 << ((uint(name[0]) + uint(name[len(name)-1])*5 + uint(len(name))*11) & 63)
		}
		if n.kinds&kind != 0 {
			for i := range n.count {
				if n.few[i] == name {
					return false
				}
			}
		}
		n.kinds |= kind
		n.few[n.count] = name
		n.count++
		return true
	}
	return n.addOneMore(name)
}

func (n *NameSet) addOneMore(name string) bool {
	if n.many == nil {
		n.many = make(map[string]struct{}, 2*fewNames)
		for _, known := range n.few {
			n.many[known] = struct{}{}
		}
	}
	before := len(n.many)
	n.many[name] = struct{}{}
	return len(n.many) > before
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func number(src string, pos int) (end int, ok bool) {
	if src[pos] == '-' {
		pos++
	}
	if pos < len(src) && src[pos] == '0' {
		pos++
	} else if pos, ok = digits(src, pos); !ok {
		return pos, false
	}
	if pos < len(src) && src[pos] == '.' {
		if pos, ok = digits(src, pos+1); !ok {
			return pos, false
		}
	}
	if pos < len(src) && (src[pos] == 'e' || src[pos] == 'E') {
		pos++
		if pos < len(src) && (src[pos] == '+' || src[pos] == '-') {
			pos++
		}
		return digits(src, pos)
	}
	return pos, true
}

func digits(src string, pos int) (end int, ok bool) {
	for end = pos; end < len(src) && src[end] >= '0' && src[end] <= '9'; end++ {
	}
	return end, end > pos
}

// Unquote returns the content of a string that SkipString accepted; written is the text between its quotation marks.
func Unquote(written string, m Flags) string {
	if m&HasEscape == 0 {
		return written
	}
	var content string
	if json.Unmarshal([]byte(`"`+written+`"`), &content) != nil {
		return "" // not reached: SkipString accepts nothing that encoding/json rejects
	}
	return content
}
