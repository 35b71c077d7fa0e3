package eventing

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// BulkHandler processes events that arrived together and returns an error, or nil, for each, with Handler's meaning.
type BulkHandler func(ctx context.Context, events []Event) []error

// Bulk is how events are gathered into batches: delivered when MaxMessages are there or MaxAwait has passed.
type Bulk struct {
	MaxMessages int
	MaxAwait    time.Duration
	// Handle, when set, takes every event; else the subscription's Handlers take those of their types, one after the other.
	Handle BulkHandler
}

// errBehind is the outcome of an event whose turn has not come.
var errBehind = fmt.Errorf("%w: an event before it, with the same key, was not processed yet", ErrUnavailable)

// oneByOne is the BulkHandler of a subscription whose Handlers take single events. What comes behind an event that may yet be
// processed waits for it when both have one key, so that the order of a key holds.
func (r *Receiver) oneByOne(s Subscription) BulkHandler {
	return func(ctx context.Context, events []Event) []error {
		errs := make([]error, len(events))
		waiting := map[string]bool{}
		for i, e := range events {
			handle, ok := s.Handlers[e.Type]
			switch {
			case e.Key != "" && waiting[e.Key]:
				errs[i] = errBehind
			case ok:
				errs[i] = r.call(e.Trace(ctx), func(ctx context.Context) error { return handle(ctx, e) })
				waiting[e.Key] = errs[i] != nil && !Rejected(errs[i])
			}
		}
		return errs
	}
}

type bulkStatus struct {
	EntryID string  `json:"entryId"`
	Status  verdict `json:"status"`
}

func (r *Receiver) receiveBulk(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := req.Context()
		entries, err := readDelivery(w, req)
		if err != nil {
			r.logger.WarnContext(ctx, "a bulk delivery could not be read", slog.Any("error", err))
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
		each := r.logger.Enabled(ctx, slog.LevelDebug)
		for i, err := range r.processBulk(ctx, s, events) {
			if err == nil && !each {
				statuses[index[i]].Status = success
				done[events[i].Type]++
				continue
			}
			statuses[index[i]].Status = r.settle(events[i].Trace(ctx), s, events[i], err)
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

func readDelivery(w http.ResponseWriter, req *http.Request) ([]entry, error) {
	var body bytes.Buffer
	if n := req.ContentLength; n > 0 && n <= maxDelivery {
		body.Grow(int(n) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, req.Body, maxDelivery)); err != nil {
		return nil, err
	}
	return readBatch(body.Bytes())
}

// maxLinks is how many links a span keeps (OpenTelemetry's own limit); it would drop the others one by one.
const maxLinks = 128

// links are those to the events' traces.
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

// processBulk runs the bulk handler under a span of its own, which links to the events' traces.
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

// attemptBulk gives events to the bulk handler, and those that failed again, as attempt does with a single one.
func (r *Receiver) attemptBulk(ctx context.Context, s Subscription, events []Event) []error {
	results := make([]error, len(events))
	pending := make([]int, len(events))
	for i := range events {
		pending[i] = i
	}
	for n, delay := 1, r.firstDelay; ; n, delay = n+1, delay*2 {
		batch := make([]Event, len(pending))
		for i, at := range pending {
			batch[i] = events[at]
		}
		errs := r.callBulk(ctx, s, batch)
		var failed []int
		for i, at := range pending {
			results[at] = errs[i]
			if errs[i] != nil && !Rejected(errs[i]) {
				failed = append(failed, at)
			}
		}
		if len(failed) == 0 || n == r.attempts {
			return results
		}
		if !sleep(ctx, delay) {
			for _, at := range failed {
				results[at] = abandoned(ctx, results[at])
			}
			return results
		}
		pending = failed
	}
}

func (r *Receiver) callBulk(ctx context.Context, s Subscription, batch []Event) (errs []error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			errs = slices.Repeat([]error{r.panicked(ctx, p)}, len(batch))
		}
	}()
	handle := s.Bulk.Handle
	if handle == nil {
		handle = r.oneByOne(s)
	}
	errs = handle(ctx, batch)
	if len(errs) != len(batch) {
		return slices.Repeat([]error{fmt.Errorf("the handler answered %d of %d events", len(errs), len(batch))}, len(batch))
	}
	return errs
}
