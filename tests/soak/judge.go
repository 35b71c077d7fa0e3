package main

import (
	"fmt"
	"time"
)

// sample is what one process holds at one moment.
type sample struct {
	at  time.Duration // since the load began
	rss int64         // bytes of resident memory
}

// memory compares what a process held in the last window with what it held in the window before.
//
// A Go process's resident memory goes up and down with its garbage collection, so a window is worth its smallest sample: what the
// process held at its leanest moment. No process may hold anything of an order that has ended for longer than its retention.
type memory struct {
	first, before, last int64
	allowed             int64
}

const (
	// growthAllowed is the share by which the last window may exceed the one before.
	growthAllowed = 0.10
	// growthFloor is growth that says nothing: a process of 15 MB moves by so much when its garbage is collected a moment later.
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
