package pipeline

import (
	"time"

	"github.com/cespare/xxhash/v2"
)

// seen remembers the ids of events for as long as a duplicate of one could still be counted. It keeps two generations of
// hashes; the older one is dropped when the events have moved on by the lateness, or when the younger one is full. An id
// was added at a time m of the newest event, so its event happened by m and a duplicate is late once the newest is past
// m + lateness; by then at most one generation has ended since m.
//
// Two ids of one hash of 64 bits are taken for one: with 2 million ids, one event in 10^13 is passed over for that.
type seen struct {
	max            int
	lateness       time.Duration
	young, old     hashes
	begun          time.Time // the time of the newest event when the young generation began
	forgottenEarly uint64
}

// add remembers an id and is false when it is remembered already. newest is the time of the newest event; moveOn has to
// know it first.
func (s *seen) add(id string, newest time.Time) bool {
	h := xxhash.Sum64String(id)
	if h == 0 {
		h = 1 // 0 marks a free place
	}
	if s.old.has(h) {
		return false
	}
	if s.young.n >= s.max && !s.young.has(h) {
		s.forgottenEarly += uint64(s.old.n) //nolint:gosec // a count
		s.turn(newest)
	}
	return s.young.add(h)
}

// moveOn begins a new generation when the events have moved on by more than the lateness since the last one began.
func (s *seen) moveOn(newest time.Time) {
	if newest.Sub(s.begun) > s.lateness {
		s.turn(newest)
	}
}

func (s *seen) turn(begun time.Time) {
	s.young, s.old = s.old, s.young
	s.young.clear()
	s.begun = begun
}

// hashes is a set of numbers other than 0, without a pointer in it.
type hashes struct {
	places []uint64 // its length is a power of two, at most half of it taken
	n      int
}

func (s *hashes) has(h uint64) bool {
	if s.n == 0 {
		return false
	}
	mask := uint64(len(s.places)) - 1
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.places[i] {
		case h:
			return true
		case 0:
			return false
		}
	}
}

func (s *hashes) add(h uint64) bool {
	if 2*s.n >= len(s.places) {
		s.grow(max(1024, 2*len(s.places)))
	}
	mask := uint64(len(s.places)) - 1
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.places[i] {
		case h:
			return false
		case 0:
			s.places[i] = h
			s.n++
			return true
		}
	}
}

func (s *hashes) grow(size int) {
	old := s.places
	s.places, s.n = make([]uint64, size), 0
	for _, h := range old {
		if h != 0 {
			s.add(h)
		}
	}
}

func (s *hashes) clear() {
	clear(s.places)
	s.n = 0
}
