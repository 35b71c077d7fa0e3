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

// engine answers every question in the same way, or never.
type engine struct {
	err   error
	hangs bool
	asked int
}

func (e *engine) FetchWorkflowMetadata(ctx context.Context, _ string, _ ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error) {
	e.asked++
	if e.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, e.err
}

// A sidecar once hung all calls of its actors while its own health looked fine (dapr 10370).
func TestAnEngineThatHangsIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: fmt.Errorf("fetch: %w", api.ErrInstanceNotFound)}
		p := worker.EngineProbe(e)
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return p.Check(ctx)
		}
		for range 30 {
			if err := ask(); err != nil {
				t.Fatalf("an engine that answers: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.asked != 1 {
			t.Errorf("asked %d times in three seconds", e.asked)
		}
		e.hangs = true
		time.Sleep(10 * time.Second)
		if err := ask(); health.Cause(err) != health.Timeout {
			t.Errorf("an engine that hangs: %v", err)
		}
		e.hangs = false
		time.Sleep(2 * time.Second)
		if err := ask(); err != nil {
			t.Errorf("an engine that answers again: %v", err)
		}
		e.err = errors.New("did not find address for actor")
		time.Sleep(10 * time.Second)
		if ask() == nil {
			t.Error("an engine without actors is no trouble")
		}
	})
}
