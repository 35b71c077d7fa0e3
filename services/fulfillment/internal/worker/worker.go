// Package worker keeps the workflow worker connected to the engine in the sidecar, and has the sidecar restarted when its
// engine no longer takes a worker.
//
// The latter happens in Dapr 1.18.2: when the only worker goes away, the sidecar unregisters the workflow actors and waits
// for those at work, while one of them may be waiting to hand its work to a worker, which cannot connect before the actors
// are registered again. Nothing in that sidecar ends this wait.
package worker

import (
	"context"
	"log/slog"
	"time"
)

// Sidecar is what the worker needs to know of its sidecar, and can ask of it.
type Sidecar interface {
	// Healthy returns an error while the sidecar's APIs cannot be used.
	Healthy(ctx context.Context) error
	// WaitHealthy returns when the sidecar is healthy, or an error when ctx ends before.
	WaitHealthy(ctx context.Context) error
	// ConnectedWorkers is how many workers the sidecar's engine works with.
	ConnectedWorkers(ctx context.Context) (int, error)
	// Shutdown makes the sidecar end, for whoever started it to start it again.
	Shutdown(ctx context.Context) error
}

const (
	// interval is the time between two looks at the engine, patience that which one look may take: a loaded machine is slow
	// to answer.
	interval = time.Second
	patience = 3 * time.Second
	// reopenAfter is how many looks in a row find a healthy sidecar without a worker before the worker connects anew. The
	// worker reconnects by itself, but pauses up to 15 seconds when the sidecar was away for long.
	reopenAfter = 2
	// restartAfter is how many such looks it takes until the engine is taken for stuck.
	restartAfter = 6
)

// Run starts the worker, by open, as soon as the sidecar is healthy, and keeps it connected until ctx ends. Open must
// return once the worker is started; the worker ends with the context that open is given.
func Run(ctx context.Context, sidecar Sidecar, open func(ctx context.Context) error, logger *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var closeWorker context.CancelFunc = func() {}
	defer func() { closeWorker() }()
	reopen := func() {
		closeWorker()
		var worker context.Context
		worker, closeWorker = context.WithCancel(ctx)
		if err := open(worker); err != nil {
			logger.WarnContext(ctx, "the workflow worker did not connect", slog.Any("error", err))
		}
	}
	if sidecar.WaitHealthy(ctx) != nil {
		return // ctx ended first
	}
	reopen()
	for alone := 0; ; {
		switch look(ctx, sidecar) {
		case connected, away:
			alone = 0
		case silent:
		case lonely:
			alone++
			switch {
			case alone == restartAfter:
				logger.ErrorContext(ctx, "the sidecar's workflow engine takes no worker; the sidecar is told to restart")
				restart(ctx, sidecar, logger)
				alone = 0
			case alone%reopenAfter == 0:
				logger.WarnContext(ctx, "the workflow worker is not connected and connects anew")
				reopen()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sight is what one look at the sidecar finds.
type sight int

const (
	// connected: its engine works with a worker.
	connected sight = iota
	// lonely: it is healthy, and its engine has no worker.
	lonely
	// away: it is not there, or not ready.
	away
	// silent: it does not answer in time, which says nothing.
	silent
)

func look(ctx context.Context, sidecar Sidecar) sight {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	workers, err := 0, sidecar.Healthy(ctx)
	if err == nil {
		workers, err = sidecar.ConnectedWorkers(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return silent
	case err != nil:
		return away
	case workers == 0:
		return lonely
	default:
		return connected
	}
}

func restart(ctx context.Context, sidecar Sidecar, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := sidecar.Shutdown(ctx); err != nil {
		logger.WarnContext(ctx, "the sidecar could not be told to restart", slog.Any("error", err))
	}
}
