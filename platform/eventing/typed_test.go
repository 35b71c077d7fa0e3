package eventing

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

type confirmed struct {
	OrderID string    `json:"order_id"`
	At      time.Time `json:"at"`
}

func event(eventType, id, data string) Event {
	return Event{ID: id, Type: eventType, Data: []byte(data)}
}

func TestOnGivesTheDecodedData(t *testing.T) {
	t.Parallel()
	fails := errors.New("store unavailable")
	var got confirmed
	var id string
	handle := On(func(_ context.Context, e Event, data confirmed) error {
		id, got = e.ID, data
		return fails
	})
	if err := handle(t.Context(), event("Order.Placed", "1", `{"order_id":"ord-1","unknown":true}`)); !errors.Is(err, fails) {
		t.Errorf("got %v, want the handler's own error", err)
	}
	if id != "1" || got.OrderID != "ord-1" {
		t.Errorf("the handler got event %q with %+v", id, got)
	}
}

// undecodable is data that cannot be decoded into confirmed, and what the reason must contain.
var undecodable = map[string]struct{ data, reason string }{
	"no data":            {"", "no data"},
	"another type":       {`{"order_id":1}`, "order_id"},
	"a duplicate member": {`{"order_id":"a","order_id":"b"}`, "must appear once"},
	"a year beyond 9999": {`{"order_id":"a","at":"9999-12-31T23:59:59-12:00"}`, "0000 to 9999"},
}

func TestOnRejectsDataThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	for name, c := range undecodable {
		handle := On(func(context.Context, Event, confirmed) error {
			t.Errorf("%s: the handler was called", name)
			return nil
		})
		if err := handle(t.Context(), event("Order.Placed", "1", c.data)); !Rejected(err) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: got %v, want a rejection with %q", name, err, c.reason)
		}
	}
}

func TestOnBatchRejectsOnlyWhatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	fails := errors.New("store unavailable")
	for name, c := range undecodable {
		var got []string
		handle := OnBatch(func(_ context.Context, events []Typed[confirmed]) []error {
			for _, e := range events {
				got = append(got, e.Event.ID+"="+e.Data.OrderID)
			}
			return []error{nil, fails}
		})
		errs := handle(t.Context(), []Event{
			event("T", "1", `{"order_id":"a"}`), event("T", "2", c.data), event("T", "3", `{"order_id":"b"}`),
		})
		if want := []string{"1=a", "3=b"}; !slices.Equal(got, want) {
			t.Errorf("%s: the handler got %v, want %v", name, got, want)
		}
		if len(errs) != 3 || errs[0] != nil || !Rejected(errs[1]) || !strings.Contains(errs[1].Error(), c.reason) || !errors.Is(errs[2], fails) {
			t.Errorf("%s: got %v", name, errs)
		}
	}
}

func TestOfTypeAcknowledgesOtherTypes(t *testing.T) {
	t.Parallel()
	fails := errors.New("store unavailable")
	var got []string
	handle := OfType("A", func(_ context.Context, events []Event) []error {
		for _, e := range events {
			got = append(got, e.ID)
		}
		return []error{fails, nil}
	})
	errs := handle(t.Context(), []Event{event("B", "1", ""), event("A", "2", ""), event("C", "3", ""), event("A", "4", "")})
	if want := []string{"2", "4"}; !slices.Equal(got, want) {
		t.Errorf("the handler got %v, want %v", got, want)
	}
	if !slices.Equal(errs, []error{nil, fails, nil, nil}) {
		t.Errorf("got %v", errs)
	}
}

// A call may cost a request, so there is none without events.
func TestABatchHandlerIsNotCalledWithoutEvents(t *testing.T) {
	t.Parallel()
	unexpected := func(context.Context, []Typed[confirmed]) []error {
		t.Error("the handler was called")
		return nil
	}
	if errs := OfType("A", OnBatch(unexpected))(t.Context(), []Event{event("B", "1", "")}); !slices.Equal(errs, []error{nil}) {
		t.Errorf("an event of another type: got %v, want its acknowledgement", errs)
	}
	if errs := OnBatch(unexpected)(t.Context(), []Event{event("A", "1", "x")}); len(errs) != 1 || !Rejected(errs[0]) {
		t.Errorf("an event that cannot be decoded: got %v, want its rejection", errs)
	}
}

// Outcomes that cannot be matched to events must not acknowledge any.
func TestABatchHandlerMustReturnAnOutcomeForEachEvent(t *testing.T) {
	t.Parallel()
	handle := OnBatch(func(context.Context, []Typed[confirmed]) []error { return []error{nil} })
	errs := handle(t.Context(), []Event{event("T", "1", `{}`), event("T", "2", `{}`)})
	for _, err := range errs {
		if err == nil || Rejected(err) || !strings.Contains(err.Error(), "1 outcomes for 2 events") {
			t.Errorf("got %v", errs)
		}
	}
}
