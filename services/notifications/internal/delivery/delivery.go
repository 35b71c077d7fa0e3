// Package delivery brings every message to its one outcome: it tries each channel's messages apart from the others',
// remembers across restarts what is not done, and announces what came of each. It knows neither how documents are kept nor
// how a channel works.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"waybill/contracts"
	"waybill/platform/clock"
	"waybill/platform/retryable"
	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Messages is where messages are kept.
type Messages interface {
	// Create stores new messages of one place in one write; created is false for one that was there already.
	Create(ctx context.Context, ms ...message.Message) (stored []message.Message, created []bool, err error)
	Get(ctx context.Context, id string) (message.Message, error)
	Update(ctx context.Context, id string, change func(m *message.Message) bool) (message.Message, error)
	// Many reads messages; one that is stored and cannot be read is in unreadable, with the error, and not in messages.
	Many(ctx context.Context, ids []string) (messages map[string]message.Message, unreadable map[string]error, err error)
	// Place names where the message is, At and UpdateAt are for all messages there.
	Place(id string) string
	At(ctx context.Context, place string) ([]message.Message, error)
	UpdateAt(ctx context.Context, place string, change func(m *message.Message) bool) (changed []message.Message, err error)
}

// Contacts is where contacts are kept.
type Contacts interface {
	Get(ctx context.Context, customerID string) (contact.Contact, error)
	// Recent is the contact as it is, or was a moment ago.
	Recent(ctx context.Context, customerID string) (contact.Contact, error)
	Update(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error)
}

// Backlog remembers, across restarts, what is not known to be done.
type Backlog interface {
	Add(ctx context.Context, ids ...string) error
	Sweep(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error
}

// Channel hands a message to the outside. An error that is a *message.Refusal will not pass; with any other one it is
// possible that the channel took the message. No error holds an address.
type Channel interface {
	Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error
	// Parallel is how many messages may be under way at once.
	Parallel() int
}

// Announce publishes an outcome; it may be called again with the same id.
type Announce func(ctx context.Context, id string, at time.Time, payload contracts.Payload) error

// Options is what a Courier needs to know.
type Options struct {
	Messages Messages
	Contacts Contacts
	// Backlog has the messages that are not known to be settled: to have their outcome, and to have it announced.
	Backlog Backlog
	// Expiries has the places where messages wait for an address, with the time at which they are given up.
	Expiries Backlog
	// Arrivals has the customers whose contact changed while messages waited for an address.
	Arrivals Backlog
	// Channels are the channels by their names in contracts.
	Channels map[string]Channel
	Announce Announce
	// Operators is where messages without a customer go.
	Operators contracts.Contact
	Policy    message.Policy
	// AddressWait is how long a message waits for an address.
	AddressWait time.Duration
	// SendTimeout bounds one call of a channel.
	SendTimeout time.Duration
	Logger      *slog.Logger
}

// Courier delivers messages. It may be used by many goroutines, and several processes may share one store: a message is
// sent by the one whose claim is stored.
type Courier struct {
	Options

	queues   map[string]*queue
	attempts metric.Int64Counter
	outcomes metric.Int64Counter
	waits    metric.Int64Counter
	resends  metric.Int64Counter
	// arrived wakes the one who looks through Arrivals.
	arrived chan struct{}

	// seen has the times in messages, and entries those in backlogs, which other processes may have written.
	seen, entries *clock.Tracker[string]

	mu sync.Mutex
	// leftAlone are the messages that this process cannot bring further.
	leftAlone map[string]bool
	// stalls counts, for each channel, the calls without an answer since the last one with an answer.
	stalls map[string]int
	// settled are the rounds of messages which the backlog may forget.
	settled map[round]bool
	// noted are entries that Expiries has, with the time from which on that is not relied upon.
	noted map[string]time.Time
}

const (
	// maxQueued bounds how many ids of one channel are in memory; the backlog has the others.
	maxQueued = 50_000
	// sweepPause is how often the backlog is looked through, for what other processes left and what became due of it.
	sweepPause = 10 * time.Second
	// announceGrace is how long an outcome in the backlog is left to the process that stored it, which needs one sweep to
	// forget it: whoever finds it there later announces it again.
	announceGrace = time.Minute
	// storePause is the pause before the store or the bus is asked again.
	storePause = time.Second
	// recordTimeout bounds one try to store what became of an attempt.
	recordTimeout = 5 * time.Second
)

// New returns a Courier that does nothing until Run.
func New(o Options) (*Courier, error) {
	meter := otel.Meter("waybill/services/notifications")
	attempts, err := meter.Int64Counter("waybill.notifications.attempts",
		metric.WithDescription("Calls of a channel, by channel and result: accepted, refused, failed."))
	if err != nil {
		return nil, fmt.Errorf("count attempts: %w", err)
	}
	outcomes, err := meter.Int64Counter("waybill.notifications.outcomes",
		metric.WithDescription("Messages that came to their outcome, by channel, outcome and code."))
	if err != nil {
		return nil, fmt.Errorf("count outcomes: %w", err)
	}
	waits, err := meter.Int64Counter("waybill.notifications.waits",
		metric.WithDescription("Messages that began to wait for an address, by channel."))
	if err != nil {
		return nil, fmt.Errorf("count waits: %w", err)
	}
	resends, err := meter.Int64Counter("waybill.notifications.resends",
		metric.WithDescription("Messages that operators had sent again, by channel."))
	if err != nil {
		return nil, fmt.Errorf("count resends: %w", err)
	}
	c := &Courier{
		Options: o, queues: map[string]*queue{}, attempts: attempts, outcomes: outcomes, waits: waits, resends: resends,
		arrived: make(chan struct{}, 1), settled: map[round]bool{}, noted: map[string]time.Time{}, stalls: map[string]int{}, leftAlone: map[string]bool{},
		seen: clock.NewTracker[string](time.Now), entries: clock.NewTracker[string](time.Now),
	}
	for name, channel := range o.Channels {
		c.queues[name] = newQueue(maxQueued, max(1, channel.Parallel()))
	}
	return c, nil
}

// Accept takes a message over: when it returns without an error the message is stored, and has come to its outcome and that
// is announced, or it is in the backlog and will come to it whatever process does it. Accepting again changes nothing, and
// announces an outcome again; of two messages with one id the first stands.
func (c *Courier) Accept(ctx context.Context, m message.Message) error { return c.AcceptAll(ctx, m)[0] }

// AcceptAll accepts messages and returns an error, or nil, for each. It stores what it can in one write: the messages of one order
// are requested together.
func (c *Courier) AcceptAll(ctx context.Context, ms ...message.Message) []error {
	type group struct{ place, orderID, customerID string }
	groups, of := []group{}, map[group][]int{}
	for i := range ms {
		g := group{c.Messages.Place(ms[i].ID), ms[i].OrderID, ms[i].CustomerID}
		if of[g] == nil {
			groups = append(groups, g)
		}
		of[g] = append(of[g], i)
	}
	errs := make([]error, len(ms))
	for _, g := range groups {
		together := make([]message.Message, len(of[g]))
		for n, i := range of[g] {
			together[n] = ms[i]
		}
		err := c.accept(ctx, together)
		_, invalid := errors.AsType[*message.Error](err)
		for n, i := range of[g] {
			if errs[i] = err; invalid && len(together) > 1 {
				errs[i] = c.accept(ctx, together[n:n+1]) // one may be at fault, and the others not
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("accept notification %s: %w", ms[i].ID, errs[i])
			}
		}
	}
	return errs
}

// accept accepts messages to one recipient that are kept in one place.
func (c *Courier) accept(ctx context.Context, ms []message.Message) error {
	ms = slices.Clone(ms) // this may run again with the same ones
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	reserved, now := make([]bool, len(ms)), time.Now()
	release := func(i int) {
		if reserved[i] {
			c.queues[ms[i].Channel].release()
		}
	}
	releaseAll := func() {
		for i := range ms {
			release(i)
		}
	}
	for i := range ms {
		m := &ms[i]
		m.TraceParent = carrier.Get("traceparent")
		_, refusal, lacks, err := c.recipient(ctx, m)
		if err != nil {
			releaseAll()
			return err
		}
		// What can be known now is part of the first write: a refusal, a wait, or that this process sends the message at once.
		reserved[i] = refusal == nil && c.queues[m.Channel].reserve()
		switch {
		case lacks:
			m.Wait(refusal, now, now.Add(c.AddressWait))
		case refusal != nil:
			m.Refuse(refusal, now)
		case reserved[i]:
			m.Begin(ulid.Make().String(), now, now.Add(c.lease()), c.Policy)
		}
	}
	all, created, err := c.Messages.Create(ctx, ms...)
	if err != nil {
		releaseAll()
		return err
	}
	var waiting, unsettled []int
	for i := range all {
		stored := &all[i]
		// After a lost answer, what this call created looks as if it had been there.
		if stored.ClaimedBy != ms[i].ClaimedBy {
			release(i)
			reserved[i] = false
		}
		if !created[i] && !stored.SameContent(&ms[i]) {
			c.Logger.WarnContext(ctx, "another notification has this id and stands", slog.String("notification_id", stored.ID))
		}
		switch {
		case stored.State == message.Waiting:
			if created[i] {
				c.beganToWait(ctx, stored)
			}
			waiting = append(waiting, i)
			continue
		case stored.Final():
			if created[i] {
				c.finished(ctx, stored)
			}
			if err := c.announce(ctx, stored); err == nil {
				continue
			}
		}
		unsettled = append(unsettled, i)
	}
	return errors.Join(c.enqueue(ctx, all, reserved, unsettled, now), c.awaitAll(ctx, all, waiting))
}

// enqueue puts stored messages that are not settled into the backlog and the queues. A reserved one is claimed by this process.
func (c *Courier) enqueue(ctx context.Context, stored []message.Message, reserved []bool, unsettled []int, now time.Time) error {
	if len(unsettled) == 0 {
		return nil
	}
	entries := make([]string, len(unsettled))
	for n, i := range unsettled {
		entries[n] = entryOf(stored[i].ID, stored[i].Round, now)
	}
	// Also when it was there: whoever created it may have ended before the next line. And it is tried also when it is not in
	// the backlog: the event comes again, but this process has the claim.
	err := c.Backlog.Add(ctx, entries...)
	for _, i := range unsettled {
		m := &stored[i]
		j := job{id: m.ID, due: c.due(m)}
		switch {
		case reserved[i]:
			j.due, j.message = time.Time{}, m
		case m.State != message.Sending:
			j.message = m
		}
		c.queues[m.Channel].put(j)
	}
	return err
}

// awaitAll makes sure that messages of one place which wait for an address are found when it comes. Also those that were there:
// the process that created them may have ended before it listed them.
func (c *Courier) awaitAll(ctx context.Context, stored []message.Message, waiting []int) error {
	if len(waiting) == 0 {
		return nil
	}
	ms := make([]message.Message, len(waiting))
	for n, i := range waiting {
		ms[n] = stored[i]
	}
	_, err := c.await(ctx, ms...)
	return err
}

// Run delivers until ctx ends, and returns when what was under way is done, or has had its time.
func (c *Courier) Run(ctx context.Context) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.SendTimeout+recordTimeout, cancel) })()
	var workers sync.WaitGroup
	for name, channel := range c.Channels {
		for range max(1, channel.Parallel()) {
			workers.Go(func() { c.work(ctx, working, c.queues[name]) })
		}
	}
	workers.Go(func() { c.sweep(ctx) })
	workers.Go(func() { c.lookForArrivals(ctx) })
	workers.Go(func() { c.lookForExpiries(ctx) })
	workers.Wait()
	c.mu.Lock()
	unsaid := len(c.settled) > 0
	c.mu.Unlock()
	if unsaid {
		// Else the next process would announce again what this one did.
		if err := c.sweepOnce(working, announceGrace); err != nil {
			c.Logger.WarnContext(ctx, "the backlog of notifications could not be tidied", slog.Any("error", err))
		}
	}
}

// work takes from the queue until ctx ends; an attempt that began goes on under working.
func (c *Courier) work(ctx, working context.Context, q *queue) {
	for {
		j, ok := q.take(ctx)
		if !ok {
			return
		}
		next, err := c.deliver(working, j)
		switch {
		case err != nil && permanent(err):
			// Another try in this process would fail as this one did, and could send the message once more.
			c.Logger.ErrorContext(ctx, "notification cannot be stored or announced; this process leaves it alone",
				slog.String("notification_id", j.id), slog.Any("error", err))
			c.leave(j.id)
			next = job{}
		case err != nil:
			c.Logger.WarnContext(ctx, "a notification waits for the store or the bus", slog.String("notification_id", j.id), slog.Any("error", err))
		}
		if next.id == "" {
			q.done(j.id)
		} else {
			q.again(next)
		}
	}
}

// permanent reports whether the store or the bus fails each time with this message. What is unknown may pass.
func permanent(err error) bool {
	return retryable.IsPermanent(err) || errors.Is(err, state.ErrUnreadable)
}

// leave has this process not try the message again. The next process does.
func (c *Courier) leave(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leftAlone[id] = true
}

// deliver brings the message one step further. It returns what is to be done next, or no job when there is nothing; an error
// means that the store or the bus could not be asked.
func (c *Courier) deliver(ctx context.Context, j job) (next job, err error) {
	m := j.message
	if until, paused := c.pausedUntil(j); paused {
		return job{id: j.id, due: until, message: m}, nil
	}
	if m == nil {
		read, err := c.Messages.Get(ctx, j.id)
		switch {
		case missing(err):
			c.Logger.ErrorContext(ctx, "a notification in the backlog is not in the store", slog.String("notification_id", j.id))
			return job{}, nil
		case err != nil:
			return job{id: j.id, due: time.Now().Add(storePause)}, err
		case read.Final():
			// Another process came to it, and announces it.
			return job{}, nil
		}
		m = &read
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": m.TraceParent})
	if !m.Final() && m.State != message.Waiting {
		tried, sent, err := c.attempt(ctx, *m, j.claimed())
		switch {
		case err != nil && sent:
			// It is stopped before it could store what became of that. What this process knew of the message does not hold.
			return job{id: j.id, due: c.due(m)}, err
		case err != nil:
			return job{id: j.id, due: time.Now().Add(storePause), message: j.message}, err
		}
		if m = &tried; !m.Final() && m.State != message.Waiting {
			return job{id: j.id, due: c.due(m)}, nil
		}
	}
	if m.State == message.Waiting {
		now, err := c.await(ctx, *m)
		if err != nil {
			return job{id: j.id, due: time.Now().Add(storePause)}, err
		}
		if now[0].State != message.Waiting {
			// An address came just now, or the wait is over: a new round began.
			return job{id: j.id, message: &now[0]}, nil
		}
		c.settle(m)
		return job{}, nil
	}
	if err := c.announce(ctx, m); err != nil {
		return job{id: j.id, due: time.Now().Add(storePause), message: m}, err
	}
	c.settle(m)
	return job{}, nil
}

// left is how long it is until the message may be tried. Another process may have written its times, by a clock that differs by
// hours. So a planned pause is not longer than it was when it was planned, and another process's attempt has a whole lease from
// when this process first saw it: it is neither sent twice nor waited for longer than that.
func (c *Courier) left(m *message.Message) time.Duration {
	switch m.State {
	case message.Pending:
		return c.seen.Remaining(m.ID, m.NextAttemptAt, m.Pause())
	case message.Sending:
		return c.lease() - c.seen.SinceFirstSeen(m.ID, m.ClaimedUntil)
	default:
		return 0
	}
}

// due is when the message may be tried, on this process's clock.
func (c *Courier) due(m *message.Message) time.Time { return time.Now().Add(c.left(m)) }

// ready reports whether an attempt may begin.
func (c *Courier) ready(m *message.Message) bool { return m.Ready(m.Due().Add(-c.left(m))) }

// pausedUntil says until when a job waits because its channel asked for a pause, or does not answer; ok is false when it does not.
// What was claimed before is tried, and outcomes are announced.
func (c *Courier) pausedUntil(j job) (until time.Time, ok bool) {
	if j.claimed() || j.message != nil && j.message.Final() {
		return time.Time{}, false
	}
	for _, q := range c.queues {
		if q.knows(j.id) {
			return q.pausedUntil()
		}
	}
	return time.Time{}, false
}

// settle has the backlog forget this round of the message, and those before.
func (c *Courier) settle(m *message.Message) {
	c.seen.Forget(m.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled[round{m.ID, m.Round}] = true
}

func missing(err error) bool {
	refused, ok := errors.AsType[*message.Error](err)
	return ok && refused.Kind == message.NotFound
}

// attempt sends the message, if nobody else does and its recipient can be reached, and returns it as it then stands, and
// whether its channel was called. Claimed says that this process began the attempt when it stored the message.
func (c *Courier) attempt(ctx context.Context, m message.Message, claimed bool) (tried message.Message, sent bool, err error) {
	if !claimed && !c.ready(&m) {
		return m, false, nil
	}
	ctx, span := otel.Tracer("waybill/services/notifications").Start(ctx, "send "+m.Channel, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("waybill.notification_id", m.ID), attribute.String("waybill.template", m.Template)))
	defer span.End()
	to, refusal, lacks, err := c.recipient(ctx, &m)
	if err != nil {
		return m, false, err
	}
	out, err := m.Render(to.Name)
	if err != nil && refusal == nil {
		span.RecordError(err)
		if known, ok := errors.AsType[*message.Refusal](err); ok {
			refusal = known
		} else {
			c.Logger.ErrorContext(ctx, "a notification cannot be written", slog.String("notification_id", m.ID), slog.Any("error", err))
			refusal = &message.Refusal{Code: message.CodeNoTemplate, Text: "The message could not be written."}
		}
	}
	by := m.ClaimedBy
	if !claimed {
		by = ulid.Make().String()
	}
	if refusal != nil {
		m, err = c.store(ctx, m.ID, func(m *message.Message) bool {
			now := time.Now()
			switch {
			case m.ClaimedBy != by && !c.ready(m):
				return false
			case lacks:
				return m.Wait(refusal, now, now.Add(c.AddressWait))
			default:
				return m.Refuse(refusal, now)
			}
		})
		return m, false, err
	}
	// A claim that waited for a worker may be too short for what comes.
	if !claimed || time.Until(m.ClaimedUntil) < c.SendTimeout+recordTimeout {
		var begun bool
		if m, begun, err = c.claim(ctx, m.ID, by); err != nil || !begun {
			return m, false, err
		}
	}
	sendErr := c.send(ctx, c.Channels[m.Channel], to, out)
	if sendErr != nil {
		span.RecordError(sendErr)
		span.SetStatus(codes.Error, "not sent")
	}
	m, err = c.record(ctx, m, by, to, sendErr)
	return m, true, err
}

// claim begins the attempt of that name, or prolongs it, unless the message has another one under way or need not be tried;
// begun is then false.
func (c *Courier) claim(ctx context.Context, id, by string) (m message.Message, begun bool, err error) {
	var changed bool
	m, err = c.Messages.Update(ctx, id, func(m *message.Message) bool {
		now := time.Now()
		until := now.Add(c.lease())
		begun = m.Renew(by, until)
		if changed = begun || c.ready(m); changed && !begun {
			begun = m.Begin(by, now, until, c.Policy)
		}
		return changed
	})
	if err == nil && changed && m.Final() {
		c.finished(ctx, &m)
	}
	return m, begun, err
}

// lease is how long an attempt may go on before another one may begin: the call, and time to record what became of it.
func (c *Courier) lease() time.Duration { return c.SendTimeout + 4*recordTimeout }

// recipient is whom the message is for, or why they cannot be reached; lacks says that this is for want of an address only.
func (c *Courier) recipient(ctx context.Context, m *message.Message) (to contracts.Contact, refusal *message.Refusal, lacks bool, err error) {
	if m.ToOperators() {
		return c.Operators, nil, false, nil
	}
	known, err := c.Contacts.Recent(ctx, m.CustomerID)
	if err != nil {
		return contracts.Contact{}, nil, false, err
	}
	return known.Contact, known.Refusal(m.Channel), known.Lacks(m.Channel), nil
}

func (c *Courier) send(ctx context.Context, channel Channel, to contracts.Contact, out message.Outgoing) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.SendTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the channel panicked: %v", p)
		}
	}()
	return channel.Send(ctx, to, out)
}

// record stores what became of an attempt.
func (c *Courier) record(ctx context.Context, m message.Message, by string, to contracts.Contact, sendErr error) (message.Message, error) {
	attrs := slog.Group("notification", slog.String("id", m.ID), slog.String("channel", m.Channel), slog.Int("attempt", m.Attempts))
	refusal, refused := errors.AsType[*message.Refusal](sendErr)
	now := time.Now()
	later, asked := errors.AsType[*message.Later](sendErr)
	c.pause(ctx, m.Channel, later)
	switch {
	case sendErr == nil:
		c.count(ctx, m.Channel, "accepted")
		return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Accept(now) })
	case refused:
		c.count(ctx, m.Channel, "refused")
		if refusal.Code == message.CodeSubscriptionGone && to.Push != nil && m.CustomerID != "" {
			if _, err := c.Contacts.Update(ctx, m.CustomerID, func(known *contact.Contact) bool { return known.ForgetPush(to.Push.Endpoint) }); err != nil {
				// The next message finds the subscription gone again.
				c.Logger.WarnContext(ctx, "a push subscription that is gone was not forgotten", attrs, slog.Any("error", err))
			}
		}
		return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Refuse(refusal, now) })
	default:
		if asked && later.Untried {
			return c.store(ctx, m.ID, func(m *message.Message) bool {
				return m.Retry(by, later.Text, true, now, now.Add(later.After), c.Policy)
			})
		}
		c.count(ctx, m.Channel, "failed")
		c.Logger.WarnContext(ctx, "a channel did not take a notification", attrs, slog.Any("error", sendErr))
		text, notBefore := "The channel could not be reached or did not take the message.", now
		if errors.Is(sendErr, context.DeadlineExceeded) {
			text = "The channel did not answer in time; it is not known whether it accepted the message."
		}
		if asked {
			text, notBefore = later.Text, now.Add(later.After)
		}
		return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Retry(by, text, false, now, notBefore, c.Policy) })
	}
}

// pause has a channel left alone when it asked for that, or did not answer. Calls that are not answered can go on in the sidecar
// after this process has given them up (docs/adr/0030), so each one that follows another makes the pause twice as long.
func (c *Courier) pause(ctx context.Context, channel string, later *message.Later) {
	c.mu.Lock()
	stalls := 0
	if later != nil && later.Stalled {
		stalls = c.stalls[channel] + 1
	}
	if later == nil || !later.Untried {
		c.stalls[channel] = stalls
	}
	c.mu.Unlock()
	var pause time.Duration
	switch {
	case stalls > 0:
		pause = c.Policy.Pause(stalls)
	case later != nil && later.Channel:
		pause = later.After
	}
	if pause <= 0 {
		return
	}
	c.queues[channel].pause(time.Now().Add(pause))
	c.Logger.WarnContext(ctx, "channel is paused; its messages wait", slog.String("channel", channel), slog.Duration("pause", pause),
		slog.Bool("stalled", stalls > 0))
}

func (c *Courier) count(ctx context.Context, channel, result string) {
	c.attempts.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", channel), attribute.String("result", result)))
}

// store records what became of an attempt. Nobody else knows it, and to forget it would be to send again, so it tries until
// it is stored, the store says that it never will be, or ctx ends.
func (c *Courier) store(ctx context.Context, id string, change func(m *message.Message) bool) (message.Message, error) {
	for {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		var changed bool
		m, err := c.Messages.Update(try, id, func(m *message.Message) bool {
			changed = change(m)
			return changed
		})
		cancel()
		if err == nil && changed && m.Final() {
			c.finished(ctx, &m)
		}
		if err == nil && changed && m.State == message.Waiting {
			c.beganToWait(ctx, &m)
		}
		if err == nil || missing(err) || permanent(err) {
			return m, err
		}
		c.Logger.WarnContext(ctx, "what became of a notification is not stored yet", slog.String("notification_id", id), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return m, err
		case <-time.After(storePause):
		}
	}
}

// finished tells that this process stored the message's outcome.
func (c *Courier) finished(ctx context.Context, m *message.Message) {
	c.outcomes.Add(ctx, 1, metric.WithAttributes(
		attribute.String("channel", m.Channel), attribute.String("outcome", string(m.State)), attribute.String("code", m.Code)))
	c.Logger.DebugContext(ctx, "notification finished", slog.String("notification_id", m.ID), slog.String("channel", m.Channel),
		slog.String("outcome", string(m.State)), slog.String("code", m.Code), slog.Int("attempts", m.Attempts))
}

// announce publishes the message's outcome, under the same id each time. That it did is not stored: until it did, the
// message is in the backlog, or its event is not acknowledged.
func (c *Courier) announce(ctx context.Context, m *message.Message) error {
	id, payload := m.Outcome()
	return c.Announce(ctx, id, m.FinishedAt, payload)
}

// sweep looks through the backlog, at once and then now and again: it finds what this process did not accept itself, and
// has the settled forgotten.
func (c *Courier) sweep(ctx context.Context) {
	// What an earlier process left is announced at once, by each process that starts; later ones wait for its owner.
	grace := time.Duration(0)
	for ctx.Err() == nil {
		pause := sweepPause
		if err := c.sweepOnce(ctx, grace); err == nil {
			grace = announceGrace
		} else if ctx.Err() == nil {
			c.Logger.WarnContext(ctx, "the backlog of notifications could not be looked through", slog.Any("error", err))
			pause = storePause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (c *Courier) sweepOnce(ctx context.Context, grace time.Duration) error {
	c.mu.Lock()
	settled := maps.Clone(c.settled)
	c.mu.Unlock()
	err := c.Backlog.Sweep(ctx, func(ctx context.Context, entries []string) (done []string, err error) {
		var unknown []entry
		var ids []string
		for _, text := range entries {
			e := parseEntry(text)
			switch {
			case settled[e.round]:
				done = append(done, text)
			case !c.queued(e.id) && !c.isLeftAlone(e.id):
				unknown, ids = append(unknown, e), append(ids, e.id)
			}
		}
		messages, unreadable, err := c.Messages.Many(ctx, ids)
		if err != nil {
			return nil, err
		}
		for id, err := range unreadable {
			c.Logger.ErrorContext(ctx, "notification cannot be read and stays in the backlog", slog.String("notification_id", id), slog.Any("error", err))
		}
		for _, e := range unknown {
			m, ok := messages[e.id]
			q := c.queues[m.Channel]
			switch {
			case unreadable[e.id] != nil:
			case !ok, m.Round > e.n:
				// A later round has an entry of its own.
				done = append(done, e.text)
			case m.Round < e.n:
				// The entry comes before the round that it is for, which may never come.
				if c.entries.SinceFirstSeen(e.text, e.at) > entryGrace {
					done = append(done, e.text)
				}
			case q == nil:
				// A later version asked for it, and will send it.
			case m.State == message.Waiting:
				// Whoever had it wait may have ended before it was noted.
				q.put(job{id: e.id, due: time.Now()})
			case !m.Final():
				q.put(job{id: e.id, due: c.due(&m)})
			case c.seen.Age(e.id, m.FinishedAt) >= grace:
				q.put(job{id: e.id, due: time.Now(), message: &m})
			}
		}
		return done, nil
	})
	if errors.Is(err, state.ErrUnreadable) {
		c.Logger.ErrorContext(ctx, "a part of the backlog of notifications cannot be read; the others were", slog.Any("error", err))
		err = nil
	}
	if err != nil {
		return err
	}
	// Each was in the backlog before it was settled, so this sweep saw it, or another process's did.
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range settled {
		delete(c.settled, r)
	}
	return nil
}

func (c *Courier) isLeftAlone(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leftAlone[id]
}

func (c *Courier) queued(id string) bool {
	for _, q := range c.queues {
		if q.knows(id) {
			return true
		}
	}
	return false
}
