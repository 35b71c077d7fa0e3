package pipeline

import (
	"hash/maphash"
	"time"
)

// seen remembers the keys of events for as long as a duplicate could still be counted. It keeps two generations of hashes. The
// older one is dropped when the newest event is later than its start by the lateness, or when the younger one is full. A key was
// added when the newest event had the time m, so a duplicate is late once the newest is past m + lateness; by then at most one
// generation has ended since m.
//
// Two keys with the same hash of 63 bits are treated as one: with 4 million keys, one event in 10^12 is dropped for that. The
// seed of the hash is random, so no sender can choose an id with the hash of another event.
type seen struct {
	seed     maphash.Seed
	max      int
	lateness time.Duration
	// places is a hash table with linear probing and without pointers. It holds both generations, so an event reads one place in
	// memory and not two. Its length is a power of two, at most half of it used; 0 is a free place.
	places []uint64
	// young is the lowest bit of the younger generation's hashes; that of the older ones is the other.
	young          uint64
	count          [2]int    // of each generation, by that bit
	begun          time.Time // the time of the newest event when the young generation began
	forgottenEarly uint64
}

// add remembers a key; it returns false if the key is known. newest is the time of the newest event, of which moveOn must know
// first.
func (s *seen) add(key string, newest time.Time) bool {
	h := s.hashOf(key)
	i, known := s.find(h)
	if known {
		return false
	}
	if s.count[s.young] >= s.max {
		s.forgottenEarly += uint64(s.count[s.young^1]) //nolint:gosec // a count
		s.turn(newest)
		i, _ = s.find(h)
	}
	if 2*(s.count[0]+s.count[1]) >= len(s.places) {
		s.grow()
		i, _ = s.find(h)
	}
	s.places[i] = h | s.young
	s.count[s.young]++
	return true
}

// hashOf leaves the lowest bit free, and is never 0, which marks a free place.
func (s *seen) hashOf(key string) uint64 { return max(2, maphash.String(s.seed, key)&^1) }

// peek reads the first place of the search for a key.
func (s *seen) peek(key string) uint64 {
	if len(s.places) == 0 {
		return 0
	}
	return s.places[s.hashOf(key)>>1&(uint64(len(s.places))-1)]
}

// find is the place of a hash, or the one that it would have.
func (s *seen) find(h uint64) (place uint64, known bool) {
	if len(s.places) == 0 {
		return 0, false
	}
	mask := uint64(len(s.places)) - 1
	for i := h >> 1 & mask; ; i = (i + 1) & mask {
		if s.places[i] == 0 {
			return i, false
		}
		if s.places[i]&^1 == h {
			return i, true
		}
	}
}

// moveOn begins a new generation when the newest event is later than the start of the current one by more than the lateness.
func (s *seen) moveOn(newest time.Time) {
	if newest.Sub(s.begun) > s.lateness {
		s.turn(newest)
	}
}

// turn drops the older generation and begins a new one.
func (s *seen) turn(begun time.Time) {
	s.begun = begun
	s.young ^= 1
	if s.count[s.young] == 0 {
		return
	}
	s.count[s.young] = 0
	// Behind a free place, every hash is at or behind the place where the search for it begins. One round from there finds, for each
	// hash that stays, a place at or before its present one.
	first := 0
	for s.places[first] != 0 {
		first++
	}
	for i := range s.places {
		place := &s.places[(first+i)&(len(s.places)-1)]
		h := *place
		if h == 0 {
			continue
		}
		if *place = 0; h&1 != s.young {
			i, _ := s.find(h &^ 1)
			s.places[i] = h
		}
	}
}

func (s *seen) grow() {
	old := s.places
	s.places = make([]uint64, max(1024, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			i, _ := s.find(h &^ 1)
			s.places[i] = h
		}
	}
}
