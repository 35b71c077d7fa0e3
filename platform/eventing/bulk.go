package eventing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/retryable"
)

// BulkHandler processes events that arrived together. It returns an error, or nil, for each event, with the meaning that it has
// for a Handler.
type BulkHandler func(ctx context.Context, events []Event) []error

// Bulk says how events are gathered into batches. A batch is delivered when it has MaxMessages or when MaxAwait has passed.
type Bulk struct {
	MaxMessages int
	MaxAwait    time.Duration
	// Handle, if set, handles every event. Otherwise the subscription's Handlers handle those of their types, one after the
	// other.
	Handle BulkHandler
	// Together are handlers by event type. Such a handler gets consecutive events of its type and of one key together. These
	// events must not depend on each other: if one fails, those behind it are handled nevertheless.
	Together map[string]BulkHandler
}

var (
	// errBehind is the outcome of an event that was not tried because an earlier one of its key will be retried.
	errBehind = retryable.New("an earlier event with the same key is not processed yet")
	// errNoTime is the outcome of an event that was not tried because others of its batch used up the time.
	errNoTime = retryable.New("other events of the batch used up the time")
)

// oneByOne calls the subscription's Handlers with single events, or those in Together with several. Behind an event that will be
// retried, events of the same key wait, so that the order of a key holds. Each call has an attempt's time for itself. No call
// begins once that time has passed since the first, so that an event does not fail because another was slow.
func (r *Receiver) oneByOne(ctx context.Context, s Subscription, events []Event) []error {
	errs := make([]error, len(events))
	waiting := map[string]bool{}
	began := time.Now()
	var next int
	for i := 0; i < len(events); i = next {
		e := events[i]
		next = i + together(s, events[i:])
		handle, ok := s.Handlers[e.Type]
		switch {
		case e.Key != "" && waiting[e.Key]:
			fill(errs[i:next], errBehind)
		case ok && i > 0 && time.Since(began) >= attemptTimeout:
			fill(errs[i:next], errNoTime)
			waiting[e.Key] = true
		case ok && next > i+1:
			copy(errs[i:], r.callTogether(e.Trace(ctx), s.Bulk.Together[e.Type], events[i:next]))
			waiting[e.Key] = slices.ContainsFunc(errs[i:next], func(err error) bool { return err != nil && !Rejected(err) })
		case ok:
			errs[i] = r.call(e.Trace(ctx), func(ctx context.Context) error { return handle(ctx, e) })
			waiting[e.Key] = errs[i] != nil && !Rejected(errs[i])
		}
	}
	return errs
}

// together is how many of the first events one call gets.
func together(s Subscription, events []Event) int {
	n, first := 1, events[0]
	if s.Bulk.Together[first.Type] == nil || first.Key == "" {
		return n
	}
	for n < len(events) && events[n].Type == first.Type && events[n].Key == first.Key {
		n++
	}
	return n
}

// alone is s without Together: its handlers by event type get each event alone.
func alone(s Subscription) Subscription {
	bulk := *s.Bulk
	bulk.Together = nil
	s.Bulk = &bulk
	return s
}

func fill(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}

type bulkStatus struct {
	EntryID string  `json:"entryId"`
	Status  verdict `json:"status"`
}

func (r *Receiver) receiveBulk(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := req.Context()
		entries, err := readDelivery(w, req, s.Bulk.MaxMessages)
		if err != nil {
			r.logger.WarnContext(ctx, "bulk delivery could not be read; will retry", slog.Any("error", err))
			http.Error(w, "unreadable", http.StatusInternalServerError)
			return
		}
		statuses := make([]bulkStatus, len(entries))
		events := make([]Event, 0, len(entries))
		index := make([]int, 0, len(entries))
		for i, one := range entries {
			statuses[i].EntryID = one.id
			err := one.err
			if err == nil {
				err = identified(one.event)
			}
			if err != nil {
				statuses[i].Status = r.settle(one.event.Trace(ctx), s, one.event, err)
				continue
			}
			events, index = append(events, one.event), append(index, i)
		}
		done := map[string]int64{} // by type
		var retries retryLog
		each := r.logger.Enabled(ctx, slog.LevelDebug)
		for i, err := range r.processBulk(ctx, s, events) {
			if err == nil && !each {
				statuses[index[i]].Status = success
				done[events[i].Type]++
				continue
			}
			if Retryable(err) {
				retries.add(events[i], err)
			}
			statuses[index[i]].Status = r.settleQuietly(events[i].Trace(ctx), s, events[i], err)
		}
		for _, same := range retries {
			r.logRetry(same.event.Trace(ctx), s, same.event, same.err, same.events)
		}
		for eventType, n := range done {
			r.count(ctx, eventType, outcomeDone, n)
		}
		for _, status := range statuses {
			if status.Status == retry {
				r.hold(ctx, retry)
				break
			}
		}
		r.answer(w, req, map[string][]bulkStatus{"statuses": statuses})
	}
}

// retryLog are the events of a batch that will be retried, by type and reason: when a dependency is unavailable, a batch logs one line
// for each type and not one for each event.
type retryLog []retried

type retried struct {
	event  Event // the first one
	err    error
	reason error // the error that decides that err is retryable
	events int
}

func (l *retryLog) add(e Event, err error) {
	_, reason := retryable.Decide(err)
	for i := range *l {
		if same := &(*l)[i]; same.event.Type == e.Type && errors.Is(reason, same.reason) {
			same.events++
			return
		}
	}
	*l = append(*l, retried{e, err, reason, 1})
}

// readDelivery reads a bulk delivery of up to messages events. Its size limit fits a batch of the largest events that the broker
// accepts, because a refused batch is delivered again unchanged.
func readDelivery(w http.ResponseWriter, req *http.Request, messages int) ([]entry, error) {
	limit := max(maxDelivery, int64(messages)*maxBulkEntry)
	var body bytes.Buffer
	if n := req.ContentLength; n > 0 && n <= limit {
		body.Grow(int(n) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, req.Body, limit)); err != nil {
		return nil, err
	}
	return readBatch(body.Bytes())
}

// maxLinks is how many links a span keeps (OpenTelemetry's own limit).
const maxLinks = 128

// links are the span links to the events' traces.
func links(ctx context.Context, events []Event) []trace.Link {
	var found []trace.Link
	before := ""
	for i := range events {
		if events[i].traceParent == before {
			continue // published together
		}
		before = events[i].traceParent
		if link := trace.LinkFromContext(events[i].Trace(ctx)); link.SpanContext.IsValid() {
			if found = append(found, link); len(found) == maxLinks {
				break
			}
		}
	}
	return found
}

// processBulk calls the bulk handler in a span of its own, which links to the events' traces.
func (r *Receiver) processBulk(ctx context.Context, s Subscription, events []Event) []error {
	if len(events) == 0 {
		return nil
	}
	ctx, span := otel.Tracer("waybill/platform/eventing").Start(ctx, "process "+s.Topic, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(links(ctx, events)...), trace.WithAttributes(attribute.Int("messaging.batch.message_count", len(events)),
			attribute.String("messaging.destination.name", s.Topic)))
	defer span.End()
	errs := r.attemptBulk(ctx, s, events)
	for _, err := range errs {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, "not all processed")
		}
	}
	return errs
}

// attemptBulk calls the bulk handler, and again with the events that failed, as attempt does with a single event. In the last
// attempt the handler gets each event alone that would otherwise be dead-lettered: one event can make a handler fail for its
// whole batch, and the others must not be dead-lettered with it.
func (r *Receiver) attemptBulk(ctx context.Context, s Subscription, events []Event) []error {
	results := make([]error, len(events))
	pending := make([]int, len(events))
	for i := range events {
		pending[i] = i
	}
	for n, delay := 1, r.firstDelay; ; n, delay = n+1, delay*2 {
		if n == r.attempts {
			r.lastAttempt(ctx, alone(s), events, pending, results)
			return results
		}
		r.attemptTogether(ctx, s, events, pending, results)
		pending = slices.DeleteFunc(pending, func(at int) bool { return results[at] == nil || Rejected(results[at]) })
		if len(pending) == 0 {
			return results
		}
		if !sleep(ctx, delay) {
			for _, at := range pending {
				results[at] = abandoned(ctx, results[at])
			}
			return results
		}
	}
}

// attemptTogether calls the handler with the pending events as one batch.
func (r *Receiver) attemptTogether(ctx context.Context, s Subscription, events []Event, pending []int, results []error) {
	batch := make([]Event, len(pending))
	for i, at := range pending {
		batch[i] = events[at]
	}
	for i, err := range r.callBulk(ctx, s, batch) {
		results[pending[i]] = err
	}
}

// lastAttempt calls the handler with all events together that failed with a retryable error, and then with each of the others
// alone.
func (r *Receiver) lastAttempt(ctx context.Context, s Subscription, events []Event, pending []int, results []error) {
	together := slices.DeleteFunc(slices.Clone(pending), func(at int) bool { return s.Bulk.Handle != nil && !Retryable(results[at]) })
	if len(together) > 0 {
		r.attemptTogether(ctx, s, events, together, results)
	}
	began, alone := time.Now(), 0
	for _, at := range pending {
		if slices.Contains(together, at) {
			continue
		}
		if alone > 0 && time.Since(began) >= attemptTimeout {
			results[at] = errNoTime // it is delivered again, with fewer others
			continue
		}
		alone++
		results[at] = r.callBulk(ctx, s, events[at:at+1])[0]
	}
}

func (r *Receiver) callBulk(ctx context.Context, s Subscription, batch []Event) []error {
	if s.Bulk.Handle == nil {
		return r.oneByOne(ctx, s, batch)
	}
	return r.callTogether(ctx, s.Bulk.Handle, batch)
}

func (r *Receiver) callTogether(ctx context.Context, handle BulkHandler, batch []Event) (errs []error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			errs = slices.Repeat([]error{r.panicked(ctx, p)}, len(batch))
		}
	}()
	errs = handle(attempt, batch)
	errs = oneEach(errs, len(batch))
	for i := range errs {
		errs[i] = timedOut(ctx, attempt, errs[i])
	}
	return errs
}
