package pipeline

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"
	"time"
)

// TestIDsAreForgottenAGenerationAtATime holds the hash table against two plain sets, through many generations of all sizes.
func TestIDsAreForgottenAGenerationAtATime(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 1))
	now := time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)
	s := seen{seed: maphash.MakeSeed(), max: 250, lateness: time.Minute, begun: now}
	young, old := map[string]bool{}, map[string]bool{}
	var forgotten uint64
	turn := func() { young, old = map[string]bool{}, young }
	turns := 0
	for i := range 200_000 {
		if dice.IntN(300) == 0 { // so that a generation ends by the time in most cases, and else by its size
			now = now.Add(61 * time.Second)
			s.moveOn(now)
			turn()
			turns++
			for id := range old {
				if _, known := s.find(s.hashOf(id)); !known {
					t.Fatalf("%s is not found after %d generations", id, turns)
				}
			}
		}
		id := fmt.Sprintf("EVT-%d", i-dice.IntN(2)*dice.IntN(600))
		known := young[id] || old[id]
		if !known && len(young) == s.max {
			forgotten += uint64(len(old))
			turn()
		}
		if got := s.add(id, now); got == known {
			t.Fatalf("%s after %d others: known is %v, want %v", id, i, !got, known)
		}
		if !known {
			young[id] = true
		}
		if s.count[s.young] != len(young) || s.count[s.young^1] != len(old) {
			t.Fatalf("%v ids are kept, want %d and %d", s.count, len(young), len(old))
		}
	}
	if turns < 500 || forgotten == 0 || s.forgottenEarly != forgotten || len(s.places) > 1024 {
		t.Errorf("%d generations, %d ids forgotten early, want %d, in %d places", turns, s.forgottenEarly, forgotten, len(s.places))
	}
}
