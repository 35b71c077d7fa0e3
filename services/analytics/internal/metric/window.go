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

// lane is a series' panes of one length, the oldest first, those in which nothing happened left out. Up to a
// quarter of them may be panes that are not needed any more. Beyond its length lie old panes, whose memory is used again.
type lane[S summary[S]] []pane[S]

// at is the summary of a pane, a new one when nothing happened in it yet. Panes before oldest may be let go.
func (l *lane[S]) at(at, oldest slot) *S {
	panes := *l
	n := len(panes)
	if n > 0 && panes[n-1].slot == at {
		return &panes[n-1].sum
	}
	i := n // where the pane is or has to be; an event that comes late looks for it from the end
	for i > 0 && panes[i-1].slot >= at {
		i--
	}
	if i < n && panes[i].slot == at {
		return &panes[i].sum
	}
	// A quarter at a time, so that panes are seldom moved and few are kept for nothing.
	if n >= 4 && panes[n/4].slot < oldest {
		gone := l.prune(oldest)
		panes, n, i = *l, n-gone, i-gone
	}
	if n == cap(panes) {
		wider := make(lane[S], n, n+max(2, min(n, 8), n/4))
		copy(wider, panes)
		panes = wider
	}
	panes = panes[:n+1]
	fresh := pane[S]{at, panes[n].sum.emptied()}
	copy(panes[i+1:], panes[i:n])
	panes[i] = fresh
	*l = panes
	return &panes[i].sum
}

// prune lets go of the panes before oldest and says how many those were.
func (l *lane[S]) prune(oldest slot) (gone int) {
	panes := *l
	for gone < len(panes) && panes[gone].slot < oldest {
		gone++
	}
	// Swapping keeps the memory of those that go behind the end.
	for i := gone; i < len(panes); i++ {
		panes[i-gone], panes[i] = panes[i], panes[i-gone]
	}
	*l = panes[:len(panes)-gone]
	return gone
}

// between yields the panes from first to last by calling use, the newest first.
func (l lane[S]) between(first, last slot, use func(at slot, sum *S)) {
	for i := len(l) - 1; i >= 0 && l[i].slot >= first; i-- {
		if l[i].slot <= last {
			use(l[i].slot, &l[i].sum)
		}
	}
}
