package delivery

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"waybill/services/notifications/internal/message"
)

func TestTheQueueReturnsJobsWhenTheyAreDue(t *testing.T) {
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
		// A job that was taken is known until it is done or requeued.
		if q.put(job{id: "now", due: start}); len(got) != 0 {
			t.Error("a job was taken twice")
		}
		q.requeue(job{id: "now"}, time.Second)
		if again := <-got; again != (taken{"now", 3 * time.Second}) {
			t.Errorf("got %+v", again)
		}
		q.done("now")
		if q.put(job{id: "another", due: start}); !q.knows("another") || q.knows("now") {
			t.Error("a job that is done uses up the limit")
		}
		cancel()
		<-ended
		<-ended
	})
}

func TestWorkersAreReservedForClaimedJobs(t *testing.T) {
	t.Parallel()
	q := newQueue(1, 2)
	now := time.Now()
	next := func(ending bool, want string) {
		t.Helper()
		if j, _ := q.next(now, ending); j.id != want {
			t.Errorf("got %+v, want %q", j, want)
		}
	}
	q.put(job{id: "first", due: now})
	next(false, "first")
	if !q.reserve() || q.reserve() {
		t.Error("want one of two workers to be free")
	}
	q.put(job{id: "second", message: &message.Message{State: message.Sending}}) // beyond the limit
	if q.reserve() {
		t.Error("a worker was reserved twice")
	}
	q.done("first")
	if !q.reserve() {
		t.Error("the worker of a job that is done is not free")
	}
	q.release()
	// A queue that ends returns claimed jobs only, and reserves no worker.
	q.push(job{id: "third", due: now})
	next(true, "second")
	if q.reserve() {
		t.Error("a worker was reserved in a queue that ends")
	}
	q.requeue(job{id: "second"}, 0)
	next(true, "")
	if q.busy != 0 {
		t.Errorf("%d are busy", q.busy)
	}
}
