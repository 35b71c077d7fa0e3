package operations

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/retryable"
)

// Purger removes finished workflows that the engine keeps beyond their retention. The engine removes a workflow by a job of the
// scheduler. A scheduler that lost its data, as it does when its disk goes with its container, leaves the workflow's rows for ever
// (docs/adr/0033).
type Purger struct {
	engine Instances
	// after is how long after its end a completed workflow is removed.
	after  time.Duration
	logger *slog.Logger
	now    func() time.Time
	// seen are the instances that the last Purge found. An instance that the engine removes in time is not found a second time.
	seen map[string]bool
}

// Instances is the part of the workflow client that finds and removes workflows.
type Instances interface {
	ListInstanceIDs(ctx context.Context, options ...workflow.ListInstanceIDsOptions) (*workflow.ListInstanceIDsResponse, error)
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
	PurgeWorkflowState(ctx context.Context, id string, options ...workflow.PurgeOptions) error
}

const (
	// failedRetention is how much longer a failed or terminated workflow is kept, so that people can examine it.
	failedRetention = 7 * 24 * time.Hour
	// purgesPerRetention is how often Run purges in the retention of a completed workflow: every two hours by default.
	purgesPerRetention = 12
	purgePage          = 500
)

// NewPurger returns a Purger that removes completed workflows this long after their end. It must be longer than the engine's own
// retention.
func NewPurger(engine Instances, after time.Duration, logger *slog.Logger, now func() time.Time) *Purger {
	return &Purger{engine: engine, after: after, logger: logger, now: now}
}

// Run purges at an interval until ctx ends.
func (p *Purger) Run(ctx context.Context) {
	ticker := time.NewTicker(max(p.after/purgesPerRetention, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n, err := p.Purge(ctx)
		if err != nil && ctx.Err() == nil {
			p.logger.WarnContext(ctx, "finished workflows could not all be removed; will retry", slog.Any("error", err))
		}
		if n > 0 {
			p.logger.InfoContext(ctx, "finished workflows removed that the engine kept beyond their retention", slog.Int("workflows", n))
		}
	}
}

// Purge removes workflows that ended long ago and that the last Purge found too. It returns how many it removed.
func (p *Purger) Purge(ctx context.Context) (purged int, err error) {
	seen := map[string]bool{}
	var old []string
	var token string
	for {
		page, err := p.page(ctx, token)
		if err != nil {
			return 0, fmt.Errorf("list workflows: %w", err)
		}
		for _, id := range page.InstanceIds {
			if seen[id] = true; p.seen[id] {
				old = append(old, id)
			}
		}
		if page.ContinuationToken == nil || *page.ContinuationToken == "" {
			break
		}
		token = *page.ContinuationToken
	}
	p.seen = seen
	for _, id := range old {
		removed, err := p.purge(ctx, id)
		if removed {
			purged++
		}
		switch {
		case retryable.Is(err):
			return purged, err
		case err != nil:
			p.logger.ErrorContext(ctx, "workflow could not be removed; removing the others", slog.String("workflow", id), slog.Any("error", err))
		}
	}
	return purged, nil
}

func (p *Purger) page(ctx context.Context, token string) (*workflow.ListInstanceIDsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	options := []workflow.ListInstanceIDsOptions{workflow.WithListInstanceIDsPageSize(purgePage)}
	if token != "" {
		options = append(options, workflow.WithListInstanceIDsContinuationToken(token))
	}
	page, err := p.engine.ListInstanceIDs(ctx, options...)
	if err != nil {
		return nil, engineError(err)
	}
	return page, nil
}

// purge removes a workflow if it ended long ago, and reports whether it did.
func (p *Purger) purge(ctx context.Context, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	metadata, err := p.engine.FetchWorkflowMetadata(ctx, id)
	if err != nil {
		if isNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("read the state of workflow %s: %w", id, engineError(err))
	}
	keep := p.after
	switch metadata.RuntimeStatus {
	case workflow.StatusCompleted:
	case workflow.StatusFailed, workflow.StatusTerminated, workflow.StatusCanceled:
		keep += failedRetention
	default:
		return false, nil
	}
	if p.now().Sub(metadata.LastUpdatedAt.AsTime()) < keep {
		return false, nil
	}
	if err := p.engine.PurgeWorkflowState(ctx, id); err != nil {
		if isNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("remove workflow %s: %w", id, engineError(err))
	}
	return true, nil
}
