package delivery

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheQueueGivesWhatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, start := newQueue(3), time.Now()
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
					id, ok := q.take(ctx)
					if !ok {
						ended <- struct{}{}
						return
					}
					got <- taken{id, time.Since(start)}
				}
			}()
		}
		synctest.Wait()
		q.put("late", start.Add(2*time.Second))
		q.put("soon", start.Add(time.Second))
		q.put("soon", start) // known already
		q.put("now", start)
		if q.put("one too many", start) || q.knows("one too many") {
			t.Error("the queue has no limit")
		}
		for _, want := range []taken{{"now", 0}, {"soon", time.Second}, {"late", 2 * time.Second}} {
			if first := <-got; first != want {
				t.Errorf("got %+v, want %+v", first, want)
			}
		}
		// What was taken is known until it is done, or waits again.
		if !q.put("now", start) || len(got) != 0 {
			t.Error("an id was given twice")
		}
		q.again("now", start.Add(3*time.Second))
		if again := <-got; again != (taken{"now", 3 * time.Second}) {
			t.Errorf("got %+v", again)
		}
		q.done("now")
		if q.knows("now") || !q.put("another", start) {
			t.Error("an id that is done takes room")
		}
		cancel()
		<-ended
		<-ended
	})
}
