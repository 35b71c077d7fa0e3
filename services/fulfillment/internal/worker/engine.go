package worker

import (
	"context"
	"errors"
	"strings"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/health"
)

// Engine is the part of the workflow client that EngineProbe asks.
type Engine interface {
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
}

// probed is the id of a workflow that does not exist.
const probed = "readiness"

// EngineProbe says whether the workflow engine answers. A sidecar can look healthy while every call of its actors hangs. The
// question, for a workflow that does not exist, goes the way of every call: placement, the actor, the workflow store.
func EngineProbe(engine Engine) *health.Probe {
	return health.NewProbe(func(ctx context.Context) error {
		_, err := engine.FetchWorkflowMetadata(ctx, probed)
		if err == nil || errors.Is(err, api.ErrInstanceNotFound) || strings.Contains(err.Error(), api.ErrInstanceNotFound.Error()) {
			return nil
		}
		return err
	})
}
