package worker

import (
	"context"
	"errors"
	"strings"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/health"
)

// Engine is the part of the workflow client that EngineProbe calls.
type Engine interface {
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
}

// missingWorkflow is the id of a workflow that does not exist.
const missingWorkflow = "readiness"

// EngineProbe checks that the workflow engine answers. A sidecar can look healthy while every call of its actors hangs. The probe reads a
// workflow that does not exist, which takes the way of every call: placement, the actor, the workflow store.
func EngineProbe(engine Engine) *health.Probe {
	return health.NewProbe(func(ctx context.Context) error {
		_, err := engine.FetchWorkflowMetadata(ctx, missingWorkflow)
		if err == nil || errors.Is(err, api.ErrInstanceNotFound) || strings.Contains(err.Error(), api.ErrInstanceNotFound.Error()) {
			return nil
		}
		return err
	})
}
