package eventing

import (
	"context"
	"fmt"
	"slices"
)

// On returns a Handler that decodes an event's data into a T, strictly as Event.Decode does, and calls handle with both. It
// rejects an event whose data is not a T, without calling handle.
func On[T any](handle func(ctx context.Context, e Event, data T) error) Handler {
	return func(ctx context.Context, e Event) error {
		var data T
		if err := e.Decode(&data); err != nil {
			return err
		}
		return handle(ctx, e, data)
	}
}

// Typed is an event with its decoded data.
type Typed[T any] struct {
	Event Event
	Data  T
}

// OnBatch returns a BulkHandler that decodes each event's data into a T, as On does, and calls handle with the events that
// it could decode, if there are any. It rejects the others. handle returns an error, or nil, for each event that it got.
func OnBatch[T any](handle func(ctx context.Context, events []Typed[T]) []error) BulkHandler {
	return func(ctx context.Context, events []Event) []error {
		errs := make([]error, len(events))
		decoded, at := make([]Typed[T], 0, len(events)), make([]int, 0, len(events))
		for i, e := range events {
			one := Typed[T]{Event: e}
			if errs[i] = e.Decode(&one.Data); errs[i] == nil {
				decoded, at = append(decoded, one), append(at, i)
			}
		}
		if len(decoded) > 0 {
			scatter(errs, at, handle(ctx, decoded))
		}
		return errs
	}
}

// OfType returns a BulkHandler that calls handle with the events of one type, if there are any, and acknowledges the others.
func OfType(eventType string, handle BulkHandler) BulkHandler {
	return func(ctx context.Context, events []Event) []error {
		errs := make([]error, len(events))
		ours, at := make([]Event, 0, len(events)), make([]int, 0, len(events))
		for i, e := range events {
			if e.Type == eventType {
				ours, at = append(ours, e), append(at, i)
			}
		}
		if len(ours) > 0 {
			scatter(errs, at, handle(ctx, ours))
		}
		return errs
	}
}

// scatter puts the outcomes of a handler that got some events of a batch at those events' positions in the batch.
func scatter(errs []error, at []int, outcomes []error) {
	outcomes = oneEach(outcomes, len(at))
	for n, i := range at {
		errs[i] = outcomes[n]
	}
}

// oneEach returns the outcomes of n events. A handler that returned another number of outcomes failed for all of them.
func oneEach(outcomes []error, n int) []error {
	if len(outcomes) == n {
		return outcomes
	}
	return slices.Repeat([]error{fmt.Errorf("the handler returned %d outcomes for %d events", len(outcomes), n)}, n)
}
