package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/state"
)

// receiver has no publisher, so a test panics if an event is dead-lettered.
func receiver(t *testing.T, subscriptions ...Subscription) *Receiver {
	t.Helper()
	r, err := NewReceiver(ReceiverOptions{App: "app", Logger: slog.New(slog.DiscardHandler)}, subscriptions...)
	if err != nil {
		t.Fatal(err)
	}
	r.firstDelay = time.Millisecond
	return r
}

func TestRaw(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body, want, verdict string
		fail                func() error
	}{
		"wrapped":                     {`{"id":"random","data_base64":"bm8gSlNPTg=="}`, "no JSON", "SUCCESS", nil},
		"wrapped and empty":           {`{"id":"random","data_base64":""}`, "", "SUCCESS", nil},
		"not wrapped":                 {`{"id":"1"}`, `{"id":"1"}`, "SUCCESS", nil},
		"no JSON":                     {`no JSON`, `no JSON`, "SUCCESS", nil},
		"refused":                     {`{"data_base64":"YQ=="}`, "a", "RETRY", func() error { return Reject(errors.New("never")) }},
		"a store that is unavailable": {`{"data_base64":"YQ=="}`, "a", "RETRY", func() error { return state.ErrUnavailable }},
		"a panic":                     {`{"data_base64":"YQ=="}`, "a", "RETRY", func() error { panic("odd") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []Message
			r := receiver(t, Subscription{Component: "orderbus", Topic: deadLetter, Raw: func(_ context.Context, m Message) error {
				got = append(got, m)
				if c.fail == nil {
					return nil
				}
				return c.fail()
			}})
			x := &receiving{routes: chi.NewMux()}
			r.Mount(x.routes)
			w := x.do(t.Context(), http.MethodPost, "/events/"+deadLetter, c.body, map[string]string{"__key": "CUST-123"})
			if strings.TrimSpace(w.Body.String()) != `{"status":"`+c.verdict+`"}` {
				t.Errorf("answered %d %s, want %s", w.Code, w.Body, c.verdict)
			}
			if diff := cmp.Diff([]Message{{[]byte(c.want), "CUST-123"}}, got); diff != "" {
				t.Errorf("the handler got (-want +got):\n%s", diff)
			}
		})
	}
}

func deadLetteredPlaced(t *testing.T) Event {
	t.Helper()
	var e Event
	if err := json.Unmarshal([]byte(cloudEventOf("redriven")), &e); err != nil {
		t.Fatal(err)
	}
	e.Key, e.DeadLetter = "CUST-123", &DeadLetter{Reason: "why"}
	return e
}

func TestRedrive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail    error
		calls   int32
		want    string
		passing bool
	}{
		"done":                        {nil, 1, "", false},
		"rejected":                    {Reject(errors.New("never")), 1, "never", false},
		"odd":                         {errors.New("odd"), 4, "failed 4 times, the last time with: odd", false},
		"a store that is unavailable": {state.ErrUnavailable, 4, "the state store is unavailable", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			take := func(ctx context.Context, e Event) error {
				calls.Add(1)
				if e.Key != "CUST-123" || e.DeadLetter != nil {
					t.Errorf("the handler got %+v", e)
				}
				return c.fail
			}
			for kind, s := range map[string]Subscription{
				"single": handling(func(ctx context.Context, e Event) error {
					if id := trace.SpanContextFromContext(ctx).TraceID().String(); id != "0af7651916cd43dd8448eb211c80319c" {
						t.Errorf("the handler runs in trace %s, not the event's", id)
					}
					return take(ctx, e)
				}),
				"bulk": bulkOf(func(ctx context.Context, events []Event) []error { return []error{take(ctx, events[0])} }),
			} {
				calls.Store(0)
				s.Component, s.Topic, s.DeadLetter = "orderbus", "orders", deadLetter
				err := receiver(t, s).Redrive(t.Context(), "orders", deadLetteredPlaced(t))
				if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
					t.Errorf("%s: got %v, want %q", kind, err, c.want)
				}
				if calls.Load() != c.calls || err != nil && Retryable(err) != c.passing {
					t.Errorf("%s: tried %d times, retryable %v", kind, calls.Load(), Retryable(err))
				}
			}
		})
	}
}

func TestRedriveWithoutAHandler(t *testing.T) {
	t.Parallel()
	s := handling(func(context.Context, Event) error { t.Error("the handler was called"); return nil })
	s.Component, s.Topic, s.DeadLetter = "orderbus", "orders", deadLetter
	r := receiver(t, s)
	e := deadLetteredPlaced(t)
	if err := r.Redrive(t.Context(), "inventory", e); !Rejected(err) || r.Handles("inventory", e.Type) {
		t.Errorf("of another topic: %v", err)
	}
	e.ID = ""
	if err := r.Redrive(t.Context(), "orders", e); !Rejected(err) || !r.Handles("orders", e.Type) {
		t.Errorf("without an id: %v", err)
	}
	e.Type = "Other"
	if err := r.Redrive(t.Context(), "orders", e); !Rejected(err) || r.Handles("orders", e.Type) {
		t.Errorf("of another type: %v", err)
	}
}
