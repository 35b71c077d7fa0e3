package delivery

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"waybill/services/notifications/internal/message"
)

func TestTheQueueGivesWhatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, start := newQueue(3, 2), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		type taken struct {
			id    string
			after time.Duration
		}
		got := make(chan taken, 10)
		ended := make(chan struct{})
		for range 2 {
			go func() { // owned: the test waits for ended
				for {
					j, ok := q.take(ctx)
					if !ok {
						ended <- struct{}{}
						return
					}
					got <- taken{j.id, time.Since(start)}
				}
			}()
		}
		synctest.Wait()
		q.put(job{id: "late", due: start.Add(2 * time.Second)})
		q.put(job{id: "soon", due: start.Add(time.Second)})
		q.put(job{id: "soon", due: start}) // known already
		q.put(job{id: "now", due: start})
		if q.put(job{id: "one too many", due: start}); q.knows("one too many") {
			t.Error("the queue has no limit")
		}
		for _, want := range []taken{{"now", 0}, {"soon", time.Second}, {"late", 2 * time.Second}} {
			if first := <-got; first != want {
				t.Errorf("got %+v, want %+v", first, want)
			}
		}
		// What was taken is known until it is done, or waits again.
		if q.put(job{id: "now", due: start}); len(got) != 0 {
			t.Error("an id was given twice")
		}
		q.again(job{id: "now", due: start.Add(3 * time.Second)})
		if again := <-got; again != (taken{"now", 3 * time.Second}) {
			t.Errorf("got %+v", again)
		}
		q.done("now")
		if q.put(job{id: "another", due: start}); !q.knows("another") || q.knows("now") {
			t.Error("an id that is done takes room")
		}
		cancel()
		<-ended
		<-ended
	})
}

func TestWorkersAreReservedForWhatIsClaimed(t *testing.T) {
	t.Parallel()
	q := newQueue(1, 2)
	now := time.Now()
	gives := func(ending bool, want string) {
		t.Helper()
		if j, _ := q.next(now, ending); j.id != want {
			t.Errorf("got %+v, want %q", j, want)
		}
	}
	q.put(job{id: "first", due: now})
	gives(false, "first")
	if !q.reserve() || q.reserve() {
		t.Error("of two workers one is free")
	}
	q.put(job{id: "second", message: &message.Message{State: message.Sending}}) // beyond the limit
	if q.reserve() {
		t.Error("the worker was given twice")
	}
	q.done("first")
	if !q.reserve() {
		t.Error("a worker that is done is not free")
	}
	q.release()
	// A queue that ends gives out what is claimed, and reserves nobody.
	q.push(job{id: "third", due: now})
	gives(true, "second")
	if q.reserve() {
		t.Error("a worker that ends was reserved")
	}
	q.again(job{id: "second", due: now})
	gives(true, "")
	if q.busy != 0 {
		t.Errorf("%d are busy", q.busy)
	}
}
