package eventing

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/retryable"
	"waybill/platform/strictjson"
)

// Handler processes one event. It must be idempotent: an event can arrive again whatever was answered. A nil error
// acknowledges the event. An error made by Reject dead-letters it at once, one made by Retry has it delivered again until it
// is processed. Any other error is judged by Retryable: a retryable one is retried without a limit, any other one a few
// times, and then the event is dead-lettered.
type Handler func(ctx context.Context, e Event) error

// Reject says that the event can never be processed. The error's text is kept as the reason with the dead letter.
func Reject(err error) error { return &handlerVerdict{err, false} }

// Retry says that the event must be tried again until it is processed, whatever err is.
func Retry(err error) error { return &handlerVerdict{err, true} }

// handlerVerdict is an error with what the handler decided about its event.
type handlerVerdict struct {
	error

	retry bool
}

func (v *handlerVerdict) Unwrap() error { return v.error }

// Retryable makes it a retryable.Marker.
func (v *handlerVerdict) Retryable() bool { return v.retry }

// Rejected reports whether the handler decided by Reject.
func Rejected(err error) bool {
	var v *handlerVerdict
	return errors.As(err, &v) && !v.retry
}

// Retryable reports whether an event whose handler failed with err is tried again without a limit. What the handler decided,
// by Reject or Retry, counts first; else the platform's one rule decides (package retryable).
func Retryable(err error) bool {
	if v, ok := errors.AsType[*handlerVerdict](err); ok {
		return v.retry
	}
	return retryable.Is(err)
}

// Receiver takes deliveries from the sidecar, gives them to handlers, and dead-letters what can never be processed.
type Receiver struct {
	app           string
	token         string
	publisher     *Publisher
	onDeadLetter  func(ctx context.Context, topic string, e Event) error
	logger        *slog.Logger
	subscriptions []Subscription
	attempts      int
	firstDelay    time.Duration
	brokerRetries bool
	retryPause    time.Duration
	outcomes      metric.Int64Counter
}

// ReceiverOptions is what a Receiver needs to know.
type ReceiverOptions struct {
	// App is this service's name, recorded with what it dead-letters.
	App string
	// Token is the app API token that the sidecar shows (APP_API_TOKEN). Without one, only this host is answered.
	Token     string
	Publisher *Publisher
	// OnDeadLetter, when set, is called for every dead-lettered event before the event is acknowledged. A retryable error of it
	// makes the event come again; any other is logged, because it must not keep the event from its dead-letter topic.
	OnDeadLetter func(ctx context.Context, topic string, e Event) error
	// BrokerRetries says that no policy makes the sidecar retry, and that the broker delivers again what comes back.
	BrokerRetries bool
	Logger        *slog.Logger
}

const (
	// attemptsPerDelivery is how often a failing event is tried before it is deadLettered, firstRetryDelay the pause after the
	// first failure, doubled after each further one.
	attemptsPerDelivery = 4
	firstRetryDelay     = 50 * time.Millisecond
	// brokerPause is how long an event is held before it goes back to a broker, which delivers it again at once and counts
	// how often it did.
	brokerPause = 5 * time.Second
	// attemptTimeout bounds one attempt of one handler.
	attemptTimeout = 30 * time.Second
	// maxDelivery bounds one message that the sidecar delivers, and maxBulkEntry how much a batch has for each of its
	// messages, in bytes.
	maxDelivery  = 16 << 20
	maxBulkEntry = 2 << 20
	// maxReason bounds the reason kept with a dead-lettered event, in bytes.
	maxReason = 2000
	// maxCutData bounds the data that is kept of an event that is too large for its dead-letter topic, in bytes.
	maxCutData = 64 << 10
)

// NewReceiver returns a Receiver of the given subscriptions. It refuses a subscription that could neither dead-letter
// an event nor take whatever comes.
func NewReceiver(o ReceiverOptions, subscriptions ...Subscription) (*Receiver, error) {
	topics := map[string]bool{}
	for _, s := range subscriptions {
		if err := s.fault(); err != nil {
			return nil, err
		}
		if topics[s.Topic] {
			return nil, fmt.Errorf("there are two subscriptions to %q", s.Topic)
		}
		topics[s.Topic] = true
	}
	outcomes, err := otel.Meter("waybill/platform/eventing").Int64Counter("waybill.events.received",
		metric.WithDescription("Events received, by type and outcome: done, deadLettered, retry, ignored."))
	if err != nil {
		return nil, fmt.Errorf("count received events: %w", err)
	}
	r := &Receiver{
		app: o.App, token: o.Token, publisher: o.Publisher, onDeadLetter: o.OnDeadLetter, logger: o.Logger,
		subscriptions: subscriptions, attempts: attemptsPerDelivery, firstDelay: firstRetryDelay,
		brokerRetries: o.BrokerRetries, outcomes: outcomes,
	}
	if o.BrokerRetries {
		r.retryPause = brokerPause
	}
	return r, nil
}

// Mount adds the routes that the sidecar calls: /dapr/subscribe and one below /events for each subscription and type.
func (r *Receiver) Mount(router chi.Router) {
	router.Group(func(router chi.Router) {
		router.Use(r.onlySidecar)
		router.Get("/dapr/subscribe", r.describe)
		for _, s := range r.subscriptions {
			switch {
			case s.Raw != nil:
				router.Post(otherPath(s), r.receiveRaw(s))
			case s.Bulk != nil:
				router.Post(bulkPath(s), r.receiveBulk(s))
			default:
				router.Post(otherPath(s), r.receive(s))
				for eventType := range s.Handlers {
					router.Post(typePath(s, eventType), r.receive(s))
				}
			}
		}
	})
}

// onlySidecar refuses everybody who does not show the app API token.
func (r *Receiver) onlySidecar(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.fromSidecar(req) {
			// 403, for a sidecar that lost its token must retry: a 404 would make Dapr drop the event.
			http.Error(w, "only the Dapr sidecar may call this", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (r *Receiver) fromSidecar(req *http.Request) bool {
	if r.token != "" {
		return subtle.ConstantTimeCompare([]byte(req.Header.Get("Dapr-Api-Token")), []byte(r.token)) == 1
	}
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback()
}

// verdict is what the sidecar shall do with a delivery. DROP is not among them: in bulk it crashes the sidecar, and it
// dead-letters without a reason; a rejected event is dead-lettered here and acknowledged.
type verdict string

const (
	success verdict = "SUCCESS"
	retry   verdict = "RETRY"
)

func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, body any) {
	w.Header().Set("Content-Type", jsonContentType)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		r.logger.WarnContext(req.Context(), "the sidecar's request was not answered", slog.Any("error", err))
	}
}

func (r *Receiver) answerVerdict(w http.ResponseWriter, req *http.Request, v verdict) {
	r.hold(req.Context(), v)
	r.answer(w, req, map[string]verdict{"status": v})
}

// hold delays an answer that has something delivered again, where that would happen at once.
func (r *Receiver) hold(ctx context.Context, verdicts ...verdict) {
	if r.retryPause > 0 && slices.Contains(verdicts, retry) {
		sleep(ctx, r.retryPause)
	}
}

// What a delivery's metadata calls the key that orders events.
const (
	kafkaKey      = "__key"
	serviceBusKey = "metadata.SessionId"
)

// keyOf is the key that orders events, from a delivery's metadata.
func keyOf(metadata func(name string) string) string {
	return cmp.Or(metadata(kafkaKey), metadata(serviceBusKey))
}

// receive takes the deliveries of one route. The event's own type decides who handles it, not the route on which the
// sidecar's rules sent it: an event that took the wrong one is not acknowledged unseen.
func (r *Receiver) receive(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		e, ok := r.read(w, req, s)
		if ok {
			r.answerVerdict(w, req, r.process(req.Context(), s, e))
		}
	}
}

// identified rejects an event without a type or an id: it is no CloudEvent, and handlers tell events by them.
func identified(e Event) error {
	if e.Type == "" || e.ID == "" {
		return Reject(errors.New("the event has no type or no id"))
	}
	return nil
}

// read decodes a delivery. What cannot be decoded never will be, so it is dead-lettered as it came.
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

// errTooLarge is why a delivery is not read to its end.
var errTooLarge = fmt.Errorf("the message has more than %d bytes", maxDelivery)

// readBody reads a delivery, or asks for it again when it breaks off. With errTooLarge comes the beginning of one that is too
// large.
func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request) (body []byte, ok bool, tooLarge error) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxDelivery+1))
	if err == nil && len(body) > maxDelivery {
		// The sidecar wrote it all the same, and would take a broken connection for a failure.
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

// panicked logs where a handler panicked, for an error does not tell.
func (r *Receiver) panicked(ctx context.Context, p any) error {
	r.logger.ErrorContext(ctx, "event handler panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	return fmt.Errorf("the handler panicked: %v", p)
}

// process runs the handler of the event's type, if there is one, under the event's own trace and settles the outcome.
func (r *Receiver) process(ctx context.Context, s Subscription, e Event) verdict {
	ctx = e.Trace(ctx)
	if err := identified(e); err != nil {
		return r.settle(ctx, s, e, err)
	}
	handle, ok := s.Handlers[e.Type]
	if !ok {
		r.logger.DebugContext(ctx, "event taken", eventAttrs(s, e), slog.String("outcome", "ignored"))
		r.count(ctx, "other", "ignored", 1)
		return success
	}
	ctx, span := otel.Tracer("waybill/platform/eventing").Start(ctx, "process "+e.Type, processing(s, e)...)
	defer span.End()
	return r.settle(ctx, s, e, r.attempt(ctx, span, e, handle))
}

// processing describes the span under which an event is handled.
func processing(s Subscription, e Event, links ...trace.Link) []trace.SpanStartOption {
	return []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(attribute.String("messaging.message.id", e.ID), attribute.String("messaging.destination.name", s.Topic)),
	}
}

// attempt calls the handler, again with growing pauses while it fails for a reason that may pass. The span tells how it ended.
func (r *Receiver) attempt(ctx context.Context, span trace.Span, e Event, handle Handler) (err error) {
	defer func() {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, "not processed")
		}
	}()
	for n, delay := 1, r.firstDelay; ; n, delay = n+1, delay*2 {
		err := r.call(ctx, func(ctx context.Context) error { return handle(ctx, e) })
		if err == nil || Rejected(err) || n == r.attempts {
			return err
		}
		if !sleep(ctx, delay) {
			return abandoned(ctx, err)
		}
	}
}

// abandoned makes the error of a delivery that nobody waits for any more one that passes: the event was not tried as often
// as it should be, and comes again.
func abandoned(ctx context.Context, err error) error {
	return fmt.Errorf("the delivery ended: %w, after: %w", context.Cause(ctx), err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (r *Receiver) call(ctx context.Context, handle func(context.Context) error) (err error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = r.panicked(ctx, p)
		}
	}()
	return timedOut(ctx, attempt, handle(attempt))
}

// timedOut makes the error of an attempt that used up its time one that is not retryable: a handler that needs more than an
// attempt's time for an event needs it each time. An error that names what was waited for, such as a store that is
// unavailable, stays as it is, and so does one of a delivery that ended.
func timedOut(delivery, attempt context.Context, err error) error {
	if err == nil || attempt.Err() == nil || delivery.Err() != nil {
		return err
	}
	if _, because := retryable.Decide(err); because != context.DeadlineExceeded { //nolint:errorlint // only the bare error
		return err
	}
	return retryable.Permanent(fmt.Errorf("the handler did not finish within %v: %w", attemptTimeout, err))
}

// final is the error of an event that is given up.
func (r *Receiver) final(err error) error {
	if Rejected(err) {
		return err
	}
	return fmt.Errorf("failed %d times, the last time with: %w", r.attempts, err)
}

// settle turns a handler's outcome into a verdict, and dead-letters the event where no retry can help.
func (r *Receiver) settle(ctx context.Context, s Subscription, e Event, err error) verdict {
	outcome, v := outcomeDone, success
	switch {
	case err == nil:
	case Retryable(err):
		outcome, v = "retry", retry
		r.logger.WarnContext(ctx, "event will be retried", eventAttrs(s, e), slog.Any("error", err))
	default:
		outcome = "dead_lettered"
		if deadErr := r.deadLetter(ctx, s, e, r.final(err)); deadErr != nil {
			outcome, v = "retry", retry
			r.logger.ErrorContext(ctx, "event could not be dead-lettered and will be retried", eventAttrs(s, e), slog.Any("error", deadErr))
		}
	}
	r.logger.DebugContext(ctx, "event taken", eventAttrs(s, e), slog.String("outcome", outcome))
	r.count(ctx, e.Type, outcome, 1)
	return v
}

// outcomeDone is the outcome of an event that was processed.
const outcomeDone = "done"

func (r *Receiver) count(ctx context.Context, eventType, outcome string, n int64) {
	r.outcomes.Add(ctx, n, metric.WithAttributes(attribute.String("type", eventType), attribute.String("outcome", outcome)))
}

func eventAttrs(s Subscription, e Event) slog.Attr {
	return slog.Group("event", slog.String("id", e.ID), slog.String("type", e.Type), slog.String("subject", e.Subject), slog.String("topic", s.Topic))
}

// Reason is what is kept of the error for which an event is dead-lettered.
func Reason(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

// UnknownID is the id of a message that has none, the same each time it is asked for.
func UnknownID(message []byte) string { return fmt.Sprintf("parked-%x", sha256.Sum256(message)) }

// deadLetter puts the event on the dead-letter topic together with the reason. An event that the topic does not take, because it
// is too large or because of an attribute that no event may have, is cut to what it takes.
func (r *Receiver) deadLetter(ctx context.Context, s Subscription, e Event, reason error) error {
	e.DeadLetter = &DeadLetter{By: r.app, Reason: Reason(reason), At: time.Now()}
	if e.ID == "" {
		e.ID = UnknownID(e.Data)
	}
	if e.Type == "" {
		e.Type = "unknown"
	}
	if e.Source == "" {
		e.Source = "unknown"
	}
	if r.onDeadLetter != nil {
		err := r.onDeadLetter(ctx, s.Topic, e)
		switch {
		case Retryable(err):
			return fmt.Errorf("announce the dead letter: %w", err)
		case err != nil:
			r.logger.ErrorContext(ctx, "dead letter could not be announced; it is dead-lettered all the same", eventAttrs(s, e), slog.Any("error", err))
		}
	}
	publisher := r.publisher.On(s.Component)
	err := publisher.Publish(ctx, s.DeadLetter, e)
	if retryable.IsPermanent(err) {
		r.logger.WarnContext(ctx, "event does not fit on its dead-letter topic and is cut", eventAttrs(s, e), slog.Any("error", err))
		err = publisher.Publish(ctx, s.DeadLetter, e.cut())
	}
	if err != nil {
		return err
	}
	r.logger.ErrorContext(ctx, "event dead-lettered", eventAttrs(s, e), slog.String("dead_letter", s.DeadLetter), slog.Any("reason", reason))
	return nil
}
