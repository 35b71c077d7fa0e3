package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waybill/services/fulfillment/internal/worker"
)

// sidecar can be unavailable, or its engine stuck: then it accepts no worker until it is restarted.
type sidecar struct {
	mu          sync.Mutex
	unavailable bool
	stuck       bool
	workers     int
	opened      int
	restarts    int
}

func (s *sidecar) Healthy(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unavailable {
		return errors.New("unavailable")
	}
	return nil
}

func (s *sidecar) WaitHealthy(ctx context.Context) error {
	for s.Healthy(ctx) != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (s *sidecar) ConnectedWorkers(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers, nil
}

func (s *sidecar) Shutdown(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts++
	s.stuck = false
	return nil
}

func (s *sidecar) open(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if !s.stuck {
		s.workers = 1
	}
	return nil
}

func (s *sidecar) set(change func(s *sidecar)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// watch runs the worker on the sidecar and lets a minute of the test's own time pass after each act. It returns how often the worker was
// opened and the sidecar restarted.
func watch(t *testing.T, s *sidecar, acts ...func(s *sidecar)) (opened, restarts int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { worker.Run(ctx, s, s.open, slog.New(slog.DiscardHandler)) })
		time.Sleep(time.Minute)
		for _, act := range acts {
			s.set(act)
			time.Sleep(time.Minute)
		}
		stop()
		running.Wait()
	})
	return s.opened, s.restarts
}

func TestAConnectedWorkerIsLeftAlone(t *testing.T) {
	t.Parallel()
	if opened, restarts := watch(t, &sidecar{}); opened != 1 || restarts != 0 {
		t.Errorf("opened %d times, restarted %d times; want once and never", opened, restarts)
	}
}

func TestTheWorkerWaitsForAnUnavailableSidecar(t *testing.T) {
	t.Parallel()
	s := &sidecar{unavailable: true}
	opened, restarts := watch(t, s, func(s *sidecar) { s.unavailable = false }, func(s *sidecar) { s.unavailable = true })
	if opened != 1 || restarts != 0 {
		t.Errorf("opened %d times, restarted %d times; want once and never", opened, restarts)
	}
}

func TestADisconnectedWorkerReconnects(t *testing.T) {
	t.Parallel()
	opened, restarts := watch(t, &sidecar{}, func(s *sidecar) { s.workers = 0 })
	if opened != 2 || restarts != 0 {
		t.Errorf("opened %d times, restarted %d times; want twice and never", opened, restarts)
	}
}

func TestAStuckEngineIsRestarted(t *testing.T) {
	t.Parallel()
	s := &sidecar{}
	_, restarts := watch(t, s, func(s *sidecar) { s.workers, s.stuck = 0, true })
	if restarts != 1 || s.workers != 1 {
		t.Errorf("restarted %d times, %d workers; want once and one", restarts, s.workers)
	}
}
