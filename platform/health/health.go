// Package health says whether something that a service needs works now, and why not. It knows nothing of what that is: a
// Probe is told how its real use went and how to try it, and Cause and Reason read the error of either.
package health

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// trust is how long an outcome counts. On an idle system it is the time between two trials.
	trust = 10 * time.Second
	// pause is the least time between two trials, so that a fault is noticed soon and costs little while it lasts.
	pause = 2 * time.Second
	// pauseUnreachable is the same while the store cannot be reached. Such a trial costs nothing, and a long pause would delay the start.
	pauseUnreachable = 100 * time.Millisecond
)

// Probe says whether something works. The last outcome of its real use decides for ten seconds; without one the Probe tries it,
// at most every two seconds however often it is asked. The real use comes first because a trial is small: on a disk that is
// nearly full it may succeed where all others fail. A Probe may be used by many goroutines.
type Probe struct {
	try func(ctx context.Context) error
	// turn has one place; the goroutine that holds it may try.
	turn chan struct{}

	mu    sync.Mutex // guards what follows
	used  outcome
	tried outcome
}

// outcome is how a use or a trial ended; at is zero before the first.
type outcome struct {
	at  time.Time
	err error
}

// pause is how long no further trial follows.
func (o outcome) pause() time.Duration {
	if o.err != nil && Cause(o.err) == Unreachable {
		return pauseUnreachable
	}
	return pause
}

// NewProbe returns a Probe that tries by calling try. A trial must be cheap, may run again at any time, and ends with its
// context.
func NewProbe(try func(ctx context.Context) error) *Probe {
	return &Probe{try: try, turn: make(chan struct{}, 1)}
}

// Used tells the Probe how a real use went.
func (p *Probe) Used(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = outcome{time.Now(), err}
}

// Check reports, as an error, why the thing does not work now.
func (p *Probe) Check(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	if verdict, known := p.verdict(); known {
		return verdict
	}
	err := p.try(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the caller left, which says nothing
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = outcome{time.Now(), err}
	return err
}

// verdict is what is known without a trial.
func (p *Probe) verdict() (verdict error, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	fresh := func(o outcome, within time.Duration) bool { return !o.at.IsZero() && now.Sub(o.at) < within }
	switch {
	case fresh(p.used, trust):
		return p.used.err, true
	case p.tried.err == nil && fresh(p.tried, trust), fresh(p.tried, p.tried.pause()):
		return p.tried.err, true
	default:
		return nil, false
	}
}

// Causes of a failure, as metrics name them.
const (
	DiskFull    = "disk_full"
	ReadOnly    = "read_only"
	DiskError   = "disk_error"
	Timeout     = "timeout"
	Unreachable = "unreachable"
	Other       = "other"
)

// texts are what the stores say of their disk. A sidecar passes on nothing but the text.
var texts = []struct{ cause, text string }{
	{DiskFull, "disk is full"}, // SQLite
	{DiskFull, "no space left on device"},
	{DiskFull, "disk quota exceeded"},
	{DiskFull, "sqlstate 53100"}, // PostgreSQL
	{ReadOnly, "readonly database"},
	{ReadOnly, "read-only file system"},
	{ReadOnly, "sqlstate 25006"},
	{DiskError, "disk i/o error"},
	{DiskError, "input/output error"},
	{DiskError, "unable to open database file"},
	{Unreachable, "connection refused"},
}

// Cause is why a store, or a process that was called, failed.
func Cause(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return DiskFull
	case errors.Is(err, syscall.EROFS):
		return ReadOnly
	}
	said := strings.ToLower(err.Error())
	for _, t := range texts {
		if strings.Contains(said, t.text) {
			return t.cause
		}
	}
	switch code := status.Code(err); {
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded:
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED), code == codes.Unavailable:
		return Unreachable
	}
	return Other
}

// Explained is an error with a text that everyone may read.
type Explained interface {
	error
	Reason() string
}

// Explain adds to err the text that everyone may read. It returns nil for nil.
func Explain(err error, reason string) error {
	if err == nil {
		return nil
	}
	return &explained{err, reason}
}

type explained struct {
	error

	reason string
}

// Reason implements Explained.
func (e *explained) Reason() string { return e.reason }

func (e *explained) Unwrap() error { return e.error }

// Reason says why something does not work in words that everyone may read: an error's own text can hold addresses and names.
func Reason(err error) string {
	if e, ok := errors.AsType[Explained](err); ok {
		return e.Reason()
	}
	switch Cause(err) {
	case DiskFull:
		return "the disk is full"
	case ReadOnly:
		return "the disk or the database is read-only"
	case DiskError:
		return "the disk reports an error; it may be full or broken"
	case Timeout:
		return "no answer in time"
	case Unreachable:
		return "cannot be reached"
	default:
		return "failed; the service's log says why"
	}
}
