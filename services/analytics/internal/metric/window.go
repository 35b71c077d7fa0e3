// Package metric counts and measures over sliding windows of event time. A window is made of panes: small slices of time
// that hold a count, or a summary of values, so that what a window holds does not grow with the number of values in it.
// It knows no names and no products, does no I/O and has no clock.
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

// Length is how much time the window holds.
func (w Window) Length() time.Duration {
	return [...]time.Duration{time.Minute, 5 * time.Minute, time.Hour}[w]
}

// Pane is how long the panes are that make up the window: it moves in steps of this length.
func (w Window) Pane() time.Duration { return time.Duration(w.unit()) * time.Second }

func (w Window) unit() int64 { return [...]int64{fine, fine, coarse}[w] }

// panes is how many make up the window.
func (w Window) panes() slot { return [...]slot{60 / fine, 300 / fine, 3600 / coarse}[w] }

// Lengths of the two sorts of panes, in seconds.
const (
	fine   = 5
	coarse = 60
)

// Bounds are the ends of the window at a time: it holds from up to and without to, and at lies in its last pane.
func (w Window) Bounds(at time.Time) (from, to time.Time) {
	to = time.Unix((int64(slotAt(at, w.unit()))+1)*w.unit(), 0).UTC()
	return to.Add(-w.Length()), to
}

// slot numbers the panes of one length from 1970 on.
type slot uint32

func slotAt(at time.Time, unit int64) slot { return slot(at.Unix() / unit) } //nolint:gosec // the domain has no time before 2000 and after 2100

// slots are the first and the last pane of the window at a time.
func (w Window) slots(at time.Time) (first, last slot) {
	last = slotAt(at, w.unit())
	return last - w.panes() + 1, last
}

// Horizon says until when panes are needed. It moves with the newest event.
type Horizon struct{ fine, coarse slot }

// NewHorizon is the horizon while newest is the latest time seen and events may come as late as lateness behind it: every
// window that ends in between can still be asked for.
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

// summary is what a pane holds; emptied is an empty one, which may use the memory of the old one.
type summary[S any] interface{ emptied() S }

// lane is a series' panes of one length, those in which nothing happened left out. The zero value is empty.
type lane[S summary[S]] struct {
	// last is the newest pane, in which most events fall: they touch no other memory. Its slot is 0 when there is none.
	last pane[S]
	// past are the panes before it, the oldest first. Up to a quarter of them may be panes that are not needed any more.
	// Beyond its length lie old panes, whose memory is used again.
	past []pane[S]
}

// at is the summary of a pane, a new one when nothing happened in it yet. Panes before oldest may be let go.
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
	// A quarter at a time, so that panes are seldom moved and few are kept for nothing.
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
