package metric

import (
	"math"

	"waybill/services/analytics/internal/codec"
)

// Append appends the counter to a snapshot, without what lies behind the horizon.
func (c *Counter) Append(b []byte, h Horizon) []byte {
	return c.coarse.since(h.coarse).append(c.fine.since(h.fine).append(b, appendTally), appendTally)
}

// Read sets the counter to what Append wrote.
func (c *Counter) Read(r *codec.Reader) {
	c.fine.read(r, readTally)
	c.coarse.read(r, readTally)
}

// Append appends the distribution to a snapshot, without what lies behind the horizon.
func (d *Distribution) Append(b []byte, h Horizon) []byte {
	return d.coarse.since(h.coarse).append(d.fine.since(h.fine).append(b, appendCell), appendCell)
}

// Read sets the distribution to what Append wrote.
func (d *Distribution) Read(r *codec.Reader) {
	d.fine.read(r, readCell)
	d.coarse.read(r, readCell)
}

func (l lane[S]) append(b []byte, sum func([]byte, *S) []byte) []byte {
	b = codec.Uint(b, uint64(len(l)))
	before := slot(0)
	for i := range l {
		p := &l[i]
		b = sum(codec.Uint(b, uint64(p.slot-before)), &p.sum)
		before = p.slot
	}
	return b
}

func (l *lane[S]) read(r *codec.Reader, sum func(*codec.Reader) S) {
	panes := make(lane[S], 0, r.Len())
	before := slot(0)
	for range cap(panes) {
		at := before + slot(r.Uint32())
		if at <= before {
			r.Fail()
		}
		if r.Err() != nil {
			return
		}
		panes = append(panes, pane[S]{at, sum(r)})
		before = at
	}
	*l = panes
}

func appendTally(b []byte, n *tally) []byte { return codec.Uint(b, uint64(*n)) }

func readTally(r *codec.Reader) tally { return tally(r.Uint32()) }

func appendCell(b []byte, c *cell) []byte {
	b = codec.Uint(b, uint64(c.n))
	for _, v := range []int64{c.sum, c.min, c.max} {
		b = codec.Int(b, v)
	}
	b = codec.Uint(codec.Float(b, c.squares), uint64(len(c.bins)))
	for _, one := range c.bins {
		b = codec.Uint(codec.Int(b, int64(one.index)), uint64(one.n))
	}
	return b
}

func readCell(r *codec.Reader) cell {
	c := cell{n: r.Uint32(), sum: r.Int(), min: r.Int(), max: r.Int(), squares: r.Float()}
	c.bins = make([]bin, r.Len())
	for i := range c.bins {
		index := r.Int()
		if index < math.MinInt16 || index > math.MaxInt16 {
			r.Fail()
			return cell{}
		}
		c.bins[i] = bin{int16(index), r.Uint32()}
	}
	if c.n == 0 { // nothing writes an empty cell, and its mean is none
		r.Fail()
	}
	return c
}
