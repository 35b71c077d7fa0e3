package operations

import (
	"context"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
)

// A saga waits for pending tasks: the end of an activity, a timer, the end of a child workflow. The engine completes them by reminders of
// the scheduler. A scheduler that lost its data, as it does when its disk goes with its container, leaves workflows that look as if they
// run but never continue. Their histories show pending tasks that are long overdue.
//
// The times in a history come from the engine's clock, which is another process's. So the reconciler counts on its own clock: a task is
// overdue when this process has seen it pending for longer than it may take.

// pendingTask is something that a workflow waits for.
type pendingTask struct {
	name string
	// since is when it became pending, lasts how long it may be pending without being overdue.
	since time.Time
	lasts time.Duration
	// child is the instance id of the child workflow, if the task is one.
	child string
}

// taskKey identifies a pending task: the workflow and the number of the event that created the task, or one of the two numbers below.
type taskKey struct {
	instance string
	event    int32
}

const (
	workflowStart int32 = -1
	nextRun       int32 = -2
)

// lostTask returns the name of a pending task of the workflow that is overdue by more than LostAfter; empty if there is none. began is
// when the workflow was started. An activity is due at once, because it takes activityTimeout at most and LostAfter is longer.
func (r *Reconciler) lostTask(ctx context.Context, instance string, began time.Time) (string, error) {
	history, err := r.sagas.engine.history(ctx, instance)
	if err != nil {
		return "", err
	}
	if len(history) == 0 {
		return r.nameIfLost(taskKey{instance, workflowStart}, pendingTask{name: "the start of " + instance, since: began}), nil
	}
	tasks := pendingTasks(history)
	if len(tasks) == 0 {
		last := history[len(history)-1].GetTimestamp().AsTime()
		return r.nameIfLost(taskKey{instance, nextRun}, pendingTask{name: "the next run of " + instance, since: last}), nil
	}
	lost := ""
	for event, task := range tasks { // all of them, so that each has been seen from now on
		name := r.nameIfLost(taskKey{instance, event}, task)
		if task.child != "" {
			inside, err := r.lostTask(ctx, task.child, task.since)
			if err != nil {
				return "", err
			}
			if name != "" {
				name = inside
			}
		}
		if name != "" {
			lost = name
		}
	}
	return lost, nil
}

func (r *Reconciler) nameIfLost(key taskKey, task pendingTask) string {
	if r.tasks.SinceFirstSeen(key, task.since)-task.lasts > r.LostAfter {
		return task.name
	}
	return ""
}

// pendingTasks returns the tasks of a history that have not ended, by the number of the event that created them.
func pendingTasks(history []*protos.HistoryEvent) map[int32]pendingTask {
	tasks := map[int32]pendingTask{}
	for _, e := range history {
		id, at := e.GetEventId(), e.GetTimestamp().AsTime()
		switch {
		case e.GetTaskScheduled() != nil:
			tasks[id] = pendingTask{name: "the end of " + e.GetTaskScheduled().GetName(), since: at}
		case e.GetTaskCompleted() != nil:
			delete(tasks, e.GetTaskCompleted().GetTaskScheduledId())
		case e.GetTaskFailed() != nil:
			delete(tasks, e.GetTaskFailed().GetTaskScheduledId())
		case e.GetTimerCreated() != nil:
			tasks[id] = pendingTask{name: "a timer", since: at, lasts: e.GetTimerCreated().GetFireAt().AsTime().Sub(at)}
		case e.GetTimerFired() != nil:
			delete(tasks, e.GetTimerFired().GetTimerId())
		case e.GetChildWorkflowInstanceCreated() != nil:
			child := e.GetChildWorkflowInstanceCreated()
			tasks[id] = pendingTask{name: "the end of " + child.GetName(), since: at, child: child.GetInstanceId()}
		case e.GetChildWorkflowInstanceCompleted() != nil:
			delete(tasks, e.GetChildWorkflowInstanceCompleted().GetTaskScheduledId())
		case e.GetChildWorkflowInstanceFailed() != nil:
			delete(tasks, e.GetChildWorkflowInstanceFailed().GetTaskScheduledId())
		}
	}
	return tasks
}
