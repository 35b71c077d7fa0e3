package eventing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"unicode/utf8"

	"waybill/platform/strictjson"
)

// The names of the partition key in a delivery's metadata.
const (
	kafkaKey      = "__key"
	serviceBusKey = "metadata.SessionId"
)

// keyOf is the partition key in a delivery's metadata.
func keyOf(metadata func(name string) string) string {
	return cmp.Or(metadata(kafkaKey), metadata(serviceBusKey))
}

// read decodes a delivery. It dead-letters one that cannot be decoded, as it came.
func (r *Receiver) read(w http.ResponseWriter, req *http.Request, s Subscription) (Event, bool) {
	body, ok, tooLarge := r.readBody(w, req)
	if !ok {
		return Event{}, false
	}
	if tooLarge != nil {
		r.answerVerdict(w, req, r.settle(req.Context(), s, Event{Data: jsonOrText(body)}, Reject(tooLarge)))
		return Event{}, false
	}
	if r.brokerRetries {
		body = unwrapped(body)
	}
	e, err := readEvent(string(body), body)
	e.Key = keyOf(req.Header.Get)
	if err != nil {
		r.answerVerdict(w, req, r.settle(req.Context(), s, e, notCloudEvent(err)))
		return Event{}, false
	}
	return e, true
}

// errTooLarge is the reason for which a delivery is not read to its end.
var errTooLarge = fmt.Errorf("the message must not have more than %d bytes", maxDelivery)

// readBody reads a delivery. It asks for the delivery again if it breaks off. With errTooLarge it returns the beginning of one
// that is too large.
func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request) (body []byte, ok bool, tooLarge error) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxDelivery+1))
	if err == nil && len(body) > maxDelivery {
		// The sidecar sends it to the end, and would handle a closed connection as a failure.
		body, tooLarge = body[:maxCutData], errTooLarge
		_, err = io.Copy(io.Discard, req.Body)
	}
	if err != nil {
		r.logger.WarnContext(req.Context(), "delivery could not be read; will retry", slog.Any("error", err))
		r.answerVerdict(w, req, retry)
	}
	return body, err == nil, tooLarge
}

func notCloudEvent(err error) error { return Reject(fmt.Errorf("not a CloudEvent: %w", err)) }

func jsonOrText(body []byte) json.RawMessage {
	if strictjson.Check(body) == nil {
		return body
	}
	text, _ := json.Marshal(visible(body)) //nolint:errchkjson // a string always encodes
	return text
}

// visible is a message as text. It shows bytes that are not UTF-8 as \xdf.
func visible(message []byte) string {
	if utf8.Valid(message) {
		return string(message)
	}
	var b strings.Builder
	for len(message) > 0 {
		r, size := utf8.DecodeRune(message)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, message[0])
		} else {
			b.Write(message[:size])
		}
		message = message[size:]
	}
	return b.String()
}
