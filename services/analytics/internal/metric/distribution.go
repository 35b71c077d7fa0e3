package metric

import (
	"math"
	"slices"
	"time"

	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// Accuracy is the relative error of a quantile: its distance from the value with that rank.
const Accuracy = 0.01

// bin counts the values of one bucket of the sketch, in which all values are within Accuracy of each other's middle.
type bin struct {
	index int16
	n     uint32
}

// zeroBin is the bin of values of 0, which have no logarithm.
const zeroBin = math.MinInt16

// cell summarises values. They are integers, so sums are exact in any order.
type cell struct { //nolint:recvcheck // emptied makes another cell, add changes this one
	n             uint32
	sum, min, max int64
	// squares is the sum of the squared differences from the mean, by Welford's method, which avoids cancellation.
	squares float64
	// bins are a DDSketch, sorted by index. The library's own stores need hundreds of bytes each, and every pane of every product
	// has a sketch.
	bins []bin
}

func (c cell) emptied() cell { return cell{bins: c.bins[:0]} }

func (c *cell) add(value int64, index int16) {
	before := 0.0
	if c.n > 0 {
		before = float64(c.sum) / float64(c.n)
	}
	if c.n == 0 || value < c.min {
		c.min = value
	}
	if c.n == 0 || value > c.max {
		c.max = value
	}
	c.n++
	c.sum += value
	v := float64(value)
	c.squares += (v - before) * (v - float64(c.sum)/float64(c.n))

	i := 0
	for end := len(c.bins); i < end; {
		if middle := (i + end) / 2; c.bins[middle].index < index {
			i = middle + 1
		} else {
			end = middle
		}
	}
	if i < len(c.bins) && c.bins[i].index == index {
		c.bins[i].n++
		return
	}
	c.bins = slices.Insert(c.bins, i, bin{index, 1})
}

// Scale is the unit of the integers of a Distribution: if Scale is 100, then 100 means 1.
type Scale int64

// Distribution summarises values in every window. The zero value is empty. It is not safe for concurrent use.
type Distribution struct{ fine, coarse lane[cell] }

// Sketch maps values to the buckets of the sketches. It is safe for concurrent use.
type Sketch struct{ buckets mapping.IndexMapping }

// NewSketch makes a Sketch with Accuracy.
func NewSketch() Sketch {
	buckets, err := mapping.NewLogarithmicMapping(Accuracy)
	if err != nil {
		panic(err) // only an accuracy that is no fraction is refused
	}
	return Sketch{buckets}
}

func (s Sketch) index(value int64) int16 {
	if value <= 0 {
		return zeroBin
	}
	return int16(s.buckets.Index(float64(value))) //nolint:gosec // the largest int64 has the index 2184
}

// Add adds one value, which must not be negative, and drops panes behind the horizon.
func (d *Distribution) Add(value int64, at time.Time, h Horizon, s Sketch) {
	index := s.index(value)
	d.fine.at(slotAt(at, fine), h.fine).add(value, index)
	d.coarse.at(slotAt(at, coarse), h.coarse).add(value, index)
}

// Clear empties the distribution and keeps its memory for reuse.
func (d *Distribution) Clear() {
	d.fine.clear()
	d.coarse.clear()
}

// Count is the number of values in the window at a time.
func (d *Distribution) Count(w Window, at time.Time) int64 {
	var n int64
	d.each(w, at, func(_ slot, c *cell) { n += int64(c.n) })
	return n
}

func (d *Distribution) each(w Window, at time.Time, use func(slot, *cell)) {
	panes := &d.fine
	if w == Hour {
		panes = &d.coarse
	}
	first, last := w.slots(at)
	panes.between(first, last, use)
}

// Statistics are the statistics of the window at a time; ok is false if it has no values. Count, sum, minimum and maximum are
// exact; quantiles are within Accuracy of the value with the rank q·(n-1), rounded down.
func (d *Distribution) Statistics(w Window, at time.Time, scale Scale, s Sketch) (Statistics, bool) {
	positive := store.NewDenseStore()
	var n, sum int64
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	zeros := 0.0
	d.each(w, at, func(_ slot, c *cell) {
		n, sum = n+int64(c.n), sum+c.sum
		least, greatest = min(least, c.min), max(greatest, c.max)
		for _, b := range c.bins {
			if b.index == zeroBin {
				zeros += float64(b.n)
			} else {
				positive.AddWithCount(int(b.index), float64(b.n))
			}
		}
	})
	if n == 0 {
		return Statistics{}, false
	}
	mean := float64(sum) / float64(n)
	squares := 0.0
	d.each(w, at, func(_ slot, c *cell) {
		off := float64(c.sum)/float64(c.n) - mean
		squares += c.squares + float64(c.n)*off*off
	})
	unit := float64(scale)
	quantile := func(q float64) float64 {
		if q*float64(n-1) < zeros {
			return 0
		}
		value := s.buckets.Value(positive.KeyAtRank(q*float64(n-1) - zeros))
		return min(max(value, float64(least)), float64(greatest)) / unit
	}
	return Statistics{
		Count: n, Sum: float64(sum) / unit, Mean: mean / unit, Median: quantile(0.5), StdDev: math.Sqrt(squares/float64(n)) / unit,
		Min: float64(least) / unit, Max: float64(greatest) / unit, P95: quantile(0.95), P99: quantile(0.99),
	}, true
}
