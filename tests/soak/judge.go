package main

import (
	"fmt"
	"time"
)

// sample is the memory of one process at one moment.
type sample struct {
	at  time.Duration // since the load began
	rss int64         // bytes of resident memory
}

// memory compares the memory of a process in the last window with the window before.
//
// The resident memory of a Go process goes up and down with garbage collection, so a window counts by its smallest sample. No
// process may keep memory for an order longer than the order's retention.
type memory struct {
	first, before, last int64
	allowed             int64
}

const (
	// growthAllowed is the share by which the last window may exceed the one before.
	growthAllowed = 0.10
	// growthFloor is a growth that means nothing: a process of 15 MB varies by this much with the time of its garbage collection.
	growthFloor = 4 << 20
)

// compare judges the samples of a run of the given length.
func compare(samples []sample, length, window time.Duration) memory {
	m := memory{
		first:  leanest(samples, 0, window),
		before: leanest(samples, length-2*window, length-window),
		last:   leanest(samples, length-window, length),
	}
	m.allowed = m.before + max(int64(growthAllowed*float64(m.before)), growthFloor)
	return m
}

func (m memory) grows() bool { return m.last > m.allowed }

func leanest(samples []sample, from, to time.Duration) int64 {
	least := int64(-1)
	for _, s := range samples {
		if s.at >= from && s.at < to && (least < 0 || s.rss < least) {
			least = s.rss
		}
	}
	return max(least, 0)
}

// tooSlow reports whether orders took far longer at the end than at the beginning: more than twice as long and half a second more.
func tooSlow(first, last time.Duration) bool { return last > 2*first+500*time.Millisecond }

func mb(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }
