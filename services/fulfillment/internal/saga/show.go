package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"waybill/services/fulfillment/internal/record"
)

// Show returns an order's saga: its journal entry, and the steps as far as the engine remembers them. A *record.Error says
// that there is no such saga.
func (c *Control) Show(ctx context.Context, orderID string) (record.Saga, []record.Step, error) {
	e, err := c.records.Get(ctx, orderID)
	if err != nil || !e.Started() {
		if err == nil {
			err = record.ErrUnknown(orderID)
		}
		return e, nil, err
	}
	steps, err := c.steps(ctx, orderID)
	if err != nil {
		// The journal is worth showing without them.
		c.logger.WarnContext(ctx, "the steps of a saga cannot be shown", slog.String("order_id", orderID), slog.Any("error", err))
	}
	return e, steps, nil
}

// errEnough ends a list that is as long as was asked for.
var errEnough = errors.New("enough")

// List returns at most limit sagas that have not ended, oldest first, of one state or of all when state is empty, and whether
// there are more.
func (c *Control) List(ctx context.Context, state record.State, limit int) (entries []record.Saga, more bool, err error) {
	return c.list(ctx, c.records.Open, limit, func(e *record.Saga) bool {
		now := e.State(c.idle(e), c.stuckAfter)
		return e.Started() && now != record.Ended && (state == "" || now == state)
	})
}

// Approvals returns at most limit sagas that asked for an approval, oldest first, those of which keep says so, and whether
// there are more.
func (c *Control) Approvals(ctx context.Context, keep func(e *record.Saga) bool, limit int) (entries []record.Saga, more bool, err error) {
	return c.list(ctx, c.records.Approvals, limit, keep)
}

type visitor = func(context.Context, []record.Saga) (forget []string, err error)

func (c *Control) list(ctx context.Context, each func(context.Context, visitor) error, limit int, keep func(e *record.Saga) bool) (kept []record.Saga, more bool, err error) {
	seen := map[string]bool{} // a list can name an order twice
	err = each(ctx, func(_ context.Context, entries []record.Saga) ([]string, error) {
		for i := range entries {
			id := entries[i].Order.OrderID
			if seen[id] || !keep(&entries[i]) {
				continue
			}
			if seen[id] = true; len(kept) == limit {
				return nil, errEnough
			}
			kept = append(kept, entries[i])
		}
		return nil, nil
	})
	switch {
	case errors.Is(err, errEnough):
		return kept, true, nil
	case errors.Is(err, record.ErrUnreadable):
		c.logger.ErrorContext(ctx, "saga cannot be read and is missing from the list", slog.Any("error", err))
		return kept, false, nil
	default:
		return kept, false, err
	}
}

// Wait says what a saga waits for now, and State what it is about.
func (c *Control) Wait(e *record.Saga) (record.State, *record.Wait) {
	idle := c.idle(e)
	return e.State(idle, c.stuckAfter), e.Wait(idle, c.stuckAfter)
}

// idle is for how long nothing has happened about a saga.
func (c *Control) idle(e *record.Saga) time.Duration {
	return c.moved.Age(e.Order.OrderID, e.LastMoved())
}

// steps reads a workflow's steps from its history, those of the workflows that it called in their place.
func (c *Control) steps(ctx context.Context, instance string) ([]record.Step, error) {
	bounded, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	history, err := c.engine.GetInstanceHistory(bounded, instance)
	if err != nil {
		if notFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read the history of %s: %w", instance, engineFailed(err))
	}
	var steps []record.Step
	running := map[int32]int{} // the step that a scheduled attempt belongs to
	for _, e := range history.Events {
		at := e.GetTimestamp().AsTime()
		if scheduled := e.GetTaskScheduled(); scheduled != nil {
			i := slices.IndexFunc(steps, func(s record.Step) bool { return s.Name == scheduled.GetName() && !s.Done })
			if i < 0 {
				i = len(steps)
				steps = append(steps, record.Step{Name: scheduled.GetName(), StartedAt: at})
			}
			steps[i].Attempts++
			steps[i].EndedAt = time.Time{}
			running[e.GetEventId()] = i
		}
		if completed := e.GetTaskCompleted(); completed != nil {
			if i, known := running[completed.GetTaskScheduledId()]; known {
				var result StepResult
				if json.Unmarshal([]byte(completed.GetResult().GetValue()), &result) == nil && result.Busy {
					continue // it waits for another turn
				}
				steps[i].EndedAt, steps[i].Done, steps[i].Error = at, true, ""
				steps = append(steps, included(steps[i], completed.GetResult().GetValue())...)
			}
		}
		if failed := e.GetTaskFailed(); failed != nil {
			if i, known := running[failed.GetTaskScheduledId()]; known {
				steps[i].EndedAt, steps[i].Error = at, failed.GetFailureDetails().GetErrorMessage()
			}
		}
		if child := e.GetChildWorkflowInstanceCreated(); child != nil {
			called, err := c.steps(ctx, child.GetInstanceId())
			if err != nil {
				return nil, err
			}
			steps = append(steps, called...)
		}
	}
	return steps, nil
}

// included are the steps that an activity took besides its own, by its result: UpdateOrderStatus requests the customer's messages
// as well, which were activities of their own in earlier releases and are when that fails.
func included(step record.Step, result string) []record.Step {
	var reported Reported
	if step.Name != activityUpdateOrderStatus || json.Unmarshal([]byte(result), &reported) != nil || !reported.Notified {
		return nil
	}
	steps := make([]record.Step, len(messages))
	for i := range messages {
		steps[i] = record.Step{Name: messages[i].activity, Attempts: 1, StartedAt: step.StartedAt, EndedAt: step.EndedAt, Done: true}
	}
	return steps
}
