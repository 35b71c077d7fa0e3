package recent_test

import (
	"sync"
	"testing"

	"waybill/services/orders/internal/recent"
)

func TestSetKnowsTheNewestAndForgetsTheRest(t *testing.T) {
	t.Parallel()
	const size = 10
	s := recent.NewSet[int](size)
	for n := range 500 {
		s.Add(n)
		s.Add(n) // adding again does not count
		for value := range n + 2 {
			age, known := n-value, s.Has(value)
			if known && (age < 0 || age >= 2*size) || !known && age >= 0 && age < size {
				t.Fatalf("after %d, the value %d before it is known: %v", n, age, known)
			}
		}
	}
}

// A value that is added again counts as new.
func TestSetRemembersRepeatedValues(t *testing.T) {
	t.Parallel()
	s := recent.NewSet[int](2)
	for n := range 100 {
		s.Add(n)
		s.Add(-1)
		if !s.Has(-1) || !s.Has(n) {
			t.Fatalf("after %d: %v, %v", n, s.Has(-1), s.Has(n))
		}
	}
}

func TestSetConcurrently(t *testing.T) {
	t.Parallel()
	s := recent.NewSet[int](100)
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			if s.Add(n); !s.Has(n) {
				t.Errorf("%d is not known", n)
			}
		})
	}
	all.Wait()
}
