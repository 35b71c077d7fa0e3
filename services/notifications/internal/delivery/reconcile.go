package delivery

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"waybill/platform/reconcile"
	"waybill/platform/retryable"
	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
)

// The reconciler of messages removes settled entries from the pending set. It brings messages back into a queue that no process
// delivers, because the process that accepted them ended or its queue was full.

const (
	reconcileInterval = 10 * time.Second
	// announceGrace is how long an outcome is left to the process that stored it: that process needs one pass to remove its
	// entry. Later, each process that finds the entry announces the outcome again.
	announceGrace = time.Minute
	// entryGrace is how long an entry is kept whose round has not begun.
	entryGrace = 10 * time.Minute
)

// newLoops makes the reconcilers of the three pending sets.
func (c *Courier) newLoops() (err error) {
	if c.messages, err = reconcile.New(reconcile.Options{
		Name: "notifications", Pending: pendingMessages{c}, Prefetch: c.prefetch, Reconcile: c.Reconcile,
		Interval: reconcileInterval, IDKey: "notification_id", Logger: c.Logger,
	}); err != nil {
		return err
	}
	if c.waits, err = reconcile.New(reconcile.Options{
		Name: "address-waits", Pending: c.Waits, Reconcile: c.reconcileWait, Concurrency: waitsConcurrency,
		Interval: c.waitPrecision(), Backoff: storePause, IDKey: "address_wait", Logger: c.Logger,
	}); err != nil {
		return err
	}
	c.arrivals, err = reconcile.New(reconcile.Options{
		Name: "address-arrivals", Pending: c.Arrivals, Prefetch: c.prefetchArrivals, Reconcile: c.reconcileArrival,
		Interval: reconcileInterval, Backoff: storePause, IDKey: "address_arrival", Logger: c.Logger,
	})
	return err
}

// Reconcile decides about an entry of the pending set: it is done if its round is settled. Otherwise it makes sure that the message is
// in a queue of this process. The prefetched message has been left to its own process for the grace period.
func (c *Courier) Reconcile(_ context.Context, text string) (reconcile.Result, error) {
	e := parseEntry(text)
	m, read := c.pass.messages[text]
	switch {
	case c.isSettled(e.round):
		return done, nil
	case !read:
		// This process has it in a queue, or cannot deliver it.
	case m == nil, m.Round > e.n:
		return done, nil // it does not exist, or it has an entry for its new round
	case m.Round < e.n:
		if c.entries.SinceFirstSeen(text, e.at) > entryGrace {
			return done, nil // the round will not begin
		}
	case c.queues[m.Channel] == nil:
		// A newer version of this service requested it and will send it.
	case m.Final():
		c.putNow(m)
	case m.State == message.Waiting:
		// The process that stored the wait may have ended before it added the wait to Waits.
		c.queues[m.Channel].put(job{id: m.ID, due: time.Now()})
	default:
		c.queues[m.Channel].put(job{id: m.ID, due: c.due(m)})
	}
	return after(0), nil
}

// pass is what the reconciler has read for the entries of a page. A message that does not exist is nil.
type pass struct{ messages map[string]*message.Message }

// prefetch reads the messages of the entries that this process does not know.
func (c *Courier) prefetch(ctx context.Context, entries []string) (map[string]reconcile.Record, error) {
	var unknown []entry
	var ids []string
	for _, text := range entries {
		if e := parseEntry(text); !c.isSettled(e.round) && !c.knows(e.id) {
			unknown, ids = append(unknown, e), append(ids, e.id)
		}
	}
	messages, unreadable, err := c.Messages.Many(ctx, ids)
	if err != nil {
		return nil, err
	}
	records := map[string]reconcile.Record{}
	for _, text := range entries {
		records[text] = reconcile.Record{}
	}
	c.pass = pass{map[string]*message.Message{}}
	for _, e := range unknown {
		m, exists := messages[e.id]
		if !exists {
			c.pass.messages[e.text] = nil
			records[e.text] = reconcile.Record{Unreadable: unreadable[e.id]}
			continue
		}
		c.pass.messages[e.text] = &m
		r := reconcile.Record{Created: m.RequestedAt}
		if m.Final() && m.Round == e.n && c.hasVisited() {
			r.Changed, r.Grace = m.FinishedAt, announceGrace
		}
		records[e.text] = r
	}
	return records, nil
}

// knows reports whether this process has the message in a queue, or cannot deliver it.
func (c *Courier) knows(id string) bool {
	for _, q := range c.queues {
		if q.knows(id) {
			return true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abandoned[id]
}

// abandon makes this process ignore the message. The next process tries it.
func (c *Courier) abandon(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned[id] = true
}

func (c *Courier) isSettled(r round) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settled[r]
}

// hasVisited is false in the first pass of a process: it announces at once what earlier processes left.
func (c *Courier) hasVisited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.visited
}

// pendingMessages is the pending set as the reconciler visits it. After a whole visit, the rounds that were settled before are
// forgotten: their entries existed before they were settled, so this visit removed them, or another process did.
type pendingMessages struct{ *Courier }

// Visit implements reconcile.Set.
func (p pendingMessages) Visit(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	p.mu.Lock()
	settled := maps.Clone(p.settled)
	p.mu.Unlock()
	err := p.Pending.Visit(ctx, visit)
	if err != nil && (retryable.Is(err) || !errors.Is(err, state.ErrUnreadable)) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visited = true
	for r := range settled {
		delete(p.settled, r)
	}
	return err
}

// removeSettled removes the settled entries before this process ends. Otherwise the next process would announce them again.
func (c *Courier) removeSettled(ctx context.Context) {
	c.mu.Lock()
	left := len(c.settled)
	c.mu.Unlock()
	if left == 0 {
		return
	}
	if err := c.messages.Pass(ctx); err != nil {
		c.Logger.WarnContext(ctx, "settled notifications are still in the pending set; the next process will announce them again", slog.Int("settled", left), slog.Any("error", err))
	}
}

// remaining is how long to wait until an attempt may begin. Another process may have written the times of the message, by a clock that
// differs by hours. So a planned pause lasts at most as long as when it was planned. A claim of another process lasts a whole
// lease from when this process first saw it: the message is not sent twice, and does not wait longer.
func (c *Courier) remaining(m *message.Message) time.Duration {
	switch m.State {
	case message.Pending:
		return c.times.Remaining(m.ID, m.NextAttemptAt, m.Pause())
	case message.Sending:
		return c.lease() - c.times.SinceFirstSeen(m.ID, m.ClaimedUntil)
	default:
		return 0
	}
}

// due is when an attempt may begin, by the clock of this process.
func (c *Courier) due(m *message.Message) time.Time { return time.Now().Add(c.remaining(m)) }

// ready reports whether an attempt may begin.
func (c *Courier) ready(m *message.Message) bool { return m.Ready(m.Due().Add(-c.remaining(m))) }

// round is one round of a message.
type round struct {
	id string
	n  int
}

// entry is an entry of the pending set: one round of a message. The entry of a later round is added before the round begins, so it
// also has the time when it was added.
type entry struct {
	round

	at   time.Time
	text string
}

// entryOf returns the text of an entry. For the first round it is the id alone, as all releases write it.
func entryOf(id string, n int, at time.Time) string {
	if n == 0 {
		return id
	}
	return id + "#" + strconv.Itoa(n) + "@" + strconv.FormatInt(at.Unix(), 10)
}

func parseEntry(text string) entry {
	id, rest, _ := strings.Cut(text, "#")
	number, seconds, _ := strings.Cut(rest, "@")
	n, _ := strconv.Atoi(number)
	unix, _ := strconv.ParseInt(seconds, 10, 64)
	return entry{round{id, n}, time.Unix(unix, 0), text}
}
