package clock

import (
	"testing"
	"time"
)

// world has a wall clock that a test can set, and a monotonic clock.
type world struct {
	wall    time.Time
	elapsed time.Duration
}

func (w *world) pass(d time.Duration) {
	w.wall = w.wall.Add(d)
	w.elapsed += d
}

func (w *world) tracker() *Tracker[string] {
	s := NewTracker[string](func() time.Time { return w.wall })
	s.elapsed = func() time.Duration { return w.elapsed }
	return s
}

var noon = time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)

func check(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A record is as old as its stored time says; a stored time in the future counts as now.
func TestAge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		writer time.Duration // how far the writer's clock is ahead
		want   time.Duration // age after a minute
	}{
		{"the same clock", 0, time.Minute},
		{"a writer whose clock is behind", -5 * time.Hour, 5*time.Hour + time.Minute},
		{"a writer whose clock is ahead", 5 * time.Hour, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &world{wall: noon}
			s, stored := w.tracker(), noon.Add(c.writer)
			check(t, "when first seen", s.Age("ORD-1001", stored), c.want-time.Minute)
			check(t, "seen", s.SinceFirstSeen("ORD-1001", stored), 0)
			w.pass(time.Minute)
			check(t, "after a minute", s.Age("ORD-1001", stored), c.want)
			check(t, "seen after a minute", s.SinceFirstSeen("ORD-1001", stored), time.Minute)
			check(t, "a changed record", s.SinceFirstSeen("ORD-1001", stored.Add(time.Second)), 0)
		})
	}
}

// Setting the wall clock while the process runs does not change ages and remaining times.
func TestWallClockStep(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		w := &world{wall: noon}
		s, stored := w.tracker(), noon.Add(time.Minute)
		check(t, "remaining when first seen", s.Remaining("ORD-1001", stored, time.Hour), time.Minute)
		w.wall = w.wall.Add(step)
		check(t, "remaining after the step", s.Remaining("ORD-1001", stored, time.Hour), time.Minute)
		check(t, "age after the step", s.Age("ORD-1001", stored), 0)
		w.pass(2 * time.Minute)
		check(t, "remaining two minutes later", s.Remaining("ORD-1001", stored, time.Hour), -time.Minute)
		check(t, "age two minutes later", s.Age("ORD-1001", stored), 2*time.Minute)
	}
}

// A writer whose clock is ahead does not cause a longer wait than the given limit.
func TestRemainingIsLimited(t *testing.T) {
	t.Parallel()
	w := &world{wall: noon}
	s := w.tracker()
	w.pass(time.Hour)
	check(t, "a time far ahead", s.Remaining("ORD-1001", w.wall.Add(5*time.Hour), time.Minute), time.Minute)
	if remaining := s.Remaining("ORD-1003", time.Time{}, time.Minute); remaining >= 0 {
		t.Errorf("the zero time: %v remaining, want a negative time", remaining)
	}
	check(t, "a time that has passed", s.Remaining("ORD-1002", w.wall.Add(-time.Second), time.Minute), -time.Second)
}

func TestPruneAndForget(t *testing.T) {
	t.Parallel()
	w := &world{wall: noon}
	s := w.tracker()
	s.limit = 2
	s.SinceFirstSeen("ORD-1001", noon)
	s.SinceFirstSeen("ORD-1002", noon)
	s.Prune()
	w.pass(time.Minute)
	s.SinceFirstSeen("ORD-1001", noon)
	s.Prune()
	check(t, "used again", s.SinceFirstSeen("ORD-1001", noon), time.Minute)
	check(t, "not used", s.SinceFirstSeen("ORD-1002", noon), 0)
	s.SinceFirstSeen("ORD-1003", noon)
	if len(s.seen) > s.limit {
		t.Errorf("the tracker remembers %d, want at most %d", len(s.seen), s.limit)
	}
	s.Forget("ORD-1003")
	if len(s.seen) != 0 {
		t.Errorf("the tracker remembers %d, want none", len(s.seen))
	}
}
