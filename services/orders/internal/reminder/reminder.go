// Package reminder repeats what should have been answered by now. An event has been acknowledged that never reached its
// service (docs/adr/0009), and then nobody else would ever repeat it.
package reminder

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// firstPause is how long an answer may take before the first reminder; each further pause doubles, up to longestPause.
	firstPause   = 10 * time.Second
	longestPause = 5 * time.Minute
	tick         = time.Second
)

// Remind repeats something and reports whether no more reminders are needed. It must be idempotent.
type Remind func(ctx context.Context) (settled bool, err error)

// Reminder remembers what waits for an answer, in memory: what a process forgets when it dies is repeated by nobody. It may
// be used by many goroutines.
type Reminder struct {
	logger  *slog.Logger
	mu      sync.Mutex
	waiting map[string]wait
}

type wait struct {
	remind Remind
	due    time.Time
	pause  time.Duration
}

// New returns a Reminder that waits for nothing.
func New(logger *slog.Logger) *Reminder { return &Reminder{logger: logger, waiting: map[string]wait{}} }

// Expect has id reminded of until Answered is called for it or a reminder settles it. What is expected already stays as it
// is.
func (r *Reminder) Expect(id string, remind Remind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.waiting[id]; !known {
		r.waiting[id] = wait{remind: remind, due: time.Now().Add(firstPause), pause: firstPause}
	}
}

// Answered ends the wait for id.
func (r *Reminder) Answered(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// Run reminds until ctx ends.
func (r *Reminder) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for id, remind := range r.due() {
			switch settled, err := remind(ctx); {
			case err != nil:
				r.logger.WarnContext(ctx, "a reminder failed and will be repeated", slog.String("id", id), slog.Any("error", err))
			case settled:
				r.Answered(id)
			default:
				r.logger.WarnContext(ctx, "no answer yet, asked again", slog.String("id", id))
			}
		}
	}
}

// due takes what is due and plans its next reminder.
func (r *Reminder) due() map[string]Remind {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := map[string]Remind{}
	for id, w := range r.waiting {
		if time.Now().Before(w.due) {
			continue
		}
		due[id] = w.remind
		w.pause = min(2*w.pause, longestPause)
		w.due = time.Now().Add(w.pause)
		r.waiting[id] = w
	}
	return due
}
