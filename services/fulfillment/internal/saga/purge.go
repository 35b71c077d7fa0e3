package saga

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/retryable"
)

// Purger removes finished workflows that the engine keeps although their retention is over. The engine removes a workflow by a job of
// the scheduler; a scheduler that lost its data, as it does when its disk goes with its container, leaves the workflow's rows for
// ever (docs/adr/0033).
type Purger struct {
	engine Instances
	// after is how long after its end a completed workflow is removed.
	after  time.Duration
	logger *slog.Logger
	now    func() time.Time
	// seen are the instances that the last Purge found. What an engine removes in time is not among them the next time.
	seen map[string]bool
}

// Instances is the part of the workflow client that finds and removes workflows.
type Instances interface {
	ListInstanceIDs(ctx context.Context, options ...workflow.ListInstanceIDsOptions) (*workflow.ListInstanceIDsResponse, error)
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
	PurgeWorkflowState(ctx context.Context, id string, options ...workflow.PurgeOptions) error
}

// failedLonger is how much longer a workflow is kept that failed or was terminated, for somebody to look at it.
const failedLonger = 7 * 24 * time.Hour

// NewPurger returns a Purger that removes completed workflows so long after their end. That must be longer than the engine's own
// retention.
func NewPurger(engine Instances, after time.Duration, logger *slog.Logger, now func() time.Time) *Purger {
	return &Purger{engine: engine, after: after, logger: logger, now: now}
}

// Run purges at every interval until ctx ends: twelve times in the time that it gives the engine, and every two hours by default.
func (p *Purger) Run(ctx context.Context) {
	ticker := time.NewTicker(max(p.after/12, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n, err := p.Purge(ctx)
		if err != nil && ctx.Err() == nil {
			p.logger.WarnContext(ctx, "finished workflows were not all removed; will try again", slog.Any("error", err))
		}
		if n > 0 {
			p.logger.InfoContext(ctx, "finished workflows were removed that the engine had not removed after their retention", slog.Int("workflows", n))
		}
	}
}

// Purge removes what ended long ago, of the workflows that the last Purge found too, and returns how many those were.
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
		gone, err := p.purge(ctx, id)
		if gone {
			purged++
		}
		switch {
		case retryable.Is(err):
			return purged, err
		case err != nil:
			p.logger.ErrorContext(ctx, "workflow could not be removed; the others are", slog.String("workflow", id), slog.Any("error", err))
		}
	}
	return purged, nil
}

const purgePage = 500

func (p *Purger) page(ctx context.Context, token string) (*workflow.ListInstanceIDsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	options := []workflow.ListInstanceIDsOptions{workflow.WithListInstanceIDsPageSize(purgePage)}
	if token != "" {
		options = append(options, workflow.WithListInstanceIDsContinuationToken(token))
	}
	page, err := p.engine.ListInstanceIDs(ctx, options...)
	if err != nil {
		return nil, engineFailed(err)
	}
	return page, nil
}

// purge removes a workflow if it ended long ago, and reports whether it did.
func (p *Purger) purge(ctx context.Context, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	metadata, err := p.engine.FetchWorkflowMetadata(ctx, id)
	if err != nil {
		if notFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("look at workflow %s: %w", id, engineFailed(err))
	}
	keep := p.after
	switch metadata.RuntimeStatus {
	case workflow.StatusCompleted:
	case workflow.StatusFailed, workflow.StatusTerminated, workflow.StatusCanceled:
		keep += failedLonger
	default:
		return false, nil
	}
	if p.now().Sub(metadata.LastUpdatedAt.AsTime()) < keep {
		return false, nil
	}
	if err := p.engine.PurgeWorkflowState(ctx, id); err != nil {
		if notFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("remove workflow %s: %w", id, engineFailed(err))
	}
	return true, nil
}
