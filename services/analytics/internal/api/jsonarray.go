package api

import (
	"errors"
	"fmt"
)

var errNotEvents = errors.New("must be one event, an array of events, or a line for each event")

// split cuts the text of a JSON array into the texts of its elements. It reads only brackets, strings and commas, so an invalid
// element, such as one with the number NaN, is a fault of that element and not of the array.
func split(text []byte, limit int) ([][]byte, error) {
	i := space(text, 0)
	if i == len(text) || text[i] != '[' {
		return nil, errNotEvents
	}
	var elements [][]byte
	start, depth, quoted := i+1, 0, false
	for i++; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == '}':
			depth--
		case c == ',' && depth <= 0, c == ']' && depth <= 0:
			element := text[start:i]
			if space(element, 0) == len(element) {
				if c == ']' && len(elements) == 0 {
					return nil, end(text, i)
				}
				return nil, fmt.Errorf("there is no event at byte %d", i+1)
			}
			if elements = append(elements, element); len(elements) > limit {
				return nil, fmt.Errorf("there are more than %d events", limit)
			}
			if c == ']' {
				return elements, end(text, i)
			}
			start, depth = i+1, 0
		case c == ']':
			depth--
		}
	}
	return nil, errors.New("the array does not end")
}

func end(text []byte, i int) error {
	if rest := space(text, i+1); rest < len(text) {
		return fmt.Errorf("something comes after the array, at byte %d", rest+1)
	}
	return nil
}

// space is the index of the first byte from i on that is not white space.
func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}
