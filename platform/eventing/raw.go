package eventing

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
)

// Message is one message of a topic as it came, whatever it is.
type Message struct {
	Data []byte
	// Key is the key that orders messages, where the transport shows it.
	Key string
}

// RawHandler takes one message. It must be idempotent. A nil error acknowledges the message; any other makes it come again,
// without end, and the messages behind it wait: so it fails only for reasons that pass.
type RawHandler func(ctx context.Context, m Message) error

// receiveRaw takes the deliveries of a raw subscription, which the sidecar wraps.
func (r *Receiver) receiveRaw(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, ok, tooLarge := r.readBody(w, req)
		if !ok {
			return
		}
		ctx := req.Context()
		if tooLarge != nil {
			r.logger.ErrorContext(ctx, "message is too large and is cut", slog.String("topic", s.Topic), slog.Any("error", tooLarge))
		}
		m := Message{Data: unwrapped(body), Key: keyOf(req.Header.Get)}
		outcome, v := "done", success
		if err := r.call(ctx, func(ctx context.Context) error { return s.Raw(ctx, m) }); err != nil {
			outcome, v = "retry", retry
			level := slog.LevelWarn
			if !Retryable(err) {
				level = slog.LevelError // there is nowhere else to put the message, so it stays where it is
			}
			r.logger.Log(ctx, level, "message will be retried", slog.String("topic", s.Topic), slog.Any("error", err))
		}
		r.count(ctx, "raw", outcome, 1)
		r.answerVerdict(w, req, v)
	}
}

// unwrapped is the message in the CloudEvent that Dapr makes of it, which has a random id and says nothing else.
func unwrapped(body []byte) []byte {
	var wrapped struct {
		Data *[]byte `json:"data_base64"`
	}
	if err := json.Unmarshal(body, &wrapped); err != nil || wrapped.Data == nil {
		return body // not from a sidecar that wraps
	}
	return *wrapped.Data
}
