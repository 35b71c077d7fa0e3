package delivery

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// queue holds the ids of one channel's messages until they are due. It may be used by many goroutines.
type queue struct {
	mu      sync.Mutex
	waiting order
	// known is every id that waits, and those that were taken and are not done.
	known map[string]bool
	limit int
	wake  chan struct{}
}

type entry struct {
	id  string
	due time.Time
}

func newQueue(limit int) *queue {
	return &queue{known: map[string]bool{}, limit: limit, wake: make(chan struct{}, 1)}
}

// put adds an id unless it is known already. It reports false when the queue is full, and then the id is not in it.
func (q *queue) put(id string, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[id] {
		return true
	}
	if len(q.known) >= q.limit {
		return false
	}
	q.push(id, due)
	return true
}

func (q *queue) push(id string, due time.Time) {
	q.known[id] = true
	heap.Push(&q.waiting, entry{id, due})
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits until an id is due and returns it; ok is false when ctx ended. Whoever takes an id calls done or again for it.
func (q *queue) take(ctx context.Context) (id string, ok bool) {
	for ctx.Err() == nil {
		id, wait := q.next(time.Now())
		if id != "" {
			return id, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return "", false
}

// longWait is how long a worker sleeps when nothing waits; a new id wakes it.
const longWait = time.Hour

// next takes the first id if it is due, or says how long that is off.
func (q *queue) next(now time.Time) (id string, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return "", longWait
	}
	if first := q.waiting[0]; now.Before(first.due) {
		return "", first.due.Sub(now)
	}
	first := heap.Pop(&q.waiting).(entry)
	if len(q.waiting) > 0 {
		// Another worker may have slept through the wake-up that this one took.
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return first.id, 0
}

// done forgets an id that was taken.
func (q *queue) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.known, id)
}

// again puts an id back that was taken.
func (q *queue) again(id string, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(id, due)
}

// knows reports whether the id waits or was taken.
func (q *queue) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[id]
}

// order is a heap.Interface, the earliest first.
type order []entry

func (o *order) Len() int           { return len(*o) }
func (o *order) Less(i, j int) bool { return (*o)[i].due.Before((*o)[j].due) }
func (o *order) Swap(i, j int)      { (*o)[i], (*o)[j] = (*o)[j], (*o)[i] }

// Push is heap.Interface's.
func (o *order) Push(x any) { *o = append(*o, x.(entry)) }

// Pop is heap.Interface's.
func (o *order) Pop() any {
	old := *o
	last := old[len(old)-1]
	*o = old[:len(old)-1]
	return last
}
