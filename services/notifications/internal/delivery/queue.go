package delivery

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"waybill/services/notifications/internal/message"
)

// queue holds one channel's messages until they are due. It may be used by many goroutines.
type queue struct {
	mu      sync.Mutex
	waiting order
	// known is every id that waits, and those that were taken and are not done.
	known map[string]bool
	limit int
	// busy is how many workers have a job or are about to: one for each job that was taken or is claimed, and for each
	// worker that is reserved.
	busy, workers int
	// closed says that the workers end: nothing is claimed for them any more.
	closed bool
	// paused is until when the channel is not called, except for what is claimed.
	paused time.Time
	wake   chan struct{}
}

// job is a message that waits for something to be done about it.
type job struct {
	id  string
	due time.Time
	// message is the message as this process stored it, or nil when it has to be read: in the state Sending when this process
	// has claimed it, with its outcome when this process has to announce that.
	message *message.Message
}

// claimed reports whether this process holds a claim, which passes.
func (j job) claimed() bool { return j.message != nil && j.message.State == message.Sending }

func newQueue(limit, workers int) *queue {
	return &queue{known: map[string]bool{}, limit: limit, workers: workers, wake: make(chan struct{}, 1)}
}

// reserve sets a worker aside for a job that is going to be claimed, if one has nothing to do. Then put or release follows.
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

// put adds a job unless its id is known already, or the queue is full. A claimed one takes the worker that is reserved, and is
// always added: when the same request came twice at once, the other one may have put the id here meanwhile, and waits for
// the claim to be over.
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
	q.rouse()
}

// rouse wakes a worker.
func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits until a job is due and returns it; ok is false when ctx ended and no claimed job is due. Whoever takes a job
// calls done or again for it.
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

// longWait is how long a worker sleeps when nothing waits; a new id wakes it.
const longWait = time.Hour

// next takes the first job if it is due, or says how long that is off.
func (q *queue) next(now time.Time, ending bool) (j job, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = q.closed || ending
	if len(q.waiting) == 0 {
		return job{}, longWait
	}
	first := q.waiting[0]
	switch {
	case now.Before(first.due):
		return job{}, first.due.Sub(now)
	case first.claimed():
		// Its worker was counted when it was reserved.
	case ending:
		return job{}, longWait
	default:
		q.busy++
	}
	heap.Pop(&q.waiting)
	if len(q.waiting) > 0 {
		// Another worker may have slept through the wake-up that this one took.
		q.rouse()
	}
	return first, 0
}

// pausedUntil says until when the channel is not called; ok is false when it may be.
func (q *queue) pausedUntil() (until time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.paused, time.Now().Before(q.paused)
}

// pause has the channel not called before a time. A longer pause stays.
func (q *queue) pause(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if until.After(q.paused) {
		q.paused = until
	}
}

// done forgets a job that was taken.
func (q *queue) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	delete(q.known, id)
}

// again puts a job back that was taken.
func (q *queue) again(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !j.claimed() {
		q.busy--
	}
	q.push(j)
}

// knows reports whether the id waits or was taken.
func (q *queue) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[id]
}

// order is a heap.Interface, the earliest first.
type order []job

func (o *order) Len() int           { return len(*o) }
func (o *order) Less(i, j int) bool { return (*o)[i].due.Before((*o)[j].due) }
func (o *order) Swap(i, j int)      { (*o)[i], (*o)[j] = (*o)[j], (*o)[i] }

// Push is heap.Interface's.
func (o *order) Push(x any) { *o = append(*o, x.(job)) }

// Pop is heap.Interface's.
func (o *order) Pop() any {
	old := *o
	last := old[len(old)-1]
	*o = old[:len(old)-1]
	return last
}
