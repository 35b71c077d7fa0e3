// Package recent remembers when something happened, for the newest of many things. It is for knowledge that saves a
// question and that its owner can do without.
package recent

import (
	"sync"
	"time"
)

// Times holds the times of the things noted last, of at least as many as its size and at most of twice as many. It may be
// used by many goroutines.
type Times[K comparable] struct {
	size int

	mu sync.Mutex
	// young takes what is noted; once it is full it becomes old, and what was old is forgotten.
	young, old map[K]time.Time
}

// NewTimes returns Times without any.
func NewTimes[K comparable](size int) *Times[K] {
	return &Times[K]{size: size, young: map[K]time.Time{}}
}

// Note remembers the time of the thing, instead of an earlier one.
func (t *Times[K]) Note(thing K, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.young[thing]; !known && len(t.young) == t.size {
		t.young, t.old = make(map[K]time.Time, t.size), t.young
	}
	t.young[thing] = at
}

// Of returns the time that was last noted of the thing, unless that is forgotten.
func (t *Times[K]) Of(thing K) (at time.Time, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, known = t.young[thing]; !known {
		at, known = t.old[thing]
	}
	return at, known
}
