// Package worker keeps the workflow worker connected to the workflow engine in the sidecar. It restarts the sidecar if its engine no
// longer accepts a worker.
//
// That happens in Dapr 1.18.2: when the only worker disconnects, the sidecar unregisters the workflow actors and waits for those that
// run. One of them may wait to hand its work to a worker, which cannot connect until the actors are registered again. Nothing in that
// sidecar ends this wait.
package worker

import (
	"context"
	"log/slog"
	"time"
)

// Sidecar is what the worker needs of its sidecar.
type Sidecar interface {
	// Healthy returns an error while the sidecar's APIs cannot be used.
	Healthy(ctx context.Context) error
	// WaitHealthy returns when the sidecar is healthy, or an error if ctx ends first.
	WaitHealthy(ctx context.Context) error
	// ConnectedWorkers is how many workers are connected to the sidecar's engine.
	ConnectedWorkers(ctx context.Context) (int, error)
	// Shutdown ends the sidecar. Its supervisor starts it again.
	Shutdown(ctx context.Context) error
}

const (
	// checkInterval is the time between two checks of the connection. checkTimeout is long, because a loaded machine answers slowly.
	checkInterval = time.Second
	checkTimeout  = 3 * time.Second
	// reconnectAfter is how many checks in a row must find a healthy sidecar without a worker before the worker reconnects. The worker
	// also reconnects by itself, but pauses up to 15 seconds if the sidecar was unavailable for long.
	reconnectAfter = 2
	// restartAfter is how many such checks it takes before the sidecar is restarted.
	restartAfter = 6
)

// Run connects the worker with open as soon as the sidecar is healthy, and keeps it connected until ctx ends. Open must return when the
// worker has started. The worker must end with the context that open gets.
func Run(ctx context.Context, sidecar Sidecar, open func(ctx context.Context) error, logger *slog.Logger) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	var disconnect context.CancelFunc = func() {}
	defer func() { disconnect() }()
	connect := func() {
		disconnect()
		var worker context.Context
		worker, disconnect = context.WithCancel(ctx)
		if err := open(worker); err != nil {
			logger.WarnContext(ctx, "workflow worker could not connect; will retry", slog.Any("error", err))
		}
	}
	if sidecar.WaitHealthy(ctx) != nil {
		return // ctx ended
	}
	connect()
	for disconnected := 0; ; {
		switch check(ctx, sidecar) {
		case workerConnected, sidecarUnavailable:
			disconnected = 0
		case unknown:
		case workerDisconnected:
			disconnected++
			switch {
			case disconnected == restartAfter:
				logger.ErrorContext(ctx, "workflow engine accepts no worker; restarting the sidecar")
				restart(ctx, sidecar, logger)
				disconnected = 0
			case disconnected%reconnectAfter == 0:
				logger.WarnContext(ctx, "workflow worker disconnected; reconnecting")
				connect()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// workerState is the result of a check.
type workerState int

const (
	workerConnected workerState = iota
	// workerDisconnected: the sidecar is healthy, and its engine has no worker.
	workerDisconnected
	sidecarUnavailable
	// unknown: the check timed out.
	unknown
)

func check(ctx context.Context, sidecar Sidecar) workerState {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	workers, err := 0, sidecar.Healthy(ctx)
	if err == nil {
		workers, err = sidecar.ConnectedWorkers(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return unknown
	case err != nil:
		return sidecarUnavailable
	case workers == 0:
		return workerDisconnected
	default:
		return workerConnected
	}
}

func restart(ctx context.Context, sidecar Sidecar, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := sidecar.Shutdown(ctx); err != nil {
		logger.WarnContext(ctx, "sidecar could not be restarted; will retry", slog.Any("error", err))
	}
}
