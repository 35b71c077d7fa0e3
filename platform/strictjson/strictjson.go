// Package strictjson decodes JSON that other programs wrote, so that all readers understand it in the same way: member names are
// case-sensitive, no object has a duplicate name, and all text is valid UTF-8. Apart from that, values decode as in encoding/json.
// Use it for requests and events. Services read documents that they stored themselves with encoding/json.
package strictjson

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// MaxDepth is how deep objects and arrays may be nested.
const MaxDepth = 100

// Error says what is wrong with a JSON text, and where.
type Error struct {
	// Path is the path from the outermost value, such as items[2].price. It is empty for the outermost value.
	Path string
	// Offset is the position in the text, in bytes.
	Offset int64
	// Rule is the broken rule and what is expected instead.
	Rule string
	// WrongType is true if the text is valid JSON but a value does not fit its Go type.
	WrongType bool
}

// Error returns the path, the rule and the offset.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Message()
	}
	return e.Path + ": " + e.Message()
}

// Message returns the error without its path.
func (e *Error) Message() string { return fmt.Sprintf("%s (at byte %d)", e.Rule, e.Offset) }

// options decode values as encoding/json does, but strictly.
var options = json.JoinOptions(
	jsonv1.DefaultOptionsV1(),
	json.MatchCaseInsensitiveNames(false),
	jsontext.AllowDuplicateNames(false),
	jsontext.AllowInvalidUTF8(false),
	jsonv1.ReportErrorsWithLegacySemantics(false),
)

// Unmarshal decodes one JSON value into v. It ignores unknown members, and a name in another case is unknown. The error is an
// *Error.
func Unmarshal(data []byte, v any) error {
	if deep := tooDeep(data); deep >= 0 {
		return &Error{Offset: int64(deep), Rule: fmt.Sprintf("values must not be nested more than %d deep", MaxDepth)}
	}
	if err := json.Unmarshal(data, v, options); err != nil {
		return explain(data, err)
	}
	return nil
}

// Check returns an *Error if data is not exactly one strict JSON value.
func Check(data []byte) error {
	return Unmarshal(data, &discarded{})
}

// discarded accepts any value and keeps nothing. The decoder has checked the value before it calls UnmarshalJSON.
type discarded struct{}

// UnmarshalJSON does nothing.
func (*discarded) UnmarshalJSON([]byte) error { return nil }

// tooDeep returns the offset at which data is nested too deep, or -1. It reads brackets and strings only.
func tooDeep(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > MaxDepth {
				return i
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return -1
}

// explain turns the decoder's error into one that a client may see, without Go types.
func explain(data []byte, err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		e := &Error{Path: path(syntax.JSONPointer), Offset: syntax.ByteOffset}
		switch text := strings.TrimPrefix(syntax.Err.Error(), "jsontext: "); {
		case errors.Is(syntax.Err, jsontext.ErrDuplicateName):
			e.Rule = "the member appears twice in its object; it must appear once"
		case strings.Contains(text, "UTF-8"):
			e.Rule = "text must be valid UTF-8"
		case strings.Contains(text, "surrogate"):
			e.Rule = "text must be valid UTF-8, and this escape is half of a surrogate pair"
		default:
			e.Rule = "not valid JSON: " + text
		}
		return e
	}
	if mistyped, ok := errors.AsType[*json.SemanticError](err); ok {
		e := &Error{Path: path(mistyped.JSONPointer), Offset: mistyped.ByteOffset, Rule: "holds a value that cannot be read", WrongType: true}
		switch {
		case errors.Is(mistyped.Err, strconv.ErrRange):
			e.Rule = "the number is out of range"
		case mistyped.JSONKind != 0 && (mistyped.Err == nil || errors.Is(mistyped.Err, strconv.ErrSyntax)):
			e.Rule = "must not be a JSON " + mistyped.JSONKind.String()
		}
		return e
	}
	return &Error{Offset: int64(len(data)), Rule: "not valid JSON: the text ends too early"}
}

// path writes a JSON pointer in the form of Waybill's errors. It treats a number as an index.
func path(pointer jsontext.Pointer) string {
	var b strings.Builder
	for token := range pointer.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(printable(token))
	}
	return b.String()
}

// maxName limits how many bytes of a member's name an error repeats.
const maxName = 100

// printable returns a member's name for an error: short, valid UTF-8 and printable.
func printable(name string) string {
	short := strings.ToValidUTF8(name[:min(len(name), maxName)], "\uFFFD")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, short)
}
