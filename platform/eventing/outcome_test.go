package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/internal/fakedapr"
	"waybill/platform/state"
)

func TestTheHandlersDecisionCounts(t *testing.T) {
	t.Parallel()
	odd, unavailable := errors.New("odd"), fmt.Errorf("load: %w", state.ErrUnavailable)
	for name, c := range map[string]struct {
		err       error
		retryable bool
	}{
		"retry a plain error":                         {Retry(odd), true},
		"retry a permanent error":                     {fmt.Errorf("x: %w", Retry(state.ErrInvalid)), true},
		"reject a retryable error":                    {Reject(unavailable), false},
		"the outer decision of two, retry":            {Retry(Reject(odd)), true},
		"the outer decision of two, reject":           {Reject(Retry(odd)), false},
		"reject below a retryable error":              {fmt.Errorf("%w: %w", ErrUnavailable, Reject(odd)), false},
		"no decision, plain":                          {odd, false},
		"no decision, retryable":                      {unavailable, true},
		"no decision, permanent":                      {state.ErrInvalid, false},
		"no decision, conflict":                       {state.ErrConflict, true},
		"no decision, not found":                      {state.ErrNotFound, false},
		"no decision, refused by the bus":             {ErrRefused, false},
		"no decision, invalid argument":               {status.Error(codes.InvalidArgument, "bad key"), false},
		"no decision, a component that is not loaded": {status.Error(codes.InvalidArgument, "pubsub orderbus is not found"), true},
		"no decision, message larger than gRPC takes": {status.Error(codes.ResourceExhausted, "trying to send message larger than max (5 vs. 4)"), false},
	} {
		if Retryable(c.err) != c.retryable {
			t.Errorf("%s: Retryable(%v) = %v", name, c.err, !c.retryable)
		}
	}
}

// TestASlowHandlerIsDeadLettered checks that an event whose handler uses up each attempt's time is not tried for ever, and that
// one whose handler waits for something unavailable is.
func TestASlowHandlerIsDeadLettered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail    func(ctx context.Context) error
		verdict string
		reason  string
	}{
		"by itself": {
			func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("compute: %w", ctx.Err()) }, "SUCCESS",
			"failed 4 times, the last time with: the handler did not finish within 30s: compute: context deadline exceeded",
		},
		"for the store": {
			func(ctx context.Context) error {
				<-ctx.Done()
				return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
			}, "RETRY", "",
		},
		"for a server": {
			func(ctx context.Context) error {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}, "RETRY", "",
		},
		"for what it names": {func(ctx context.Context) error { <-ctx.Done(); return Retry(ctx.Err()) }, "RETRY", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for kind, s := range map[string]Subscription{
					"single": handling(func(ctx context.Context, _ Event) error { return c.fail(ctx) }),
					"bulk":   bulkOf(func(ctx context.Context, _ []Event) []error { return []error{c.fail(ctx)} }),
				} {
					x := receive(t, "", s)
					var got string
					if kind == "single" {
						got = x.deliver(t, placedPath, cloudEventOf("slow"))
					} else {
						got = x.statuses(t, batchOf(cloudEventOf("slow")))[0]
					}
					if got != c.verdict {
						t.Errorf("%s: answered %s, want %s", kind, got, c.verdict)
					}
					var reasons []string
					for _, dead := range x.dead(t) {
						reasons = append(reasons, fmt.Sprint(dead["parkedreason"]))
					}
					if c.reason == "" && len(reasons) > 0 || c.reason != "" && !slices.Equal(reasons, []string{c.reason}) {
						t.Errorf("%s: dead-lettered with %q, want %q", kind, reasons, c.reason)
					}
				}
			})
		})
	}
}

// TestOnePoisonEventOfABatch checks that an event which makes a whole batch fail in some way is dead-lettered alone, and that no other event is
// lost when the failed ones are delivered again.
func TestOnePoisonEventOfABatch(t *testing.T) {
	t.Parallel()
	isPoison := func(e Event) bool { return e.ID == "poison" }
	for name, fail := range map[string]func(ctx context.Context, events int) []error{
		"an error": func(_ context.Context, events int) []error { return slices.Repeat([]error{errors.New("odd")}, events) },
		"a panic":  func(context.Context, int) []error { panic("odd") },
		"no answer": func(ctx context.Context, events int) []error {
			<-ctx.Done()
			return slices.Repeat([]error{ctx.Err()}, events)
		},
		"a refusal of the store": func(_ context.Context, events int) []error {
			return slices.Repeat([]error{fmt.Errorf("store: %w", state.ErrInvalid)}, events)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				done := map[string]int{}
				together := bulkOf(func(ctx context.Context, events []Event) []error {
					if slices.ContainsFunc(events, isPoison) {
						return fail(ctx, len(events))
					}
					for _, e := range events {
						done[e.ID]++
					}
					return make([]error, len(events))
				})
				oneByOne := handling(func(ctx context.Context, e Event) error {
					if isPoison(e) {
						return fail(ctx, 1)[0]
					}
					done[e.ID]++
					return nil
				})
				oneByOne.Bulk = &Bulk{MaxMessages: 100}
				for kind, s := range map[string]Subscription{"together": together, "one by one": oneByOne} {
					clear(done)
					x := receive(t, "", s)
					events := []string{"a", "poison", "b", "c"}
					for deliveries := 0; len(events) > 0; deliveries++ {
						if deliveries == 5 {
							t.Fatalf("%s: %q are still delivered", kind, events)
						}
						bodies := make([]string, len(events))
						for i, id := range events {
							bodies[i] = cloudEventOf(id)
						}
						statuses := x.statuses(t, batchOf(bodies...))
						var again []string
						for i, verdict := range statuses {
							if verdict == "RETRY" {
								again = append(again, events[i])
							}
						}
						events = again
					}
					for _, id := range []string{"a", "b", "c"} {
						if done[id] != 1 {
							t.Errorf("%s: %s was processed %d times", kind, id, done[id])
						}
					}
					dead := x.dead(t)
					if len(dead) != 1 || dead[0]["id"] != "poison" {
						t.Errorf("%s: dead-lettered %v", kind, dead)
					}
				}
			})
		})
	}
}

// TestWhatTheDeadLetterTopicRefusesIsCut checks that an event which the dead-letter topic refuses does not block its partition: it
// is cut, marked as cut, and dead-lettered with its reason.
func TestWhatTheDeadLetterTopicRefusesIsCut(t *testing.T) {
	t.Parallel()
	large := func(size int) string {
		return strings.Replace(cloudEventOf("large"), `"ORD-1"}`, `"ORD-1","text":"`+strings.Repeat("x", size)+`"}`, 1)
	}
	kafka := status.Error(codes.Internal, "error when publishing to topic orders.app.dead in pubsub orderbus: kafka server: "+
		"Message was too large, server rejected it to avoid allocation error")
	for name, c := range map[string]struct {
		body   string
		fail   func(ctx context.Context, call fakedapr.Call) error
		reason string
	}{
		"larger than an event may be":    {large(maxEvent), nil, "never"},
		"larger than the broker's limit": {large(300_000), func(_ context.Context, call fakedapr.Call) error { return errorFor(call.Number == 1, kafka) }, "never"},
		"larger than a delivery":         {large(maxDelivery), nil, "not have more than 16777216 bytes"},
		"a large id":                     {strings.Replace(cloudEventOf("large"), `"large"`, `"`+strings.Repeat("i", maxEvent)+`"`, 1), nil, "never"},
		"a large attribute":              {strings.Replace(cloudEventOf("large"), `"north"`, `"`+strings.Repeat("i", maxEvent)+`"`, 1), nil, "never"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := receive(t, "", handling(func(context.Context, Event) error { return Reject(errors.New("never")) }))
			x.sidecar.Fail(c.fail)
			if got := x.deliver(t, placedPath, c.body); got != "SUCCESS" {
				t.Fatalf("answered %s", got)
			}
			dead := x.dead(t)
			if len(dead) != 1 {
				t.Fatalf("dead-lettered %d events", len(dead))
			}
			size := len(x.sidecar.Published()[0].Data)
			if size > 2*maxCutData || !strings.Contains(fmt.Sprint(dead[0]["parkedreason"]), c.reason) || dead[0]["parkedby"] != "app" || dead[0]["id"] == "" {
				t.Errorf("dead-lettered with %d bytes as %v by %v for %v", size, dead[0]["id"], dead[0]["parkedby"], dead[0]["parkedreason"])
			}
			var read Event
			if err := json.Unmarshal(x.sidecar.Published()[0].Data, &read); err != nil || read.DeadLetter == nil {
				t.Fatalf("%v: %v", read, err)
			}
			if wantCut := name != "larger than a delivery"; read.DeadLetter.Cut != wantCut {
				t.Errorf("marked as cut: %v, want %v", read.DeadLetter.Cut, wantCut)
			}
		})
	}
}

func errorFor(fails bool, err error) error {
	if fails {
		return err
	}
	return nil
}

// TestALargeBatchIsRead checks that a full batch of large events is not refused: it would be delivered again unchanged, for ever.
func TestALargeBatchIsRead(t *testing.T) {
	t.Parallel()
	events := make([]string, 25)
	for i := range events {
		events[i] = strings.Replace(cloudEventOf(fmt.Sprint(i)), `"ORD-1"}`, `"ORD-1","text":"`+strings.Repeat("x", 900_000)+`"}`, 1)
	}
	done := 0
	x := receive(t, "", bulkOf(func(_ context.Context, events []Event) []error {
		done += len(events)
		return make([]error, len(events))
	}))
	if w := x.do(t.Context(), http.MethodPost, bulkOrders, batchOf(events...), nil); w.Code != http.StatusOK || done != len(events) {
		t.Errorf("answered %d after %d of %d events", w.Code, done, len(events))
	}
}

// TestAPermanentFailureToAnnounceIsNotRetried checks that OnDeadLetter cannot block a partition.
func TestAPermanentFailureToAnnounceIsNotRetried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		verdict string
		dead    int
	}{
		{ErrUnavailable, "RETRY", 0},
		{ErrRefused, "SUCCESS", 1},
		{errors.New("odd"), "SUCCESS", 1},
	} {
		x := receive(t, "", handling(func(context.Context, Event) error { return Reject(errors.New("never")) }))
		x.onDeadLetter = c.err
		if got := x.deliver(t, placedPath, cloudEventOf("1")); got != c.verdict || len(x.dead(t)) != c.dead {
			t.Errorf("%v: answered %s, dead-lettered %v", c.err, got, x.dead(t))
		}
		if c.dead == 1 && !strings.Contains(x.log.String(), "dead letter could not be announced") {
			t.Errorf("%v: logged %s", c.err, x.log.String())
		}
	}
}

func TestPublishDoesNotRetryWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	server.Fail(func(context.Context, fakedapr.Call) error {
		return status.Error(codes.Internal, "error when publishing to topic orders in pubsub orderbus: kafka: invalid configuration "+
			"(Attempt to produce message larger than configured Producer.MaxMessageBytes: 1048577 > 1048576)")
	})
	began := time.Now()
	err := newPublisher(t, &server).Publish(t.Context(), "orders", newEvent(t, "e1"))
	if !errors.Is(err, ErrRefused) || Retryable(err) || len(server.Calls("PublishEvent")) != 1 || time.Since(began) > publishTimeout/2 {
		t.Errorf("%d calls, %v", len(server.Calls("PublishEvent")), err)
	}
}
