package saga

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/contracts"
)

// Starter starts the saga of an order, once.
type Starter struct {
	engine Engine
	claims Claims
	now    func() time.Time
}

// Engine is the part of the workflow client that starting needs.
type Engine interface {
	ScheduleWorkflow(ctx context.Context, name string, options ...workflow.NewWorkflowOptions) (string, error)
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
}

// Claims records which sagas were started. Of many claims at once exactly one is the first.
type Claims interface {
	Claim(ctx context.Context, orderID string) (first, ended bool, err error)
}

// NewStarter returns a Starter on the engine.
func NewStarter(engine Engine, claims Claims, now func() time.Time) *Starter {
	return &Starter{engine: engine, claims: claims, now: now}
}

// engineTimeout bounds a call to the workflow engine, which blocks while no worker is connected or its scheduler is down.
const engineTimeout = 10 * time.Second

// ErrEngine says that the workflow engine could not be asked. The saga may have started all the same; start it again.
var ErrEngine = errors.New("the workflow engine is unavailable")

// Start starts the order's saga unless it was started before. It may be called any number of times, at the same time
// too. The claim comes first because the engine runs a finished workflow again when it is asked to.
func (s *Starter) Start(ctx context.Context, order contracts.Order) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	first, ended, err := s.claims.Claim(ctx, order.OrderID)
	if err != nil {
		return fmt.Errorf("start the saga of %s: %w", order.OrderID, err)
	}
	if ended {
		return nil
	}
	if !first {
		// The first claim's process may have died before it reached the engine.
		switch _, err := s.engine.FetchWorkflowMetadata(ctx, order.OrderID); {
		case err == nil:
			return nil
		case !notFound(err):
			return fmt.Errorf("start the saga of %s: %w: %w", order.OrderID, ErrEngine, err)
		}
	}
	_, err = s.engine.ScheduleWorkflow(ctx, workflowFulfillOrder,
		workflow.WithInstanceID(order.OrderID), workflow.WithInput(order), workflow.WithStartTime(s.now()))
	if err != nil && !alreadyRuns(err) {
		return fmt.Errorf("start the saga of %s: %w: %w", order.OrderID, ErrEngine, err)
	}
	return nil
}

func notFound(err error) bool {
	return errors.Is(err, api.ErrInstanceNotFound) || status.Code(err) == codes.NotFound
}

func alreadyRuns(err error) bool {
	return errors.Is(err, api.ErrDuplicateInstance) || status.Code(err) == codes.AlreadyExists || strings.Contains(err.Error(), "already exists")
}
