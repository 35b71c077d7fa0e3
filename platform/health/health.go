// Package health says whether a dependency of a service works now, and if not, why. A Probe combines the outcomes of real use with
// trials of its own; Cause and Reason classify the errors of both. The package does not know what the dependency is.
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
	// pause is the shortest time between two trials: a fault is noticed soon, and its trials cost little.
	pause = 2 * time.Second
	// pauseUnreachable replaces pause while the store cannot be reached. Such a trial costs little, and a long pause would delay
	// the start.
	pauseUnreachable = 100 * time.Millisecond
)

// Probe says whether a dependency works. The last outcome of its real use counts for ten seconds. Without one, the Probe makes a
// trial, at most every two seconds. Real use comes first because a trial is small: on a disk that is nearly full it may succeed
// while all real writes fail. A Probe may be used by many goroutines.
type Probe struct {
	try func(ctx context.Context) error
	// slot has room for one value; the goroutine that put it there may make a trial.
	slot chan struct{}

	mu    sync.Mutex // guards what follows
	used  outcome
	tried outcome
}

// outcome is how a use or a trial ended. at is zero before the first.
type outcome struct {
	at  time.Time
	err error
}

// pause is how long after this outcome no trial follows.
func (o outcome) pause() time.Duration {
	if o.err != nil && Cause(o.err) == Unreachable {
		return pauseUnreachable
	}
	return pause
}

// NewProbe returns a Probe whose trials call try. A trial must be cheap and idempotent, and end with its context.
func NewProbe(try func(ctx context.Context) error) *Probe {
	return &Probe{try: try, slot: make(chan struct{}, 1)}
}

// Used records the outcome of a real use.
func (p *Probe) Used(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = outcome{time.Now(), err}
}

// Check returns nil if the dependency works now, and otherwise an error that says why not.
func (p *Probe) Check(ctx context.Context) error {
	select {
	case p.slot <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.slot }()
	if verdict, known := p.verdict(); known {
		return verdict
	}
	err := p.try(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the caller left: no outcome
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = outcome{time.Now(), err}
	return err
}

// verdict is what past outcomes say, if they still count.
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

// Causes of a failure. Metrics use these names.
const (
	DiskFull    = "disk_full"
	ReadOnly    = "read_only"
	DiskError   = "disk_error"
	Timeout     = "timeout"
	Unreachable = "unreachable"
	Other       = "other"
)

// texts are parts of the stores' error texts. A sidecar passes on only the text of an error.
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

// Cause classifies the error of a store or of a called process.
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

// Explained is an error with a text that every caller may read.
type Explained interface {
	error
	Reason() string
}

// Explain adds to err a text that every caller may read. It returns nil for nil.
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

// Reason is a text about err that every caller may read. The error's own text can contain addresses and names.
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
