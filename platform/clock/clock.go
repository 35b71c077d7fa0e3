// Package clock measures the age of times that another process wrote. The clocks of two processes can differ by hours, and a
// clock can be set while a process runs. So a Tracker compares a stored time with the wall clock once, when this process first
// sees it, and then uses its own monotonic clock. The package does no I/O. docs/operations.md, "Clocks", says which clock
// decides what.
package clock

import (
	"sync"
	"time"
)

// Tracker remembers when this process first saw each record with a stored time. A record whose time changes counts as new. A
// Tracker is safe for concurrent use.
type Tracker[K comparable] struct {
	now     func() time.Time
	elapsed func() time.Duration
	limit   int

	mu   sync.Mutex
	seen map[K]*observation
}

// observation is one stored time when it was first seen.
type observation struct {
	stored time.Time
	// ahead is how much later than the wall clock the stored time was; it is negative for a time in the past.
	ahead time.Duration
	// at is the moment of the observation on this process's monotonic clock.
	at   time.Duration
	used bool // since the last Prune
}

// defaultLimit is how many records a Tracker remembers. A record that it has forgotten counts as new.
const defaultLimit = 100_000

// most limits differences to about 73 years, so that sums do not overflow. The zero time is further away.
const most = time.Duration(1) << 61

// NewTracker returns an empty Tracker that reads the clock now. With time.Now, differences of its readings are monotonic.
func NewTracker[K comparable](now func() time.Time) *Tracker[K] {
	began := now()
	return &Tracker[K]{now: now, elapsed: func() time.Duration { return now().Sub(began) }, limit: defaultLimit, seen: map[K]*observation{}}
}

// SinceFirstSeen returns how long this process has known the record with this stored time; zero for a new record.
func (s *Tracker[K]) SinceFirstSeen(key K, stored time.Time) time.Duration {
	_, seen := s.see(key, stored)
	return seen
}

// Age returns how old the record is: its age when it was first seen, at least zero, plus the time since then.
func (s *Tracker[K]) Age(key K, stored time.Time) time.Duration {
	ahead, seen := s.see(key, stored)
	return max(0, -ahead) + seen
}

// Remaining returns the time until the stored time, but at most longest after the record was first seen. It is zero or negative
// if the time has passed.
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
	known.used = true
	return known.ahead, s.elapsed() - known.at
}

// Prune forgets the records that were not used since the last Prune.
func (s *Tracker[K]) Prune() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, known := range s.seen {
		if !known.used {
			delete(s.seen, key)
		}
		known.used = false
	}
}

// Forget forgets one record.
func (s *Tracker[K]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, key)
}
