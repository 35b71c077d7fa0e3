package worker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/health"
	"waybill/services/fulfillment/internal/worker"
)

// engine answers every call with err, or hangs.
type engine struct {
	err   error
	hangs bool
	calls int
}

func (e *engine) FetchWorkflowMetadata(ctx context.Context, _ string, _ ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error) {
	e.calls++
	if e.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, e.err
}

// A sidecar once hung all calls of its actors while its own health check succeeded (dapr 10370).
func TestTheProbeDetectsAnEngineThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: fmt.Errorf("fetch: %w", api.ErrInstanceNotFound)}
		p := worker.EngineProbe(e)
		check := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return p.Check(ctx)
		}
		for range 30 {
			if err := check(); err != nil {
				t.Fatalf("an engine that answers: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.calls != 1 {
			t.Errorf("%d calls in three seconds, want 1", e.calls)
		}
		e.hangs = true
		time.Sleep(10 * time.Second)
		if err := check(); health.Cause(err) != health.Timeout {
			t.Errorf("an engine that hangs: %v", err)
		}
		e.hangs = false
		time.Sleep(2 * time.Second)
		if err := check(); err != nil {
			t.Errorf("an engine that answers again: %v", err)
		}
		e.err = errors.New("did not find address for actor")
		time.Sleep(10 * time.Second)
		if check() == nil {
			t.Error("an engine without actors passes")
		}
	})
}
