package delivery

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"waybill/services/notifications/internal/message"
)

// queue holds the jobs of one channel until they are due. It is safe for concurrent use.
type queue struct {
	mu      sync.Mutex
	waiting byDue
	// known has the id of every job that waits, or that a worker took and has not finished.
	known map[string]bool
	limit int
	// busy is the number of workers that have a job or are reserved for one.
	busy, workers int
	// closed: the workers end, and none can be reserved any more.
	closed bool
	// paused is until when the channel is not called, except for claimed messages.
	paused time.Time
	// stalls counts the calls that timed out since the last answer.
	stalls int
	wake   chan struct{}
}

// job is the next step of a message.
type job struct {
	id  string
	due time.Time
	// message is the message as this process stored it, or nil if it must be read. In the state Sending, this process has
	// claimed it. With an outcome, this process must announce it.
	message *message.Message
}

// claimed reports whether this process has claimed the message. A claim ends, so the job must not wait.
func (j job) claimed() bool { return j.message != nil && j.message.State == message.Sending }

// callsChannel reports whether the job may need a new call of the channel.
func (j job) callsChannel() bool {
	return j.message == nil || j.message.State != message.Sending && !j.message.Final()
}

func newQueue(limit, workers int) *queue {
	return &queue{known: map[string]bool{}, limit: limit, workers: workers, wake: make(chan struct{}, 1)}
}

// reserve reserves an idle worker for a message that will be claimed. It returns false if there is none. After reserve the
// caller calls put with the claimed job, or release.
func (q *queue) reserve() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.busy >= q.workers || time.Now().Before(q.paused) {
		return false
	}
	q.busy++
	return true
}

// release gives a reserved worker back.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
}

// put adds a job unless its id is known or the queue is full. A claimed job uses the reserved worker and is always added: a
// concurrent request for the same message may have added its id, with a job that waits for the end of the claim.
func (q *queue) put(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.claimed() || !q.known[j.id] && len(q.known) < q.limit {
		q.push(j)
	}
}

func (q *queue) push(j job) {
	q.known[j.id] = true
	heap.Push(&q.waiting, j)
	q.wakeWorker()
}

func (q *queue) wakeWorker() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits until a job is due and returns it; ok is false if ctx ended and no claimed job is due. The caller calls done or
// requeue for the job.
func (q *queue) take(ctx context.Context) (j job, ok bool) {
	for {
		j, wait := q.next(time.Now(), ctx.Err() != nil)
		if j.id != "" {
			return j, true
		}
		if ctx.Err() != nil {
			return job{}, false
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// idleWait is how long a worker of an empty queue sleeps. A new job wakes it.
const idleWait = time.Hour

// next takes the first job if it is due, or returns how long to wait for it. While the channel is paused, it puts off the jobs
// that may call it. When the queue is ending, it takes claimed jobs only.
func (q *queue) next(now time.Time, ending bool) (j job, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = q.closed || ending
	for len(q.waiting) > 0 {
		first := q.waiting[0]
		switch {
		case now.Before(first.due):
			return job{}, first.due.Sub(now)
		case now.Before(q.paused) && first.callsChannel():
			q.waiting[0].due = q.paused
			heap.Fix(&q.waiting, 0)
			continue
		case first.claimed():
			// Its worker was counted when it was reserved.
		case ending:
			return job{}, idleWait
		default:
			q.busy++
		}
		heap.Pop(&q.waiting)
		if len(q.waiting) > 0 {
			q.wakeWorker() // this worker may have used up the signal of another job
		}
		return first, 0
	}
	return job{}, idleWait
}

// answered records the result of a call and returns the pause of the channel that follows from it, if any. A channel can ask for
// a pause. A call that timed out may continue in the sidecar (docs/adr/0030), so each one doubles the pause.
func (q *queue) answered(later *message.Later, p message.Policy) (pause time.Duration, stalled bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	stalls := 0
	if later != nil && later.Stalled {
		stalls = q.stalls + 1
	}
	if later == nil || !later.Untried {
		q.stalls = stalls
	}
	switch {
	case stalls > 0:
		pause = p.Pause(stalls)
	case later != nil && later.Channel:
		pause = later.After
	}
	if until := time.Now().Add(pause); pause > 0 && until.After(q.paused) {
		q.paused = until
	}
	return pause, stalls > 0
}

// done forgets a job that was taken.
func (q *queue) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	delete(q.known, id)
}

// requeue puts a job back that was taken.
func (q *queue) requeue(j job, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !j.claimed() {
		q.busy--
	}
	j.due = time.Now().Add(after)
	q.push(j)
}

// knows reports whether the id waits, or was taken and is not done.
func (q *queue) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[id]
}

// byDue is a heap.Interface with the earliest job first.
type byDue []job

func (o *byDue) Len() int           { return len(*o) }
func (o *byDue) Less(i, j int) bool { return (*o)[i].due.Before((*o)[j].due) }
func (o *byDue) Swap(i, j int)      { (*o)[i], (*o)[j] = (*o)[j], (*o)[i] }

// Push implements heap.Interface.
func (o *byDue) Push(x any) { *o = append(*o, x.(job)) }

// Pop implements heap.Interface.
func (o *byDue) Pop() any {
	old := *o
	last := old[len(old)-1]
	*o = old[:len(old)-1]
	return last
}
