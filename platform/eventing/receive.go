package eventing

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/retryable"
)

// Receiver accepts deliveries from the sidecar, calls their handlers, and dead-letters the events that can never be processed.
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

// ReceiverOptions are the settings and dependencies of a Receiver.
type ReceiverOptions struct {
	// App is the name of this service. Its dead letters carry it.
	App string
	// Token is the app API token that the sidecar sends (APP_API_TOKEN). Without one, only requests from this host are accepted.
	Token     string
	Publisher *Publisher
	// OnDeadLetter, if set, is called for each dead-lettered event before the event is acknowledged. If it fails with a
	// retryable error, the event is delivered again. Any other error is logged, and the event is dead-lettered.
	OnDeadLetter func(ctx context.Context, topic string, e Event) error
	// BrokerRetries says that the sidecar has no policy to retry, and that the broker delivers again what the sidecar returns.
	BrokerRetries bool
	Logger        *slog.Logger
}

const (
	// attemptsPerDelivery is how many times a failing event is tried before it is dead-lettered. firstRetryDelay is the pause
	// after the first failure; it doubles after each further one.
	attemptsPerDelivery = 4
	firstRetryDelay     = 50 * time.Millisecond
	// brokerPause is how long an event is held before it returns to the broker, which delivers it again at once and counts the
	// deliveries.
	brokerPause = 5 * time.Second
	// attemptTimeout bounds one attempt of one handler.
	attemptTimeout = 30 * time.Second
	// maxDelivery bounds one message that the sidecar delivers, and maxBulkEntry each message of a batch, in bytes.
	maxDelivery  = 16 << 20
	maxBulkEntry = 2 << 20
	// maxReason bounds the reason kept with a dead-lettered event, in bytes.
	maxReason = 2000
	// maxCutData bounds the data of an event that is too large for its dead-letter topic, in bytes.
	maxCutData = 64 << 10
)

// NewReceiver returns a Receiver of the given subscriptions. It refuses a subscription that is incomplete, such as one without a
// dead-letter topic, and a second subscription to one topic.
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
		metric.WithDescription("Events received, by type and outcome: done, dead_lettered, retry, ignored."))
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

// onlySidecar refuses requests without the app API token.
func (r *Receiver) onlySidecar(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.fromSidecar(req) {
			// 403, because a sidecar with a wrong token must retry: a 404 would make Dapr drop the event.
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

// verdict tells the sidecar what to do with a delivery. DROP is not used: in a batch it crashes the sidecar, and it dead-letters
// without a reason. A rejected event is dead-lettered here and acknowledged.
type verdict string

const (
	success verdict = "SUCCESS"
	retry   verdict = "RETRY"
)

func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, body any) {
	w.Header().Set("Content-Type", jsonContentType)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		r.logger.WarnContext(req.Context(), "delivery could not be answered; the sidecar delivers it again", slog.Any("error", err))
	}
}

func (r *Receiver) answerVerdict(w http.ResponseWriter, req *http.Request, v verdict) {
	r.hold(req.Context(), v)
	r.answer(w, req, map[string]verdict{"status": v})
}

// hold delays an answer that asks for redelivery, if the broker would redeliver at once.
func (r *Receiver) hold(ctx context.Context, verdicts ...verdict) {
	if r.retryPause > 0 && slices.Contains(verdicts, retry) {
		sleep(ctx, r.retryPause)
	}
}

// receive handles the deliveries of one route. The event's own type selects the handler, not the route that the sidecar's rules
// chose: so an event on a wrong route is not acknowledged without being handled.
func (r *Receiver) receive(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		e, ok := r.read(w, req, s)
		if ok {
			r.answerVerdict(w, req, r.process(req.Context(), s, e))
		}
	}
}

// identified rejects an event without a type or an id: it is not a CloudEvent, and handlers need both.
func identified(e Event) error {
	if e.Type == "" || e.ID == "" {
		return Reject(errors.New("the event has no type or no id"))
	}
	return nil
}

// panicked logs where a handler panicked, and returns the error of the attempt.
func (r *Receiver) panicked(ctx context.Context, p any) error {
	r.logger.ErrorContext(ctx, "event handler panicked; the attempt failed", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	return fmt.Errorf("the handler panicked: %v", p)
}

// process calls the handler of the event's type, if there is one, in the event's own trace, and settles the outcome.
func (r *Receiver) process(ctx context.Context, s Subscription, e Event) verdict {
	ctx = e.Trace(ctx)
	if err := identified(e); err != nil {
		return r.settle(ctx, s, e, err)
	}
	handle, ok := s.Handlers[e.Type]
	if !ok {
		r.logger.DebugContext(ctx, "event handled", eventAttrs(s, e), slog.String("outcome", "ignored"))
		r.count(ctx, "other", "ignored", 1)
		return success
	}
	ctx, span := otel.Tracer("waybill/platform/eventing").Start(ctx, "process "+e.Type, processing(s, e)...)
	defer span.End()
	return r.settle(ctx, s, e, r.attempt(ctx, span, e, handle))
}

// processing are the options of the span of an event's handler.
func processing(s Subscription, e Event, links ...trace.Link) []trace.SpanStartOption {
	return []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(attribute.String("messaging.message.id", e.ID), attribute.String("messaging.destination.name", s.Topic)),
	}
}

// attempt calls the handler, and again with backoff while it fails and is not rejected. The span records how it ended.
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

// abandoned is the error of a delivery that ended before its event was tried often enough. It is retryable, because the event is
// delivered again.
func abandoned(ctx context.Context, err error) error {
	// The ended context is wrapped first, because it decides that the error is retryable.
	return fmt.Errorf("%[2]w; the delivery ended: %[1]w", context.Cause(ctx), err)
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

// timedOut makes the error of an attempt that used up its time permanent: a handler that needs more time than one attempt has
// needs it every time. An error that names its cause, such as an unavailable store, stays as it is, and so does the error of a
// delivery that ended.
func timedOut(delivery, attempt context.Context, err error) error {
	if err == nil || attempt.Err() == nil || delivery.Err() != nil {
		return err
	}
	if _, because := retryable.Decide(err); because != context.DeadlineExceeded { //nolint:errorlint // only the bare error
		return err
	}
	return retryable.Permanent(fmt.Errorf("the handler did not finish within %v: %w", attemptTimeout, err))
}

// final is the error with which an event is dead-lettered.
func (r *Receiver) final(err error) error {
	if Rejected(err) {
		return err
	}
	return fmt.Errorf("failed %d times, the last time with: %w", r.attempts, err)
}

// settle turns the outcome of a handler into a verdict. It dead-letters the event if no retry can help.
func (r *Receiver) settle(ctx context.Context, s Subscription, e Event, err error) verdict {
	if Retryable(err) {
		r.logRetry(ctx, s, e, err, 1)
	}
	return r.settleQuietly(ctx, s, e, err)
}

// logRetry logs that an event, and others of its delivery for the same reason, will be retried.
func (r *Receiver) logRetry(ctx context.Context, s Subscription, e Event, err error, events int) {
	message := "event handler failed; will retry"
	if ctx.Err() != nil { // what the handler failed with is then only a consequence
		message = "sidecar ended the delivery before the event was handled; will retry"
	}
	r.logger.WarnContext(ctx, message, eventAttrs(s, e), slog.Int("events", events), slog.Any("error", err))
}

// settleQuietly is settle without the log line of a retry.
func (r *Receiver) settleQuietly(ctx context.Context, s Subscription, e Event, err error) verdict {
	outcome, v := outcomeDone, success
	switch {
	case err == nil:
	case Retryable(err):
		outcome, v = "retry", retry
	default:
		outcome = "dead_lettered"
		if deadErr := r.deadLetter(ctx, s, e, r.final(err)); deadErr != nil {
			outcome, v = "retry", retry
			r.logger.ErrorContext(ctx, "event could not be dead-lettered; will retry", eventAttrs(s, e), slog.Any("error", deadErr))
		}
	}
	r.logger.DebugContext(ctx, "event handled", eventAttrs(s, e), slog.String("outcome", outcome))
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
