// Package metric counts and measures over sliding windows of event time. A window consists of panes: short slices of time with a
// count or a summary of values, so the size of a window does not grow with the number of values. The package knows no names and
// no products, does no I/O and has no clock.
package metric

import (
	"fmt"
	"time"
)

// Window is the length of a sliding window.
type Window uint8

// The windows.
const (
	Minute Window = iota
	FiveMinutes
	Hour
)

// Windows lists every window, the shortest first.
func Windows() []Window { return []Window{Minute, FiveMinutes, Hour} }

// ParseWindow reads a window's name: 1m, 5m or 1h.
func ParseWindow(name string) (Window, error) {
	for _, w := range Windows() {
		if w.String() == name {
			return w, nil
		}
	}
	return 0, fmt.Errorf("window %q: must be one of 1m, 5m, 1h", name)
}

func (w Window) String() string { return [...]string{"1m", "5m", "1h"}[w] }

// Length is the length of the window.
func (w Window) Length() time.Duration {
	return [...]time.Duration{time.Minute, 5 * time.Minute, time.Hour}[w]
}

// Pane is the length of the panes of the window; the window moves in steps of this length.
func (w Window) Pane() time.Duration { return time.Duration(w.unit()) * time.Second }

func (w Window) unit() int64 { return [...]int64{fine, fine, coarse}[w] }

// panes is the number of panes of the window.
func (w Window) panes() slot { return [...]slot{60 / fine, 300 / fine, 3600 / coarse}[w] }

// The two lengths of panes, in seconds.
const (
	fine   = 5
	coarse = 60
)

// Bounds are the ends of the window at a time, the first inclusive, the second exclusive. The time is in the last pane.
func (w Window) Bounds(at time.Time) (from, to time.Time) {
	to = time.Unix((int64(slotAt(at, w.unit()))+1)*w.unit(), 0).UTC()
	return to.Add(-w.Length()), to
}

// slot is the number of a pane since 1970.
type slot uint32

func slotAt(at time.Time, unit int64) slot { return slot(at.Unix() / unit) } //nolint:gosec // the domain has no time before 2000 and after 2100

// slots are the first and the last pane of the window at a time.
func (w Window) slots(at time.Time) (first, last slot) {
	last = slotAt(at, w.unit())
	return last - w.panes() + 1, last
}

// Horizon is the oldest pane that is still needed. It moves with the newest event.
type Horizon struct{ fine, coarse slot }

// NewHorizon is the horizon if newest is the latest time observed and events may be lateness behind it: every window that ends in
// between can still be read.
func NewHorizon(newest time.Time, lateness time.Duration) Horizon {
	oldest := newest.Add(-lateness)
	fine, _ := FiveMinutes.slots(oldest)
	coarse, _ := Hour.slots(oldest)
	return Horizon{fine, coarse}
}

// pane is one slice of time of a series.
type pane[S any] struct {
	slot slot
	sum  S
}

// summary is the content of a pane; emptied returns an empty one, which may reuse the memory.
type summary[S any] interface{ emptied() S }

// lane is the panes of one length of a series, without empty ones. The zero value is empty.
type lane[S summary[S]] struct {
	// last is the newest pane, which gets most events, so they touch no other memory. Its slot is 0 if there is none.
	last pane[S]
	// past are the panes before it, oldest first. Up to a quarter of them may be panes that are no longer needed. Behind its
	// length are old panes, whose memory is reused.
	past []pane[S]
}

// at is the summary of a pane, a new one if it has no events yet. It may drop panes before oldest.
func (l *lane[S]) at(at, oldest slot) *S {
	if l.last.slot != at {
		return l.other(at, oldest)
	}
	return &l.last.sum
}

func (l *lane[S]) other(at, oldest slot) *S {
	if l.last.slot == 0 {
		l.last.slot = at
		return &l.last.sum
	}
	i := len(l.past) // where the pane is or has to be; an event that comes late looks for it from the end
	if at < l.last.slot {
		for i > 0 && l.past[i-1].slot >= at {
			i--
		}
		if i < len(l.past) && l.past[i].slot == at {
			return &l.past[i].sum
		}
	}
	// A quarter at a time, so that panes are rarely moved and few are kept without need.
	if n := len(l.past); n >= 4 && l.past[n/4].slot < oldest {
		i -= l.prune(oldest)
	}
	n := len(l.past)
	if n == cap(l.past) {
		wider := make([]pane[S], n, n+max(2, min(n, 8), n/4))
		copy(wider, l.past)
		l.past = wider
	}
	l.past = l.past[:n+1]
	fresh := pane[S]{at, l.past[n].sum.emptied()}
	if at > l.last.slot {
		l.past[n], l.last = l.last, fresh
		return &l.last.sum
	}
	copy(l.past[i+1:], l.past[i:n])
	l.past[i] = fresh
	return &l.past[i].sum
}

// prune lets go of the past panes before oldest and says how many those were.
func (l *lane[S]) prune(oldest slot) (gone int) {
	for gone < len(l.past) && l.past[gone].slot < oldest {
		gone++
	}
	// Swapping keeps the memory of those that go behind the end.
	for i := gone; i < len(l.past); i++ {
		l.past[i-gone], l.past[i] = l.past[i], l.past[i-gone]
	}
	l.past = l.past[:len(l.past)-gone]
	return gone
}

// clear empties the lane and keeps its memory for further use.
func (l *lane[S]) clear() {
	l.last = pane[S]{sum: l.last.sum.emptied()}
	l.past = l.past[:0]
}

// between yields the panes from first to last by calling use, the newest first.
func (l *lane[S]) between(first, last slot, use func(at slot, sum *S)) {
	if at := l.last.slot; at != 0 && at >= first && at <= last {
		use(at, &l.last.sum)
	}
	for i := len(l.past) - 1; i >= 0 && l.past[i].slot >= first; i-- {
		if l.past[i].slot <= last {
			use(l.past[i].slot, &l.past[i].sum)
		}
	}
}
