package eventing

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
)

// Message is one message of a topic as it came. It need not be an event.
type Message struct {
	Data []byte
	// Key is the partition key, if the transport passes it on.
	Key string
}

// RawHandler processes one message. It must be idempotent. A nil error acknowledges the message. After any other error the message
// is delivered again, without a limit, and the messages behind it wait: so it must fail with retryable errors only.
type RawHandler func(ctx context.Context, m Message) error

// receiveRaw handles the deliveries of a raw subscription. The sidecar wraps their messages.
func (r *Receiver) receiveRaw(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, ok, tooLarge := r.readBody(w, req)
		if !ok {
			return
		}
		ctx := req.Context()
		if tooLarge != nil {
			r.logger.ErrorContext(ctx, "message too large; only its beginning is kept", slog.String("topic", s.Topic), slog.Any("error", tooLarge))
		}
		m := Message{Data: unwrapped(body), Key: keyOf(req.Header.Get)}
		outcome, v := "done", success
		if err := r.call(ctx, func(ctx context.Context) error { return s.Raw(ctx, m) }); err != nil {
			outcome, v = "retry", retry
			level := slog.LevelWarn
			if !Retryable(err) {
				level = slog.LevelError // a raw subscription has no dead-letter topic, so the message blocks those behind it
			}
			r.logger.Log(ctx, level, "message handler failed; will retry", slog.String("topic", s.Topic), slog.Any("error", err))
		}
		r.count(ctx, "raw", outcome, 1)
		r.answerVerdict(w, req, v)
	}
}

// unwrapped is the message inside the CloudEvent that Dapr wraps it in. That CloudEvent has a random id and no other content.
func unwrapped(body []byte) []byte {
	var wrapped struct {
		Data *[]byte `json:"data_base64"`
	}
	if err := json.Unmarshal(body, &wrapped); err != nil || wrapped.Data == nil {
		return body // this sidecar does not wrap
	}
	return *wrapped.Data
}
