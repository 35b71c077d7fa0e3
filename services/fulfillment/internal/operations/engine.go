package operations

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/api/protos"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/retryable"
	"waybill/services/fulfillment/internal/saga"
)

// Engine is the part of the workflow client that starts sagas, wakes them, and ends those that the engine lost.
type Engine interface {
	ScheduleWorkflow(ctx context.Context, name string, options ...workflow.NewWorkflowOptions) (string, error)
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
	RaiseEvent(ctx context.Context, id, name string, options ...workflow.RaiseEventOptions) error
	TerminateWorkflow(ctx context.Context, id string, options ...workflow.TerminateOptions) error
	GetInstanceHistory(ctx context.Context, id string, options ...workflow.GetInstanceHistoryOptions) (*workflow.GetInstanceHistoryResponse, error)
}

// ErrEngine says that a call of the workflow engine failed. It may have had its effect; call again.
var ErrEngine = retryable.New("the workflow engine is unavailable")

// engineTimeout bounds a call of the workflow engine, which blocks while no worker is connected or its scheduler is down.
const engineTimeout = 10 * time.Second

// engineError marks the error of a call as ErrEngine, unless the error is permanent.
func engineError(err error) error {
	if retryable.IsPermanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrEngine, err)
}

// engine calls the workflow engine about sagas, each call with a timeout.
type engine struct{ Engine }

// immediately is a start time that is past on every clock. Without a start time the engine replies only when the saga has begun, which
// takes as long as the engine is busy. With the time of this process's clock, the saga would start late if that clock is ahead of the
// engine's.
var immediately = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// start starts the saga, and reports whether it was running already.
func (e engine) start(ctx context.Context, in saga.Input) (running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	_, err = e.ScheduleWorkflow(ctx, saga.WorkflowName, workflow.WithInstanceID(in.OrderID), workflow.WithInput(in), workflow.WithStartTime(immediately))
	switch {
	case err == nil:
		return false, nil
	case isRunning(err):
		return true, nil
	default:
		return false, fmt.Errorf("start the saga of %s: %w", in.OrderID, engineError(err))
	}
}

// running reports whether the engine is running the order's saga.
func (e engine) running(ctx context.Context, orderID string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	metadata, err := e.FetchWorkflowMetadata(ctx, orderID)
	switch {
	case err != nil && isNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the state of the saga of %s: %w", orderID, engineError(err))
	}
	switch metadata.RuntimeStatus {
	case workflow.StatusCompleted, workflow.StatusFailed, workflow.StatusTerminated, workflow.StatusCanceled:
		return false, nil
	default:
		return true, nil
	}
}

// wake makes the order's saga read its record again.
func (e engine) wake(ctx context.Context, orderID string) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	if err := e.RaiseEvent(ctx, orderID, saga.Signal); err != nil {
		return fmt.Errorf("wake the saga of %s: %w", orderID, engineError(err))
	}
	return nil
}

// terminate ends the order's saga and its child workflows at once, without compensation.
func (e engine) terminate(ctx context.Context, orderID string) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	if err := e.TerminateWorkflow(ctx, orderID, workflow.WithRecursiveTerminate(true)); err != nil {
		return fmt.Errorf("terminate the saga of %s: %w", orderID, engineError(err))
	}
	return nil
}

// history returns the events of a workflow, none if the engine does not know it.
func (e engine) history(ctx context.Context, instance string) ([]*protos.HistoryEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	history, err := e.GetInstanceHistory(ctx, instance)
	if err != nil {
		if isNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read the history of %s: %w", instance, engineError(err))
	}
	return history.Events, nil
}

func isNotFound(err error) bool {
	return errors.Is(err, api.ErrInstanceNotFound) || status.Code(err) == codes.NotFound || strings.Contains(err.Error(), "no such instance")
}

func isRunning(err error) bool {
	return errors.Is(err, api.ErrDuplicateInstance) || status.Code(err) == codes.AlreadyExists || strings.Contains(err.Error(), "already exists")
}
