package eventing

import (
	"context"
	"encoding/json"
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

type bulkRequest struct {
	Entries []struct {
		EntryID  string            `json:"entryId"`
		Event    json.RawMessage   `json:"event"`
		Metadata map[string]string `json:"metadata"`
	} `json:"entries"`
}

type bulkStatus struct {
	EntryID string  `json:"entryId"`
	Status  verdict `json:"status"`
}

func (r *Receiver) receiveBulk(s Subscription) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := req.Context()
		var batch bulkRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxDelivery)).Decode(&batch); err != nil {
			r.logger.WarnContext(ctx, "a bulk delivery could not be read", slog.Any("error", err))
			http.Error(w, "unreadable", http.StatusInternalServerError)
			return
		}
		statuses := make([]bulkStatus, len(batch.Entries))
		events := make([]Event, 0, len(batch.Entries))
		index := make([]int, 0, len(batch.Entries))
		for i, entry := range batch.Entries {
			statuses[i].EntryID = entry.EntryID
			var e Event
			if err := json.Unmarshal(entry.Event, &e); err != nil {
				statuses[i].Status = r.settle(ctx, s, Event{Data: jsonOrText(entry.Event)}, notCloudEvent(err))
				continue
			}
			e.Key = keyOf(func(name string) string { return entry.Metadata[name] })
			if err := identified(e); err != nil {
				statuses[i].Status = r.settle(e.Trace(ctx), s, e, err)
				continue
			}
			events, index = append(events, e), append(index, i)
		}
		for i, err := range r.processBulk(ctx, s, events) {
			statuses[index[i]].Status = r.settle(events[i].Trace(ctx), s, events[i], err)
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

// processBulk runs the bulk handler under a span of its own, which links to the events' traces.
func (r *Receiver) processBulk(ctx context.Context, s Subscription, events []Event) []error {
	if len(events) == 0 {
		return nil
	}
	var links []trace.Link
	for _, e := range events {
		if link := trace.LinkFromContext(e.Trace(ctx)); link.SpanContext.IsValid() {
			links = append(links, link)
		}
	}
	ctx, span := otel.Tracer("waybill/platform/eventing").Start(ctx, "process "+s.Topic, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(links...), trace.WithAttributes(attribute.Int("messaging.batch.message_count", len(events)),
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
