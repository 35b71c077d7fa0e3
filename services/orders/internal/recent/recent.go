// Package recent remembers the newest of many facts. It is a cache: its user must also work without what it forgets.
package recent

import "sync"

// Set holds the values that were added last: at least as many as its size, at most twice as many. Many goroutines may use it.
type Set[T comparable] struct {
	size int

	mu sync.Mutex
	// Add puts values into young. When young is full it becomes old, and the previous old is forgotten.
	young, old map[T]struct{}
}

// NewSet returns an empty Set.
func NewSet[T comparable](size int) *Set[T] { return &Set[T]{size: size, young: map[T]struct{}{}} }

// Add remembers a value.
func (s *Set[T]) Add(value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.young[value]; !known && len(s.young) == s.size {
		s.young, s.old = map[T]struct{}{}, s.young
	}
	s.young[value] = struct{}{}
}

// Has reports whether the value was added and is not forgotten.
func (s *Set[T]) Has(value T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, young := s.young[value]
	_, old := s.old[value]
	return young || old
}
