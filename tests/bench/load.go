package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// subject is the system that is measured: it accepts pieces of work and reports when each is done.
type subject interface {
	measured
	name() string
	// begin hands in one piece and returns when it is accepted; finished is called when it ends.
	begin(ctx context.Context, id string) error
	// pieces collects the finished pieces.
	pieces() *pieces
}

// pieces are the pieces of work in flight.
type pieces struct {
	mu   sync.Mutex
	last atomic.Int64
	open map[string]*piece
}

type piece struct {
	done chan struct{}
	at   time.Time
	err  error
}

func newPieces() *pieces { return &pieces{open: map[string]*piece{}} }

// add adds a piece with a new id.
func (p *pieces) add() (string, *piece) {
	id := fmt.Sprintf("bench-%d", p.last.Add(1))
	one := &piece{done: make(chan struct{})}
	p.mu.Lock()
	p.open[id] = one
	p.mu.Unlock()
	return id, one
}

// finish records that a piece ended now, successfully if err is nil. A repetition changes nothing.
func (p *pieces) finish(id string, err error) {
	now := time.Now()
	p.mu.Lock()
	one := p.open[id]
	delete(p.open, id)
	p.mu.Unlock()
	if one != nil {
		one.at, one.err = now, err
		close(one.done)
	}
}

// pieceTimeout is how long a piece may take before the run is given up.
const pieceTimeout = time.Minute

// do hands in a new piece and waits for its end.
func do(ctx context.Context, s subject) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pieceTimeout, fmt.Errorf("not done within %s", pieceTimeout))
	defer cancel()
	id, one := s.pieces().add()
	if err := s.begin(ctx, id); err != nil {
		return time.Time{}, fmt.Errorf("%s, %s: %w", s.name(), id, err)
	}
	select {
	case <-one.done:
		if one.err != nil {
			return time.Time{}, fmt.Errorf("%s, %s: %w", s.name(), id, one.err)
		}
		return one.at, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("%s, %s: %w", s.name(), id, context.Cause(ctx))
	}
}

// result is one measurement.
type result struct {
	subject  string
	offered  int // pieces a second, 0 when as many as it takes
	inFlight int
	window   time.Duration
	done     int             // pieces that ended in the window
	behind   int             // pieces that were still in flight at the window's end
	took     []time.Duration // of those that ended in the window, or that were offered in it
	usage    usage           // of the window
	span     time.Duration   // of the usage
}

func (r result) rate() float64 { return float64(r.done) / r.window.Seconds() }

// keptUp reports whether at most the pieces of one second were left when the last one had been handed in.
func (r result) keptUp() bool { return r.behind <= max(r.offered, 5) }

// load is the length of a closed loop: a number of pieces or a time, after a number or a time that does not count.
type load struct {
	warmCount, count int
	warm, window     time.Duration
}

// closed keeps inFlight pieces in flight and measures how many end.
func closed(ctx context.Context, s subject, inFlight int, l load) (result, error) {
	r := result{subject: s.name(), inFlight: inFlight}
	var over atomic.Bool
	var started atomic.Int64
	enough := make(chan struct{})
	var mu sync.Mutex
	type end struct {
		at   time.Time
		took time.Duration
	}
	var ends []end
	loops, loopCtx := errgroup.WithContext(ctx)
	for range inFlight {
		loops.Go(func() error {
			for !over.Load() {
				n := int(started.Add(1))
				if l.count > 0 && n > l.warmCount+l.count {
					return nil
				}
				begun := time.Now()
				at, err := do(loopCtx, s)
				if err != nil {
					return err
				}
				mu.Lock()
				ends = append(ends, end{at, at.Sub(begun)})
				if len(ends) == l.warmCount && l.count > 0 {
					close(enough)
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if l.count > 0 {
		wait(loopCtx, enough, pieceTimeout)
	} else {
		wait(loopCtx, nil, l.warm)
	}
	before, err := takeUsage(s)
	from := time.Now()
	if l.count == 0 && err == nil {
		wait(loopCtx, nil, l.window)
		over.Store(true)
	}
	var waitErr error
	if l.count > 0 {
		waitErr = loops.Wait()
	}
	to := time.Now()
	after, err2 := takeUsage(s)
	over.Store(true)
	if l.count == 0 {
		waitErr = loops.Wait()
	}
	if err := errors.Join(err, err2, waitErr); err != nil {
		return r, err
	}
	r.window, r.span = to.Sub(from), to.Sub(from)
	for _, e := range ends {
		if !e.at.Before(from) && e.at.Before(to) {
			r.done++
			r.took = append(r.took, e.took)
		}
	}
	r.usage, err = after.since(before)
	return r, err
}

// wait returns when signal does, d is over or ctx ends.
func wait(ctx context.Context, signal <-chan struct{}, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-signal:
	case <-time.After(d):
	}
}

// open hands in rate pieces a second for the time d, even if earlier ones are not done, and waits for all of them. The time of a
// piece counts from when it was due, so a system that falls behind does not hide it.
func open(ctx context.Context, s subject, rate int, d time.Duration) (result, error) {
	r := result{subject: s.name(), offered: rate, window: d}
	before, err := takeUsage(s)
	if err != nil {
		return r, err
	}
	var mu sync.Mutex
	loops, loopCtx := errgroup.WithContext(ctx)
	from := time.Now()
	for n := range int(d.Seconds() * float64(rate)) {
		due := from.Add(time.Duration(n) * time.Second / time.Duration(rate))
		wait(loopCtx, nil, time.Until(due))
		if loopCtx.Err() != nil {
			break
		}
		loops.Go(func() error {
			at, err := do(loopCtx, s)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			r.took = append(r.took, at.Sub(due))
			if at.Sub(from) <= d {
				r.done++
			} else {
				r.behind++
			}
			return nil
		})
	}
	wait(loopCtx, nil, time.Until(from.Add(d)))
	span := time.Since(from)
	after, err := takeUsage(s)
	if err := errors.Join(loops.Wait(), err, ctx.Err()); err != nil {
		return r, err
	}
	r.span = span
	r.usage, err = after.since(before)
	return r, err
}
