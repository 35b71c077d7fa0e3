// Package clock judges times that another process wrote. Clocks of two processes can differ by hours, and a clock can be set
// while a process runs. So a stored time is compared with the wall clock once, when this process first sees it. From then on
// the process counts on its own monotonic clock. The package does
// no I/O. docs/operations.md, "Clocks", says which clock decides what.
package clock

import (
	"sync"
	"time"
)

// Tracker remembers when this process first saw a record with a stored time. A record whose time changes is a new one. It may
// be used by many goroutines.
type Tracker[K comparable] struct {
	now     func() time.Time
	elapsed func() time.Duration
	limit   int

	mu   sync.Mutex
	seen map[K]*observation
}

// observation is one stored time as it was first seen.
type observation struct {
	stored time.Time
	// ahead is by how much the stored time was later than the wall clock then.
	ahead time.Duration
	// at is when that was, on this process's own clock.
	at    time.Duration
	asked bool
}

// defaultLimit bounds how many records are remembered. A record that is forgotten counts as seen for the first time again.
const defaultLimit = 100_000

// most is the largest difference that is told apart, some 73 years: sums of it do not overflow. The zero time is further away.
const most = time.Duration(1) << 61

// NewTracker returns empty Tracker. Now is the clock; the differences of its readings are monotonic when it is time.Now.
func NewTracker[K comparable](now func() time.Time) *Tracker[K] {
	began := now()
	return &Tracker[K]{now: now, elapsed: func() time.Duration { return now().Sub(began) }, limit: defaultLimit, seen: map[K]*observation{}}
}

// Seen is how long this process has known the record with this stored time; zero at first sight.
func (s *Tracker[K]) SinceFirstSeen(key K, stored time.Time) time.Duration {
	_, seen := s.see(key, stored)
	return seen
}

// Age is how old the record is: as old as its stored time said at first sight, but not negative, and the time since then.
func (s *Tracker[K]) Age(key K, stored time.Time) time.Duration {
	ahead, seen := s.see(key, stored)
	return max(0, -ahead) + seen
}

// Left is how long it is until the stored time comes, but at most longest from first sight on; zero or negative when it has come.
func (s *Tracker[K]) Remaining(key K, stored time.Time, longest time.Duration) time.Duration {
	ahead, seen := s.see(key, stored)
	return min(ahead, longest) - seen
}

func (s *Tracker[K]) see(key K, stored time.Time) (ahead, seen time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.seen[key]
	if known == nil || !known.stored.Equal(stored) {
		if known == nil && len(s.seen) >= s.limit {
			clear(s.seen)
		}
		known = &observation{stored: stored, ahead: min(max(stored.Sub(s.now()), -most), most), at: s.elapsed()}
		s.seen[key] = known
	}
	known.asked = true
	return known.ahead, s.elapsed() - known.at
}

// Tidy forgets the records that were not asked about since the last Tidy.
func (s *Tracker[K]) Prune() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, known := range s.seen {
		if !known.asked {
			delete(s.seen, key)
		}
		known.asked = false
	}
}

// Forget forgets one record.
func (s *Tracker[K]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, key)
}
