// Package recent remembers the newest of many facts. It is for knowledge that saves a question and that its owner can do
// without.
package recent

import "sync"

// Set holds the things added last, at least as many as its size and at most twice as many. It may be used by many
// goroutines.
type Set[T comparable] struct {
	size int

	mu sync.Mutex
	// young takes what is added; once it is full it becomes old, and what was old is forgotten.
	young, old map[T]struct{}
}

// NewSet returns an empty Set.
func NewSet[T comparable](size int) *Set[T] { return &Set[T]{size: size, young: map[T]struct{}{}} }

// Add remembers the thing.
func (s *Set[T]) Add(thing T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.young[thing]; !known && len(s.young) == s.size {
		s.young, s.old = map[T]struct{}{}, s.young
	}
	s.young[thing] = struct{}{}
}

// Has reports whether the thing was added and is not forgotten.
func (s *Set[T]) Has(thing T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, young := s.young[thing]
	_, old := s.old[thing]
	return young || old
}
