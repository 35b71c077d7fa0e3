// Package delivery brings every message to its one outcome. This file is the way of a message, from top to bottom:
//
//	accept      store the message, and add it to the pending set and to the queue of its channel
//	work        a worker of the channel takes it from the queue
//	attempt     claim the message, call the channel, record the result
//	announce    publish the outcome
//	Reconcile   remove it from the pending set, or bring it back into a queue if its process ended on the way
//
// A message is sent by the process whose claim is stored, at most once per claim. Messages that wait for an address are in
// addresses.go, resends in resend.go. The package does not know how documents are stored or how channels work.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"waybill/contracts"
	"waybill/platform/clock"
	"waybill/platform/reconcile"
	"waybill/platform/retryable"
	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Messages stores messages.
type Messages interface {
	// Create stores new messages of one place in one write. created is false for a message that existed before.
	Create(ctx context.Context, ms ...message.Message) (stored []message.Message, created []bool, err error)
	Get(ctx context.Context, id string) (message.Message, error)
	Update(ctx context.Context, id string, change func(m *message.Message) bool) (message.Message, error)
	// Many reads messages. A message that is stored but cannot be decoded is in unreadable, with the error.
	Many(ctx context.Context, ids []string) (messages map[string]message.Message, unreadable map[string]error, err error)
	// Place names the place of a message. At and UpdateAt are for all messages of a place.
	Place(id string) string
	At(ctx context.Context, place string) ([]message.Message, error)
	UpdateAt(ctx context.Context, place string, change func(m *message.Message) bool) (changed []message.Message, err error)
}

// Contacts stores contacts.
type Contacts interface {
	Get(ctx context.Context, customerID string) (contact.Contact, error)
	// Recent is like Get, but its answer may be a moment old.
	Recent(ctx context.Context, customerID string) (contact.Contact, error)
	Update(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error)
}

// Pending is a durable set of what is not done.
type Pending interface {
	Add(ctx context.Context, entries ...string) error
	reconcile.Set
}

// Channel sends messages. After a *message.Refusal no retry can succeed. After any other error the message may have been sent. No
// error contains an address.
type Channel interface {
	Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error
	// Parallel is the number of concurrent calls.
	Parallel() int
}

// Announce publishes an outcome. It may be called again with the same id.
type Announce func(ctx context.Context, id string, at time.Time, outcome contracts.Payload) error

// Options are the parts and settings of a Courier.
type Options struct {
	Messages Messages
	Contacts Contacts
	// Pending has the messages whose outcome is not known to be announced.
	Pending Pending
	// Waits has the places of messages that wait for an address, with the time when they are given up.
	Waits Pending
	// Arrivals has the customers whose contact changed while messages waited for an address.
	Arrivals Pending
	// Channels are the channels by their names in contracts.
	Channels map[string]Channel
	Announce Announce
	// Operators is the recipient of messages without a customer.
	Operators contracts.Contact
	Policy    message.Policy
	// AddressWait is how long a message waits for an address.
	AddressWait time.Duration
	// SendTimeout limits one call of a channel.
	SendTimeout time.Duration
	Logger      *slog.Logger
}

// Courier delivers messages. It is safe for concurrent use, and several processes can share one store.
type Courier struct {
	Options

	metrics metrics
	queues  map[string]*queue
	// messages, waits and arrivals reconcile the three pending sets.
	messages, waits, arrivals *reconcile.Loop
	// times has the stored times of messages, entries those of pending entries: other processes may have written them.
	times, entries *clock.Tracker[string]

	// pass and arrivalsPass are what the reconcilers have read for a page. Each loop uses its own, one pass at a time.
	pass         pass
	arrivalsPass arrivalsPass

	mu sync.Mutex
	// settled has the rounds that are done and not yet removed from the pending set.
	settled map[round]bool
	// abandoned has the messages that this process cannot deliver.
	abandoned map[string]bool
	// visited: this process has seen the whole pending set once.
	visited bool
	// noted has recently added entries of Waits, with the time until which they are certain to exist.
	noted map[string]time.Time
}

const (
	// maxQueued limits the number of jobs per channel in memory. The pending set has the rest.
	maxQueued = 50_000
	// storePause is the pause before a failed call of the store or the bus is repeated.
	storePause = time.Second
	// recordTimeout limits one try to store the result of an attempt.
	recordTimeout = 5 * time.Second
)

// New returns a Courier that accepts messages and delivers them while it runs.
func New(o Options) (*Courier, error) {
	m, err := newMetrics()
	if err != nil {
		return nil, fmt.Errorf("measure deliveries: %w", err)
	}
	c := &Courier{
		Options: o, metrics: m, queues: map[string]*queue{},
		times: clock.NewTracker[string](time.Now), entries: clock.NewTracker[string](time.Now),
		settled: map[round]bool{}, abandoned: map[string]bool{}, noted: map[string]time.Time{},
	}
	for name, channel := range o.Channels {
		c.queues[name] = newQueue(maxQueued, max(1, channel.Parallel()))
	}
	return c, c.newLoops()
}

// Accept is AcceptAll for one message.
func (c *Courier) Accept(ctx context.Context, m message.Message) error { return c.AcceptAll(ctx, m)[0] }

// AcceptAll takes responsibility for messages and returns an error, or nil, for each. A message without an error is stored, and
// either its outcome is announced, or it is pending and some process will deliver it. To accept a message again changes
// nothing, but announces its outcome again. Of two messages with one id, the first is kept. The messages of one order are stored
// in one write.
func (c *Courier) AcceptAll(ctx context.Context, ms ...message.Message) []error {
	type group struct{ place, orderID, customerID string }
	groups, members := []group{}, map[group][]int{}
	for i := range ms {
		g := group{c.Messages.Place(ms[i].ID), ms[i].OrderID, ms[i].CustomerID}
		if members[g] == nil {
			groups = append(groups, g)
		}
		members[g] = append(members[g], i)
	}
	errs := make([]error, len(ms))
	for _, g := range groups {
		together := make([]message.Message, len(members[g]))
		for n, i := range members[g] {
			together[n] = ms[i]
		}
		err := c.accept(ctx, together)
		_, invalid := errors.AsType[*message.Error](err)
		for n, i := range members[g] {
			if errs[i] = err; invalid && len(together) > 1 {
				errs[i] = c.accept(ctx, together[n:n+1]) // the others may be valid
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("accept notification %s: %w", ms[i].ID, errs[i])
			}
		}
	}
	return errs
}

// accept accepts messages to one recipient that are stored in one place.
func (c *Courier) accept(ctx context.Context, requested []message.Message) error {
	drafts, reserved, err := c.prepare(ctx, requested)
	defer func() {
		for i := range reserved {
			if reserved[i] {
				c.queues[drafts[i].Channel].release()
			}
		}
	}()
	if err != nil {
		return err
	}
	stored, created, err := c.Messages.Create(ctx, drafts...)
	if err != nil {
		return err
	}
	var waiting, unsettled []message.Message
	var jobs []job
	for i, m := range stored {
		if !created[i] && !m.SameContent(&drafts[i]) {
			c.Logger.WarnContext(ctx, "notification id was used before with other content; the first content is kept", slog.String("notification_id", m.ID))
		}
		if created[i] {
			c.count(ctx, &m)
		}
		if m.Final() && c.announce(ctx, &m) == nil {
			continue
		}
		if m.State == message.Waiting {
			waiting = append(waiting, m)
			continue
		}
		j := job{id: m.ID, due: c.due(&m), message: &m}
		if m.State == message.Sending {
			// If an earlier call lost its answer, the claim is of this process although the message existed.
			if reserved[i] && m.ClaimedBy == drafts[i].ClaimedBy {
				j.due, reserved[i] = time.Time{}, false // the job has the worker
			} else {
				j.message = nil
			}
		}
		unsettled, jobs = append(unsettled, m), append(jobs, j)
	}
	return errors.Join(c.enqueue(ctx, unsettled, jobs), c.awaitAddress(ctx, waiting))
}

// prepare returns the messages as they are to be stored. What can be decided before the first write needs no other write: that a
// message is refused, that it waits for an address, or that a worker of this process is reserved and has the claim.
func (c *Courier) prepare(ctx context.Context, requested []message.Message) (drafts []message.Message, reserved []bool, err error) {
	drafts, reserved = slices.Clone(requested), make([]bool, len(requested))
	carrier, now := propagation.MapCarrier{}, time.Now()
	propagation.TraceContext{}.Inject(ctx, carrier)
	for i := range drafts {
		m := &drafts[i]
		m.TraceParent = carrier.Get("traceparent")
		to, err := c.recipient(ctx, m)
		if err != nil {
			return drafts, reserved, err
		}
		switch {
		case to.lacksAddress:
			m.Wait(to.refusal, now, now.Add(c.AddressWait))
		case to.refusal != nil:
			m.Refuse(to.refusal, now)
		case c.queues[m.Channel].reserve():
			reserved[i] = true
			m.Begin(ulid.Make().String(), now, now.Add(c.lease()), c.Policy)
		}
	}
	return drafts, reserved, nil
}

// enqueue adds messages to the pending set and their jobs to the queues. It also adds messages that existed before: the process
// that stored them may have ended before it added them.
func (c *Courier) enqueue(ctx context.Context, ms []message.Message, jobs []job) error {
	if len(ms) == 0 {
		return nil
	}
	entries := make([]string, len(ms))
	for i := range ms {
		entries[i] = entryOf(ms[i].ID, ms[i].Round, time.Now())
	}
	err := c.Pending.Add(ctx, entries...)
	// If that failed, the event comes again. This process tries the messages meanwhile: it has their claims.
	for i := range ms {
		c.queues[ms[i].Channel].put(jobs[i])
	}
	return err
}

// Run delivers messages until ctx ends. Then it waits for the calls in progress, at most for as long as they may take.
func (c *Courier) Run(ctx context.Context) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.SendTimeout+recordTimeout, cancel) })()
	var running sync.WaitGroup
	for name, channel := range c.Channels {
		for range max(1, channel.Parallel()) {
			running.Go(func() { c.work(ctx, working, c.queues[name]) })
		}
	}
	for _, loop := range []*reconcile.Loop{c.messages, c.waits, c.arrivals} {
		running.Go(func() { loop.Run(ctx) })
	}
	running.Wait()
	c.removeSettled(working)
}

// work takes jobs from the queue until ctx ends. A job in progress continues with the context working.
func (c *Courier) work(ctx, working context.Context, q *queue) {
	for {
		j, ok := q.take(ctx)
		if !ok {
			return
		}
		result, err := c.deliver(working, &j)
		switch {
		case err != nil && permanent(err):
			// A retry in this process would fail, too, and could send the message again.
			c.Logger.ErrorContext(ctx, "notification cannot be stored or announced; the next process will retry",
				slog.String("notification_id", j.id), slog.Any("error", err))
			c.abandon(j.id)
			q.done(j.id)
		case err != nil:
			c.Logger.WarnContext(ctx, "notification not delivered because the store or the bus failed; will retry", slog.String("notification_id", j.id), slog.Any("error", err))
			q.requeue(j, storePause)
		case result.Done:
			q.done(j.id)
		default:
			q.requeue(j, result.RequeueAfter)
		}
	}
}

// permanent reports whether the store or the bus fails each time for this message. Unknown errors are retried.
func permanent(err error) bool {
	return retryable.IsPermanent(err) || errors.Is(err, state.ErrUnreadable)
}

var done = reconcile.Result{Done: true}

// after is the result of a step that must be followed by another one.
func after(pause time.Duration) reconcile.Result {
	return reconcile.Result{RequeueAfter: max(pause, reconcile.NextPass)}
}

// deliver brings the message of the job closer to its end: it makes an attempt if one is due, and announces the outcome if there is
// one. An error is a failure of the store or the bus.
func (c *Courier) deliver(ctx context.Context, j *job) (reconcile.Result, error) {
	m := j.message
	if m == nil {
		read, err := c.Messages.Get(ctx, j.id)
		switch {
		case missing(err):
			c.Logger.ErrorContext(ctx, "pending notification is not in the store; it cannot be delivered", slog.String("notification_id", j.id))
			return done, nil
		case err != nil:
			return reconcile.Result{}, err
		case read.Final():
			return done, nil // another process recorded the outcome and announces it
		}
		m = &read
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": m.TraceParent})
	if !m.Final() && m.State != message.Waiting {
		tried, called, err := c.attempt(ctx, *m, j.claimed())
		if called || err == nil {
			j.message = nil // it has changed
		}
		if err != nil {
			return reconcile.Result{}, err
		}
		m = &tried
	}
	switch {
	case m.State == message.Waiting:
		return c.deliverWaiting(ctx, j, m)
	case !m.Final():
		return after(c.remaining(m)), nil
	}
	j.message = m
	if err := c.announce(ctx, m); err != nil {
		return reconcile.Result{}, err
	}
	c.settle(m)
	return done, nil
}

// attempt sends the message if no other process does and its recipient can be reached. It returns the message as it is stored then,
// and whether the channel was called. If claimed, this process has claimed the message before.
func (c *Courier) attempt(ctx context.Context, m message.Message, claimed bool) (tried message.Message, called bool, err error) {
	if !claimed && !c.ready(&m) {
		return m, false, nil
	}
	ctx, span := otel.Tracer(instrumentation).Start(ctx, "send "+m.Channel, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("waybill.notification_id", m.ID), attribute.String("waybill.template", m.Template)))
	defer span.End()
	by := m.ClaimedBy
	if !claimed {
		by = ulid.Make().String()
	}
	to, err := c.recipient(ctx, &m)
	if err != nil {
		return m, false, err
	}
	out := c.render(ctx, &m, &to)
	if to.refusal != nil {
		m, err = c.refuse(ctx, m.ID, by, to)
		return m, false, err
	}
	// A claim that waited for its worker may be too short for the call.
	if !claimed || time.Until(m.ClaimedUntil) < c.SendTimeout+recordTimeout {
		var begun bool
		if m, begun, err = c.claim(ctx, m.ID, by); err != nil || !begun {
			return m, false, err
		}
	}
	sendErr := c.call(ctx, m.Channel, to.contact, out)
	if sendErr != nil {
		span.RecordError(sendErr)
		span.SetStatus(codes.Error, "not sent")
	}
	m, err = c.record(ctx, m, by, to.contact, sendErr)
	return m, true, err
}

// recipient is whether and how the recipient of a message can be reached.
type recipient struct {
	contact contracts.Contact
	// refusal is why the message cannot be sent, or nil. lacksAddress: only an address is missing, so the message can wait.
	refusal      *message.Refusal
	lacksAddress bool
}

func (c *Courier) recipient(ctx context.Context, m *message.Message) (recipient, error) {
	if m.ToOperators() {
		return recipient{contact: c.Operators}, nil
	}
	known, err := c.Contacts.Recent(ctx, m.CustomerID)
	if err != nil {
		return recipient{}, err
	}
	return recipient{known.Contact, known.Refusal(m.Channel), known.Lacks(m.Channel)}, nil
}

// render returns the content of the message. If there is none, it sets the refusal of the recipient.
func (c *Courier) render(ctx context.Context, m *message.Message, to *recipient) message.Outgoing {
	out, err := m.Render(to.contact.Name)
	if err == nil || to.refusal != nil {
		return out
	}
	trace.SpanFromContext(ctx).RecordError(err)
	known, ok := errors.AsType[*message.Refusal](err)
	if !ok {
		c.Logger.ErrorContext(ctx, "notification cannot be rendered; it is given up", slog.String("notification_id", m.ID), slog.Any("error", err))
		known = &message.Refusal{Code: message.CodeNoTemplate, Text: "The message could not be rendered."}
	}
	to.refusal = known
	return out
}

// refuse gives up a message that cannot be sent, or makes it wait for an address.
func (c *Courier) refuse(ctx context.Context, id, by string, to recipient) (message.Message, error) {
	return c.store(ctx, id, func(m *message.Message) bool {
		now := time.Now()
		switch {
		case m.ClaimedBy != by && !c.ready(m):
			return false
		case to.lacksAddress:
			return m.Wait(to.refusal, now, now.Add(c.AddressWait))
		default:
			return m.Refuse(to.refusal, now)
		}
	})
}

// claim claims the message for the attempt with the name by, or extends its claim. begun is false if another attempt is in
// progress, or none is needed.
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
	if err == nil && changed {
		c.count(ctx, &m)
	}
	return m, begun, err
}

// lease is the length of a claim: one call, and the time to record its result.
func (c *Courier) lease() time.Duration { return c.SendTimeout + 4*recordTimeout }

func (c *Courier) call(ctx context.Context, channel string, to contracts.Contact, out message.Outgoing) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.SendTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("channel %s panicked: %v", channel, p)
		}
	}()
	return c.Channels[channel].Send(ctx, to, out)
}

// record stores the result of a call, and pauses the channel if the result asks for that.
func (c *Courier) record(ctx context.Context, m message.Message, by string, to contracts.Contact, sendErr error) (message.Message, error) {
	refusal, refused := errors.AsType[*message.Refusal](sendErr)
	later, asked := errors.AsType[*message.Later](sendErr)
	c.pauseChannel(ctx, m.Channel, later)
	now := time.Now()
	switch {
	case sendErr == nil:
		c.countAttempt(ctx, m.Channel, "accepted")
		return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Accept(now) })
	case refused:
		c.countAttempt(ctx, m.Channel, "refused")
		if refusal.Code == message.CodeSubscriptionGone && to.Push != nil && m.CustomerID != "" {
			c.forgetSubscription(ctx, m.CustomerID, to.Push.Endpoint)
		}
		return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Refuse(refusal, now) })
	case asked && later.Untried:
		return c.store(ctx, m.ID, func(m *message.Message) bool {
			return m.Retry(by, later.Text, true, now, now.Add(later.After), c.Policy)
		})
	}
	c.countAttempt(ctx, m.Channel, "failed")
	c.Logger.WarnContext(ctx, "channel call failed; will retry until the last attempt", slog.String("notification_id", m.ID),
		slog.String("channel", m.Channel), slog.Int("attempt", m.Attempts), slog.Any("error", sendErr))
	text, notBefore := "The channel could not be reached or did not accept the message.", now
	if errors.Is(sendErr, context.DeadlineExceeded) {
		text = "The channel did not answer in time; it is not known whether it accepted the message."
	}
	if asked {
		text, notBefore = later.Text, now.Add(later.After)
	}
	return c.store(ctx, m.ID, func(m *message.Message) bool { return m.Retry(by, text, false, now, notBefore, c.Policy) })
}

func (c *Courier) pauseChannel(ctx context.Context, channel string, later *message.Later) {
	if pause, stalled := c.queues[channel].answered(later, c.Policy); pause > 0 {
		c.Logger.WarnContext(ctx, "channel is paused; its messages wait", slog.String("channel", channel), slog.Duration("pause", pause),
			slog.Bool("stalled", stalled))
	}
}

func (c *Courier) forgetSubscription(ctx context.Context, customerID, endpoint string) {
	if _, err := c.Contacts.Update(ctx, customerID, func(known *contact.Contact) bool { return known.ForgetPush(endpoint) }); err != nil {
		c.Logger.WarnContext(ctx, "expired push subscription was not removed; the next message will retry", slog.Any("error", err))
	}
}

// store stores the result of an attempt. Only this process knows it, and without it the message would be sent again. So store
// retries until it succeeds, the error is permanent, or ctx ends.
func (c *Courier) store(ctx context.Context, id string, change func(m *message.Message) bool) (message.Message, error) {
	return backoff.Retry(ctx, func() (message.Message, error) {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		defer cancel()
		var changed bool
		m, err := c.Messages.Update(try, id, func(m *message.Message) bool {
			changed = change(m)
			return changed
		})
		if err == nil && changed {
			c.count(ctx, &m)
		}
		if missing(err) || err != nil && permanent(err) {
			err = backoff.Permanent(err)
		}
		return m, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(storePause)), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		c.Logger.WarnContext(ctx, "result of a notification is not stored; will retry", slog.String("notification_id", id), slog.Any("error", err))
	}))
}

func missing(err error) bool {
	refused, ok := errors.AsType[*message.Error](err)
	return ok && refused.Kind == message.NotFound
}

// count counts a message for which this process stored an outcome or the beginning of a wait.
func (c *Courier) count(ctx context.Context, m *message.Message) {
	channel, id := attribute.String("channel", m.Channel), slog.String("notification_id", m.ID)
	switch {
	case m.State == message.Waiting:
		c.metrics.waits.Add(ctx, 1, metric.WithAttributes(channel))
		c.Logger.DebugContext(ctx, "notification waits for an address", id, slog.String("channel", m.Channel), slog.Time("until", m.WaitsUntil))
	case m.Final():
		c.metrics.outcomes.Add(ctx, 1, metric.WithAttributes(channel, attribute.String("outcome", string(m.State)), attribute.String("code", m.Code)))
		c.Logger.DebugContext(ctx, "notification has its outcome", id, slog.String("channel", m.Channel),
			slog.String("outcome", string(m.State)), slog.String("code", m.Code), slog.Int("attempts", m.Attempts))
	}
}

func (c *Courier) countAttempt(ctx context.Context, channel, result string) {
	c.metrics.attempts.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", channel), attribute.String("result", result)))
}

// announce publishes the outcome of the message, with the same id each time. It is not stored that it did: until it succeeds, the
// message stays pending or its event is not acknowledged.
func (c *Courier) announce(ctx context.Context, m *message.Message) error {
	id, outcome := m.Outcome()
	return c.Announce(ctx, id, m.FinishedAt, outcome)
}

// settle marks this round of the message as done. The reconciler then removes its entry from the pending set.
func (c *Courier) settle(m *message.Message) {
	c.times.Forget(m.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled[round{m.ID, m.Round}] = true
}
