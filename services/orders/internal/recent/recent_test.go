package recent_test

import (
	"sync"
	"testing"
	"time"

	"waybill/services/orders/internal/recent"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

func TestTimesKnowTheNewestAndForgetTheRest(t *testing.T) {
	t.Parallel()
	const size = 10
	times := recent.NewTimes[int](size)
	for n := range 1000 {
		times.Note(n, at(n))
		for thing := range n + 1 {
			got, known := times.Of(thing)
			if known && !got.Equal(at(thing)) {
				t.Fatalf("%d was noted at %s, not %s", thing, at(thing), got)
			}
			if age := n - thing; known && age >= 2*size || !known && age < size {
				t.Fatalf("of %d things the one %d before the last is known: %v", n+1, age, known)
			}
		}
	}
	if _, known := times.Of(-1); known {
		t.Error("what was never noted is known")
	}
}

func TestTimesTakeTheLastNote(t *testing.T) {
	t.Parallel()
	times := recent.NewTimes[string](2)
	for n, thing := range []string{"a", "b", "a", "c", "a"} {
		times.Note(thing, at(n))
		if got, _ := times.Of(thing); !got.Equal(at(n)) {
			t.Errorf("note %d of %s is read as %s", n, thing, got)
		}
	}
}

func TestTimesByManyAtOnce(t *testing.T) {
	t.Parallel()
	times := recent.NewTimes[int](100)
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			times.Note(n, at(n))
			if got, known := times.Of(n); !known || !got.Equal(at(n)) {
				t.Errorf("%d: %s, %v", n, got, known)
			}
		})
	}
	all.Wait()
}
