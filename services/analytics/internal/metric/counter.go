package metric

import (
	"math"
	"time"
)

// tally is a number of events.
type tally uint32

func (tally) emptied() tally { return 0 }

// Counter counts events in every window. The zero value is empty. It is not safe for concurrent use.
type Counter struct{ fine, coarse lane[tally] }

// Add counts one event and drops panes behind the horizon.
func (c *Counter) Add(at time.Time, h Horizon) {
	*c.fine.at(slotAt(at, fine), h.fine)++
	*c.coarse.at(slotAt(at, coarse), h.coarse)++
}

// Count is the number of events in the window at a time.
func (c *Counter) Count(w Window, at time.Time) int64 {
	panes := &c.fine
	if w == Hour {
		panes = &c.coarse
	}
	var n int64
	first, last := w.slots(at)
	panes.between(first, last, func(_ slot, count *tally) { n += int64(*count) })
	return n
}

// Newest reports whether no pane after that of at has events.
func (c *Counter) Newest(at time.Time) bool { return c.fine.last.slot <= slotAt(at, fine) }

// Baseline is the usual number of events a minute before the last minute at a time: mean and standard deviation of the whole
// minutes that end before it, up to an hour back and not before since. Minutes that overlap the time between except[0] and
// except[1], which is known to be unusual, are left out. minutes is the number of minutes used.
func (c *Counter) Baseline(at, since time.Time, except [2]time.Time) (mean, deviation float64, minutes int) {
	from, _ := Minute.Bounds(at)
	end := slotAt(from, coarse) // the first minute that is not wholly before the window
	// Not more minutes than the longest window has: older panes may be dropped.
	first := max(slotAt(since.Add(time.Minute-1), coarse), slotAt(at, coarse)-59)
	if first >= end {
		return 0, 0, 0
	}
	minutes = int(end - first)
	var outFirst, outLast slot
	if except[1].After(except[0]) {
		outFirst, outLast = max(first, slotAt(except[0], coarse)), min(end-1, slotAt(except[1], coarse))
		if outFirst <= outLast {
			minutes -= int(outLast-outFirst) + 1
		}
	}
	if minutes == 0 {
		return 0, 0, 0
	}
	var sum, squares float64
	c.coarse.between(first, end-1, func(at slot, n *tally) {
		if at < outFirst || at > outLast {
			sum += float64(*n)
			squares += float64(*n) * float64(*n)
		}
	})
	mean = sum / float64(minutes)
	return mean, math.Sqrt(max(0, squares/float64(minutes)-mean*mean)), minutes
}

// Clear empties the counter and keeps its memory for reuse.
func (c *Counter) Clear() {
	c.fine.clear()
	c.coarse.clear()
}

// Statistics are the statistics of the window at a time, with the value 1 for every event; ok is false if it has none.
func (c *Counter) Statistics(w Window, at time.Time) (Statistics, bool) {
	n := c.Count(w, at)
	if n == 0 {
		return Statistics{}, false
	}
	return constant(n, float64(n), 1), true
}
