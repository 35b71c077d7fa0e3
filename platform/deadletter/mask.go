package deadletter

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// masked is an event whose secrets are replaced by ***.
func masked(event json.RawMessage, secret []string) any {
	decoder := json.NewDecoder(bytes.NewReader(event))
	decoder.UseNumber() // so that numbers are shown as they came
	var decoded any
	if err := decoder.Decode(&decoded); err != nil {
		return nil // cannot happen: it was decoded before
	}
	if text, ok := decoded.(string); ok {
		return maskedText(text, secret)
	}
	mask(decoded, secret)
	return decoded
}

// maskedText masks a text that names a secret: it may quote an event that could not be decoded.
func maskedText(text string, secret []string) string {
	lower := strings.ToLower(text)
	for _, s := range secret {
		if strings.Contains(lower, strings.ToLower(s)) {
			return "*** (a text that names " + s + ")"
		}
	}
	return text
}

func mask(value any, secret []string) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if slices.ContainsFunc(secret, func(s string) bool { return strings.EqualFold(s, name) }) {
				v[name] = "***"
			} else if text, ok := member.(string); ok {
				v[name] = maskedText(text, secret)
			} else {
				mask(member, secret)
			}
		}
	case []any:
		for i, element := range v {
			if text, ok := element.(string); ok {
				v[i] = maskedText(text, secret)
			}
			mask(element, secret)
		}
	}
}
