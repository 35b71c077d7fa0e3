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

// The times in a history are the engine's, whose clock is another process's. So the watchdog counts on its own clock: a promise
// is overdue when this process has seen it open for longer than it may take.

// promise is something that a workflow waits for.
type promise struct {
	what string
	// at is when it was made, takes how long it lasts.
	at    time.Time
	takes time.Duration
	// child is the workflow whose end is waited for, if it is one.
	child string
}

// promiseKey names a promise: the instance and the number of the event that made it, or one of the two numbers below.
type promiseKey struct {
	instance string
	event    int32
}

const (
	startOf    int32 = -1
	nextTurnOf int32 = -2
)

// lost names what a saga that began at a time waits for in vain: what is overdue by lostAfter. It is empty when there is no such
// thing. An activity is due when it is scheduled, for it takes activityTimeout at most.
func (w *Watchdog) lost(ctx context.Context, instance string, began time.Time) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	history, err := w.control.engine.GetInstanceHistory(bounded, instance)
	if err != nil && !notFound(err) {
		return "", fmt.Errorf("read the history of %s: %w", instance, engineFailed(err))
	}
	if err != nil || len(history.Events) == 0 {
		return w.missed(instance, startOf, promise{what: "the start of " + instance, at: began}), nil
	}
	events := history.Events
	promises := open(events)
	if len(promises) == 0 {
		return w.missed(instance, nextTurnOf, promise{what: "the next turn of " + instance, at: events[len(events)-1].GetTimestamp().AsTime()}), nil
	}
	lost := ""
	for event, p := range promises { // all of them: each is first seen now
		what := w.missed(instance, event, p)
		if p.child != "" {
			inside, err := w.lost(ctx, p.child, p.at)
			if err != nil {
				return "", err
			}
			if what != "" {
				what = inside
			}
		}
		if what != "" {
			lost = what
		}
	}
	return lost, nil
}

func (w *Watchdog) missed(instance string, event int32, p promise) string {
	if w.promises.SinceFirstSeen(promiseKey{instance, event}, p.at)-p.takes > w.lostAfter {
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
			promises[id] = promise{what: "the end of " + e.GetTaskScheduled().GetName(), at: at}
		case e.GetTaskCompleted() != nil:
			delete(promises, e.GetTaskCompleted().GetTaskScheduledId())
		case e.GetTaskFailed() != nil:
			delete(promises, e.GetTaskFailed().GetTaskScheduledId())
		case e.GetTimerCreated() != nil:
			promises[id] = promise{what: "a timer", at: at, takes: e.GetTimerCreated().GetFireAt().AsTime().Sub(at)}
		case e.GetTimerFired() != nil:
			delete(promises, e.GetTimerFired().GetTimerId())
		case e.GetChildWorkflowInstanceCreated() != nil:
			child := e.GetChildWorkflowInstanceCreated()
			promises[id] = promise{what: "the end of " + child.GetName(), at: at, child: child.GetInstanceId()}
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
