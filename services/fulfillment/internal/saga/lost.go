package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/dapr/durabletask-go/workflow"
)

// A saga waits for what the engine promised it: the end of an activity, a timer, the end of a workflow that it called. The
// engine keeps its promises by reminders, which are the scheduler's. A scheduler that lost its data, as it does when its disk
// goes with its container, leaves workflows that look as if they were at work, and never go on. Their histories show it.

// promise is something that a workflow waits for.
type promise struct {
	what string
	due  time.Time
	// child is the workflow whose end is waited for, if it is one.
	child string
}

// lost names what a saga that began at a time waits for in vain: what was due before another time, and did not come. It is
// empty when there is no such thing. An activity is due when it is scheduled, for it takes activityTimeout at most.
func (c *Control) lost(ctx context.Context, instance string, began, before time.Time) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	history, err := c.engine.GetInstanceHistory(bounded, instance)
	if err != nil && !notFound(err) {
		return "", fmt.Errorf("read the history of %s: %w", instance, engineFailed(err))
	}
	if err != nil || len(history.Events) == 0 {
		return overdue(promise{what: "the start of " + instance, due: began}, before), nil
	}
	events := history.Events
	last := promise{what: "the next turn of " + instance, due: events[len(events)-1].GetTimestamp().AsTime()}
	promises := open(events)
	if len(promises) == 0 {
		return overdue(last, before), nil
	}
	for _, p := range promises {
		what := overdue(p, before)
		if what != "" && p.child != "" {
			what, err = c.lost(ctx, p.child, p.due, before)
		}
		if what != "" || err != nil {
			return what, err
		}
	}
	return "", nil
}

func overdue(p promise, before time.Time) string {
	if p.due.Before(before) {
		return p.what
	}
	return ""
}

// open are the promises in a history that are not kept.
func open(events []*protos.HistoryEvent) map[int32]promise {
	promises := map[int32]promise{}
	for _, e := range events {
		id, at := e.GetEventId(), e.GetTimestamp().AsTime()
		switch {
		case e.GetTaskScheduled() != nil:
			promises[id] = promise{what: "the end of " + e.GetTaskScheduled().GetName(), due: at}
		case e.GetTaskCompleted() != nil:
			delete(promises, e.GetTaskCompleted().GetTaskScheduledId())
		case e.GetTaskFailed() != nil:
			delete(promises, e.GetTaskFailed().GetTaskScheduledId())
		case e.GetTimerCreated() != nil:
			promises[id] = promise{what: "a timer", due: e.GetTimerCreated().GetFireAt().AsTime()}
		case e.GetTimerFired() != nil:
			delete(promises, e.GetTimerFired().GetTimerId())
		case e.GetChildWorkflowInstanceCreated() != nil:
			child := e.GetChildWorkflowInstanceCreated()
			promises[id] = promise{what: "the end of " + child.GetName(), due: at, child: child.GetInstanceId()}
		case e.GetChildWorkflowInstanceCompleted() != nil:
			delete(promises, e.GetChildWorkflowInstanceCompleted().GetTaskScheduledId())
		case e.GetChildWorkflowInstanceFailed() != nil:
			delete(promises, e.GetChildWorkflowInstanceFailed().GetTaskScheduledId())
		}
	}
	return promises
}

// end has the engine end a saga, and the workflows that it called, as they stand: nothing is undone by it.
func (c *Control) end(ctx context.Context, orderID string) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	if err := c.engine.TerminateWorkflow(ctx, orderID, workflow.WithRecursiveTerminate(true)); err != nil {
		return fmt.Errorf("end the saga of %s: %w", orderID, engineFailed(err))
	}
	return nil
}
