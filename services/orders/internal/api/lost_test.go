package api_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
)

// lossy carries events between orders and a fulfilment that answers as the real one does. Each event it loses once: it is
// acknowledged and not delivered.
type lossy struct {
	w       *world
	carried int
	lost    map[string]bool
	// ended are the outcomes of the sagas, by order.
	ended map[string]eventing.Event
}

func (l *lossy) loses(e eventing.Event) bool {
	lost := l.lost[e.ID]
	l.lost[e.ID] = true
	return !lost
}

// carry delivers what was published since the last time.
func (l *lossy) carry() {
	l.w.t.Helper()
	for {
		e, more := l.w.bus.at(l.carried)
		if !more {
			return
		}
		l.carried++
		if l.loses(e.Event) {
			continue
		}
		var about struct {
			OrderID string `json:"order_id"`
		}
		if err := json.Unmarshal(e.Data, &about); err != nil {
			l.w.t.Fatal(err)
		}
		switch e.Type {
		case contracts.TypeOrderCreated:
			l.w.taken(contracts.TopicOrders, e.Event)
		case contracts.TypeOrderConfirmed:
			l.fulfil(about.OrderID)
		case contracts.TypeOrderCancellationRequested:
			if _, ended := l.ended[about.OrderID]; !ended {
				l.end(sagaCancelled(l.w.t, about.OrderID), about.OrderID)
			}
		}
	}
}

// fulfil starts the saga of an order, or announces once more how it ended. An order over 5,000 waits for an approval.
func (l *lossy) fulfil(id string) {
	l.w.t.Helper()
	if outcome, ended := l.ended[id]; ended {
		l.tell(outcome)
		return
	}
	events := sagaOf(l.w.t, id, true)
	if id == "large" {
		l.tell(approvalRequested(l.w.t, id))
		return
	}
	for _, e := range events[:3] {
		l.tell(e)
	}
	l.end(events[3], id)
}

func (l *lossy) end(outcome eventing.Event, id string) {
	l.w.t.Helper()
	l.ended[id] = outcome
	l.tell(outcome)
}

func (l *lossy) tell(e eventing.Event) {
	l.w.t.Helper()
	if !l.loses(e) {
		l.w.taken(contracts.TopicFulfillment, e)
	}
}

// reconciling runs the process's reconciler for a time, and carries events every second.
func (l *lossy) reconciling(d time.Duration) {
	ctx, stop := context.WithCancel(l.w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.w.reconciler.Run(ctx) })
	for range int(d / time.Second) {
		time.Sleep(time.Second)
		synctest.Wait()
		l.carry()
	}
	stop()
	running.Wait()
}

// Every event from orders or to it is lost once. The reconciler publishes again until it is answered, also in a process that
// started after the loss, and every order reaches its end.
func TestEveryEventIsLostOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &lossy{w: w, lost: map[string]bool{}, ended: map[string]eventing.Event{}}
		for _, id := range []string{"small", "large", "received"} {
			w.accepted(w.place(map[string]any{"order_id": id}))
		}
		w.taken(contracts.TopicOrders, elsewhere(t, "shop-1", map[string]any{"order_id": "elsewhere"}))
		w.cancelled(w.cancel("received", because))
		statuses := func() map[string]string {
			found := map[string]string{}
			for _, id := range []string{"small", "large", "received", "elsewhere"} {
				found[id] = w.order(id).Status
			}
			return found
		}
		l.reconciling(25 * time.Second)
		w.restart()
		l.reconciling(10 * time.Minute)
		want := map[string]string{"small": "fulfilled", "large": "awaiting_approval", "received": "cancelled", "elsewhere": "fulfilled"}
		if diff := cmp.Diff(want, statuses()); diff != "" {
			t.Error(diff)
		}
		w.cancelled(w.cancel("large", because))
		w.restart()
		l.reconciling(10 * time.Minute)
		want["large"] = "cancelled"
		if diff := cmp.Diff(want, statuses()); diff != "" {
			t.Error(diff)
		}
		if len(w.bus.deadLettered()) > 0 {
			t.Errorf("dead-lettered %v", w.bus.deadLettered())
		}
		// An order that has ended is not published again.
		before := len(w.bus.published)
		l.reconciling(time.Hour)
		if after := len(w.bus.published); after != before {
			t.Errorf("%d announcements of orders that have ended", after-before)
		}
	})
}

// An order that was not accepted is not published later: its client got an error and may have placed another one.
func TestAnOrderThatWasNotAcceptedIsNotRevived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &lossy{w: w, lost: map[string]bool{}, ended: map[string]eventing.Event{}}
		w.faults.reset(0, busAway)
		if answer := w.place(nil); answer.Code != 503 {
			t.Fatalf("got %d", answer.Code)
		}
		w.faults.reset(0, never)
		l.reconciling(time.Hour)
		if n := len(w.bus.published); n > 0 {
			t.Errorf("%d announcements", n)
		}
	})
}
