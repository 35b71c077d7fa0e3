package saga_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/record"
)

// wrongClock is a service's clock that a test sets ahead of the engine's or behind it.
type wrongClock struct{ ahead atomic.Int64 }

func ahead(d time.Duration) *wrongClock {
	c := &wrongClock{}
	c.ahead.Store(int64(d))
	return c
}

func (c *wrongClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// skews are how far the service's clock is ahead of the engine's.
var skews = []time.Duration{0, 5 * time.Hour, -5 * time.Hour, 100 * 24 * time.Hour}

// The service's clock decides neither when a saga starts nor when an approval expires.
func TestASagaOfAServiceWithAWrongClock(t *testing.T) {
	t.Parallel()
	for _, skew := range skews {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorldAt(t, quick, ahead(skew).now)
			order := aLargeOrder("ORDER-1")
			w.start(order)
			w.until(order, "an approval", (*record.Saga).AwaitsApproval)
			// The reconciler may wake the saga when this clock says that the approval expired. By the engine's clock it did not.
			reconciler := newReconciler(w.sagas, 0, time.Minute)
			for range 3 {
				if err := reconciler.Pass(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.sagas.Decide(t.Context(), order.OrderID, true, "approver@example.com", "Known customer."); err != nil {
				t.Fatal(err)
			}
			if result := w.end(order); result.Outcome != record.Completed {
				t.Errorf("result %+v, want %s", result, record.Completed)
			}
			if e := w.until(order, "an end", (*record.Saga).Ended); e.Restarts != 0 {
				t.Errorf("it was started again %d times", e.Restarts)
			}
		})
	}
}

// The engine's timer ends an approval, and not the service's clock.
func TestAnApprovalExpiresByTheEnginesClock(t *testing.T) {
	t.Parallel()
	for _, skew := range skews {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			limits := quick
			limits.Approval = time.Millisecond
			w := newWorldAt(t, limits, ahead(skew).now)
			order := aLargeOrder("ORDER-1")
			if result := w.fulfill(order); result.Code != record.CodeTimedOut {
				t.Errorf("result %+v, want %s", result, record.CodeTimedOut)
			}
		})
	}
}

// The reconciler also sees a saga that was started by a process whose clock was ahead.
func TestTheReconcilerSeesASagaThatStartedInTheFuture(t *testing.T) {
	t.Parallel()
	clock := ahead(5 * time.Hour)
	w := newWorldAt(t, quick, clock.now)
	order := aLargeOrder("ORDER-1")
	w.start(order)
	w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	if err := w.lose(order); err != nil {
		t.Fatal(err)
	}
	clock.ahead.Store(0)
	const grace = 30 * time.Second
	reconciler := newReconciler(w.sagas, grace, time.Minute)
	pass := func(after time.Duration, restarts int) {
		t.Helper()
		clock.ahead.Store(int64(after))
		if err := reconciler.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e, _ := w.records.Get(t.Context(), order.OrderID); e.Restarts != restarts {
			t.Fatalf("%v after it was first seen it was started again %d times, want %d", after, e.Restarts, restarts)
		}
	}
	pass(0, 0)
	pass(grace+time.Second, 1)
	// Whether it is stuck depends on the time since this process first saw it.
	if _, err := w.records.Change(t.Context(), order.OrderID, func(s *record.Saga) (bool, error) {
		s.Approval = nil
		s.StartedAt, s.RestartedAt = time.Now().Add(9*time.Hour), time.Now().Add(9*time.Hour)
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]record.State{0: record.Running, 2 * time.Minute: record.Stuck} {
		clock.ahead.Store(0)
		e, err := w.records.Get(t.Context(), order.OrderID)
		if err != nil {
			t.Fatal(err)
		}
		e.RestartedAt = e.RestartedAt.Add(after) // so that each is first seen now
		w.sagas.State(&e)
		clock.ahead.Store(int64(after))
		if state, _ := w.sagas.State(&e); state != want {
			t.Errorf("%v after it was first seen it is %s, want %s", after, state, want)
		}
	}
}

// history is an engine with one running saga, whose clock is not this process's.
type history struct {
	workflow.Client

	events     []*protos.HistoryEvent
	terminated atomic.Int64
}

func (h *history) FetchWorkflowMetadata(context.Context, string, ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error) {
	return &workflow.WorkflowMetadata{RuntimeStatus: workflow.StatusRunning}, nil
}

func (h *history) GetInstanceHistory(context.Context, string, ...workflow.GetInstanceHistoryOptions) (*workflow.GetInstanceHistoryResponse, error) {
	return &workflow.GetInstanceHistoryResponse{Events: h.events}, nil
}

func (h *history) TerminateWorkflow(context.Context, string, ...workflow.TerminateOptions) error {
	h.terminated.Add(1)
	return nil
}

func (h *history) RaiseEvent(context.Context, string, string, ...workflow.RaiseEventOptions) error {
	return nil
}

// A pending task counts as lost when this process has seen it pending for too long. The difference of the two clocks does not matter.
func TestLostTasksAreDetectedOnOneClock(t *testing.T) {
	t.Parallel()
	for _, skew := range skews {
		for _, timer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v timer=%v", skew, timer), func(t *testing.T) {
				t.Parallel()
				const takes = 10 * time.Minute
				scheduled := &protos.HistoryEvent{EventId: 3, Timestamp: timestamppb.Now()}
				overdueAfter := time.Duration(0)
				if timer {
					overdueAfter = takes
					scheduled.EventType = &protos.HistoryEvent_TimerCreated{TimerCreated: &protos.TimerCreatedEvent{FireAt: timestamppb.New(time.Now().Add(takes))}}
				} else {
					scheduled.EventType = &protos.HistoryEvent_TaskScheduled{TaskScheduled: &protos.TaskScheduledEvent{Name: "ValidatePayment", Input: wrapperspb.String("{}")}}
				}
				engine := &history{events: []*protos.HistoryEvent{scheduled}}
				clock := ahead(skew)
				w := newWorldAt(t, quick, clock.now)
				order := anOrder("ORDER-1")
				if _, _, err := w.records.Begin(t.Context(), order); err != nil {
					t.Fatal(err)
				}
				sagas := operations.New(operations.Options{
					Engine: engine, Records: w.records, Events: w, Limits: quick, StuckAfter: time.Hour, Logger: slog.New(slog.DiscardHandler), Now: clock.now,
				})
				const lostAfter = 2 * time.Minute
				reconciler := newReconciler(sagas, 0, lostAfter)
				passed := time.Duration(0)
				pass := func(after time.Duration, want int64) {
					t.Helper()
					passed += after
					clock.ahead.Store(int64(skew + passed))
					if err := reconciler.Pass(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := engine.terminated.Load(); got != want {
						t.Fatalf("after %v it was terminated %d times, want %d", passed, got, want)
					}
				}
				pass(0, 0)
				pass(lostAfter+time.Second, 0) // old enough that its history is read
				pass(overdueAfter+lostAfter-time.Second, 0)
				pass(2*time.Second, 1)
			})
		}
	}
}
