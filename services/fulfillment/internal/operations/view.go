package operations

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
)

// Show returns an order's saga: its record, and its steps as far as the engine remembers them. The error is a *record.Error if there is
// no such saga.
func (s *Sagas) Show(ctx context.Context, orderID string) (record.Saga, []record.Step, error) {
	sr, err := s.records.Get(ctx, orderID)
	if err != nil || !sr.Started() {
		if err == nil {
			err = record.ErrUnknown(orderID)
		}
		return sr, nil, err
	}
	steps, err := s.steps(ctx, orderID)
	if err != nil {
		s.logger.WarnContext(ctx, "saga steps could not be read; showing the saga without them", slog.String("order_id", orderID), slog.Any("error", err))
	}
	return sr, steps, nil
}

// State returns the saga's state now, and what it waits for.
func (s *Sagas) State(sr *record.Saga) (record.State, *record.Wait) {
	idle := s.idle(sr)
	return sr.State(idle, s.stuckAfter), sr.Wait(idle, s.stuckAfter)
}

// idle is how long nothing has happened to a saga.
func (s *Sagas) idle(sr *record.Saga) time.Duration {
	return s.moved.Age(sr.Order.OrderID, sr.LastMoved())
}

// List returns at most limit sagas that have not ended, oldest first: those in a state, or all if state is empty. It reports whether
// there are more.
func (s *Sagas) List(ctx context.Context, state record.State, limit int) (sagas []record.Saga, more bool, err error) {
	return s.list(ctx, s.records.Open, limit, func(sr *record.Saga) bool {
		now := sr.State(s.idle(sr), s.stuckAfter)
		return sr.Started() && now != record.Ended && (state == "" || now == state)
	})
}

// Approvals returns at most limit sagas that requested an approval and for which keep returns true, oldest first. It reports whether
// there are more.
func (s *Sagas) Approvals(ctx context.Context, keep func(*record.Saga) bool, limit int) (sagas []record.Saga, more bool, err error) {
	return s.list(ctx, s.records.Approvals, limit, keep)
}

// errLimit ends a list at its limit.
var errLimit = errors.New("the list has reached its limit")

func (s *Sagas) list(ctx context.Context, each func(context.Context, func([]record.Saga) error) error, limit int, keep func(*record.Saga) bool) (kept []record.Saga, more bool, err error) {
	seen := map[string]bool{} // a pending set may hold an id more than once
	err = each(ctx, func(sagas []record.Saga) error {
		for i := range sagas {
			id := sagas[i].Order.OrderID
			if seen[id] || !keep(&sagas[i]) {
				continue
			}
			if seen[id] = true; len(kept) == limit {
				return errLimit
			}
			kept = append(kept, sagas[i])
		}
		return nil
	})
	switch {
	case errors.Is(err, errLimit):
		return kept, true, nil
	case errors.Is(err, record.ErrUnreadable):
		s.logger.ErrorContext(ctx, "saga record cannot be read and is missing from the list", slog.Any("error", err))
		return kept, false, nil
	default:
		return kept, false, err
	}
}

// steps reads a workflow's steps from its history. The steps of a child workflow are in the place of the child.
func (s *Sagas) steps(ctx context.Context, instance string) ([]record.Step, error) {
	history, err := s.engine.history(ctx, instance)
	if err != nil {
		return nil, err
	}
	var steps []record.Step
	attempts := map[int32]int{} // the index of the step to which a scheduled activity belongs
	for _, e := range history {
		at := e.GetTimestamp().AsTime()
		if scheduled := e.GetTaskScheduled(); scheduled != nil {
			i := slices.IndexFunc(steps, func(s record.Step) bool { return s.Name == scheduled.GetName() && !s.Done })
			if i < 0 {
				i = len(steps)
				steps = append(steps, record.Step{Name: scheduled.GetName(), StartedAt: at})
			}
			steps[i].Attempts++
			steps[i].EndedAt = time.Time{}
			attempts[e.GetEventId()] = i
		}
		if completed := e.GetTaskCompleted(); completed != nil {
			if i, known := attempts[completed.GetTaskScheduledId()]; known {
				var result saga.StepResult
				if json.Unmarshal([]byte(completed.GetResult().GetValue()), &result) == nil && result.Busy {
					continue // it runs again
				}
				steps[i].EndedAt, steps[i].Done, steps[i].Error = at, true, ""
				steps = append(steps, saga.IncludedSteps(steps[i], completed.GetResult().GetValue())...)
			}
		}
		if failed := e.GetTaskFailed(); failed != nil {
			if i, known := attempts[failed.GetTaskScheduledId()]; known {
				steps[i].EndedAt, steps[i].Error = at, failed.GetFailureDetails().GetErrorMessage()
			}
		}
		if child := e.GetChildWorkflowInstanceCreated(); child != nil {
			inside, err := s.steps(ctx, child.GetInstanceId())
			if err != nil {
				return nil, err
			}
			steps = append(steps, inside...)
		}
	}
	return steps, nil
}
