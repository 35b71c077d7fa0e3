// Package admission bounds the work that this service accepts to what the system can finish (docs/adr/0029). It counts the open
// orders and admits or refuses new ones. It knows neither store nor bus nor HTTP.
package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"waybill/platform/health"
	"waybill/platform/retryable"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/recent"
)

// Options are the limits. An Open or Waiting of 0 means no limit.
type Options struct {
	// Open bounds the orders in fulfilment, Waiting those that wait for a person.
	Open, Waiting int
	// Age is the age that an order in fulfilment does not reach while the system keeps up.
	Age    time.Duration
	Logger *slog.Logger
}

// Cause is the reason why an order is refused.
type Cause string

const (
	// Starting means that the orders that were accepted before this process started are not counted yet.
	Starting Cause = "starting"
	// Full means that the number of orders in fulfilment is at its limit.
	Full Cause = "open"
	// Slow means that orders take too long.
	Slow Cause = "age"
	// Waiting means that the number of orders that wait for a person is at its limit.
	Waiting Cause = "waiting"
	// Share means that half of the limit is in use, and this customer has its share of it.
	Share Cause = "customer"
)

const (
	// Orders from the bus get at most busPart/busParts of the limit, so a queue on the bus leaves room for REST. They always get the
	// rest of it, so REST leaves room for the bus.
	busPart, busParts = 3, 4
	// The system counts as slow when 1/slowPart of the limit, and at least slowOrders orders, are too old. A few orders that cannot
	// end must not close admission.
	slowPart, slowOrders = 10, 2
	// 1/newcomers of the limit is reserved for customers who have no open orders.
	newcomers = 10
	// A customer with less than 1/smallShare of the limit is never refused for its share.
	smallShare = 20
	// What closed at a limit opens again at reopen/reopenOf of it.
	reopen, reopenOf = 4, 5
	// probeInterval is how often an order is admitted while the system is slow, to find out whether it still is.
	probeInterval = 10 * time.Second
	// heldLately is how long the bus counts as held after a delivery was refused.
	heldLately = 10 * time.Second
	// scanInterval is how long the result of one scan of the orders' ages is used.
	scanInterval = 250 * time.Millisecond
	// window is the number of seconds over which the rate of ended orders is measured.
	window = 30
	// longestRetry is the largest Retry-After, in seconds.
	longestRetry = 60
	// rememberedEnds is the least number of ended orders that a process remembers.
	rememberedEnds = 10_000
)

// Gate counts orders and admits new ones. Many goroutines may use it.
//
// It counts at once what this process does with an order, and with the next pass over the pending set (Begin, Observe, End) what
// other processes do. So several replicas together can exceed a limit by what they accept between two passes.
type Gate struct {
	limits Options
	ended  *recent.Set[order.ID]
	stop   chan struct{}
	once   sync.Once

	mu sync.Mutex // guards what follows
	// open are the orders in fulfilment, waiting those that wait for a person.
	open, waiting map[order.ID]*entry
	// received is the number of open orders that are not confirmed yet, bus of those that came from the bus.
	received, bus int
	// inFlight is the number of requests and deliveries that have a slot, busInFlight of the deliveries alone.
	inFlight, busInFlight int
	// slots are the slots by order id; the last one, if an order has several.
	slots map[order.ID]*Slot
	// held is the number of open orders and slots of each customer.
	held map[string]int
	// pass is the number of the current pass over the pending set. counted: one pass was complete.
	pass    uint64
	counted bool

	full, slow, crowded bool // which limits are exceeded: Full, Slow, Waiting
	since               time.Time
	probed              time.Time
	heldAt              time.Time // when a delivery was last refused
	prompt              time.Time // when an order last ended in time
	ends                rate
	scanned             time.Time
	oldest              time.Time // when the oldest open order began, at the last scan; zero if there is none
	old                 int       // how many open orders were too old at the last scan

	refusals metric.Int64Counter
}

// entry is one open order.
type entry struct {
	customer      string
	since         time.Time
	received, bus bool
	pass          uint64
}

// New returns a Gate that has counted nothing. It admits nothing until the first pass over the pending set is complete, unless
// Open is 0.
func New(o Options) (*Gate, error) {
	now := time.Now()
	g := &Gate{
		limits: o, ended: recent.NewSet[order.ID](rememberedEnds), stop: make(chan struct{}),
		open: map[order.ID]*entry{}, waiting: map[order.ID]*entry{}, held: map[string]int{}, slots: map[order.ID]*Slot{},
		since: now, prompt: now, ends: rate{began: now},
	}
	return g, g.measure(otel.Meter("waybill/services/orders"))
}

// Slot counts an order that is being accepted until the order is observed. The caller must Release it in every case. A nil Slot
// belongs to an order that needs none.
type Slot struct {
	gate     *Gate
	id       order.ID
	customer string
	bus      bool
	released bool // guarded by the gate
}

// Release frees the slot. It may be called again.
func (s *Slot) Release() {
	if s == nil {
		return
	}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	s.gate.giveBack(s)
	s.gate.judge(time.Now())
}

func (g *Gate) giveBack(s *Slot) {
	if s == nil || s.released {
		return
	}
	s.released = true
	if g.slots[s.id] == s {
		delete(g.slots, s.id)
	}
	g.inFlight--
	if s.bus {
		g.busInFlight--
	}
	g.release(s.customer)
}

// Refusal says why an order is refused. It is an error.
type Refusal struct {
	Cause Cause
	// Count is what reached Limit. Both are 0 if nothing was counted.
	Count, Limit int
	// RetryAfter is the estimated time until there is room, in seconds.
	RetryAfter int
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("order refused by admission (%s: %d of %d)", r.Cause, r.Count, r.Limit)
}

// Admit gets a slot for an order that is placed over REST. The error is a *Refusal.
func (g *Gate) Admit(ctx context.Context, o *order.Order) (*Slot, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.judge(now)
	if refusal := g.refuse(now, o.CustomerID()); refusal != nil {
		g.count(ctx, refusal.Cause)
		return nil, refusal
	}
	return g.slot(o, false), nil
}

// AdmitFromBus gets a slot for an order from the bus. The error is a *Refusal.
func (g *Gate) AdmitFromBus(ctx context.Context, o *order.Order) (*Slot, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.judge(now)
	if refusal := g.hold(now); refusal != nil {
		g.heldAt = now
		g.count(ctx, refusal.Cause)
		return nil, refusal
	}
	return g.slot(o, true), nil
}

func (g *Gate) slot(o *order.Order, bus bool) *Slot {
	s := &Slot{gate: g, id: o.ID(), customer: o.CustomerID(), bus: bus}
	g.slots[s.id] = s
	g.inFlight++
	if bus {
		g.busInFlight++
	}
	g.held[s.customer]++
	return s
}

func (g *Gate) release(customer string) {
	if g.held[customer]--; g.held[customer] <= 0 {
		delete(g.held, customer)
	}
}

// refuse returns why an order over REST is refused, or nil.
func (g *Gate) refuse(now time.Time, customer string) *Refusal {
	bound := g.limits.Open
	total, mine := len(g.open)+g.inFlight, g.held[customer]
	switch share := g.share(customer); {
	case bound > 0 && !g.counted:
		return &Refusal{Cause: Starting, RetryAfter: 1}
	case g.crowded:
		return &Refusal{Waiting, len(g.waiting), g.limits.Waiting, g.retryAfter(now, longestRetry, 0)}
	case bound == 0:
		return nil
	case g.full:
		return &Refusal{Full, total, bound, g.retryAfter(now, total-bound*reopen/reopenOf, 1)}
	case g.slow && !g.probe(now):
		return &Refusal{Slow, g.old, g.tooOld(), g.retryAfter(now, g.old-g.tooOld()*reopen/reopenOf, 1)}
	case total >= (bound+1)/2 && mine >= share:
		return &Refusal{Share, mine, share, g.retryAfter(now, mine-share+1, float64(mine)/float64(total))}
	default:
		return nil
	}
}

// hold returns why an order from the bus has to wait there, or nil. Orders that are received and not confirmed do not count:
// their own events may be behind the delivery that waits, which would then wait for ever. There is no hysteresis, because a
// delivery that waits costs nothing.
func (g *Gate) hold(now time.Time) *Refusal {
	bound := g.limits.Open
	if bound == 0 && !g.crowded {
		return nil
	}
	total, bus := len(g.open)-g.received+g.inFlight, g.bus+g.busInFlight
	most := g.busMost()
	switch {
	case bound > 0 && !g.counted:
		return &Refusal{Cause: Starting}
	case g.crowded:
		return &Refusal{Cause: Waiting, Count: len(g.waiting), Limit: g.limits.Waiting}
	case g.slow && !g.probe(now):
		return &Refusal{Cause: Slow, Count: g.old, Limit: g.tooOld()}
	case total < most, bus < bound-most && total < bound:
		return nil
	default:
		return &Refusal{Cause: Full, Count: total, Limit: most}
	}
}

// share returns how many open orders the customer may have once half the limit is in use.
func (g *Gate) share(customer string) int {
	customers := len(g.held)
	if g.held[customer] == 0 {
		customers++
	}
	return max(1, g.limits.Open/smallShare, (g.limits.Open-g.limits.Open/newcomers)/customers)
}

// tooOld is the number of orders above the age at which the system counts as slow.
func (g *Gate) tooOld() int { return max(slowOrders, g.limits.Open/slowPart) }

// probe reports whether to admit an order to find out whether the system is still slow.
func (g *Gate) probe(now time.Time) bool {
	if now.Sub(g.probed) < probeInterval {
		return false
	}
	g.probed = now
	return true
}

// retryAfter estimates the seconds until excess orders have ended, if they are the given part of the orders that end. Jitter
// spreads the clients that were refused at the same time.
func (g *Gate) retryAfter(now time.Time, excess int, part float64) int {
	const most = longestRetry * 3 / 4
	wait := float64(most)
	if speed := g.ends.perSecond(now) * part; speed > 0 {
		wait = min(most, max(1, float64(excess)/speed))
	}
	return min(longestRetry, int(wait*(1+rand.Float64()/3)+rand.Float64())) //nolint:gosec // jitter
}

// judge updates which limits are exceeded.
func (g *Gate) judge(now time.Time) {
	if now.Sub(g.scanned) >= scanInterval || now.Before(g.scanned) {
		g.scan(now)
	}
	before := g.cause()
	bound := g.limits.Open
	g.full = exceeded(g.full, len(g.open)+g.inFlight, bound)
	g.crowded = exceeded(g.crowded, len(g.waiting), g.limits.Waiting)
	// If some orders end in time, too much work is not the reason why others do not.
	late := now.Sub(g.prompt) > g.limits.Age
	g.slow = bound > 0 && late && exceeded(g.slow, g.old, g.tooOld())
	after := g.cause()
	if before == after || !g.counted {
		return
	}
	g.since = now
	attrs := []any{
		slog.Int("open", len(g.open)), slog.Int("open_limit", bound), slog.Int("waiting", len(g.waiting)), slog.Int("too_old", g.old),
	}
	if after == "" {
		g.limits.Logger.Info("admission opened; new orders are accepted again", attrs...)
	} else {
		g.limits.Logger.Warn("admission closed; new orders are refused until enough open ones have ended", append(attrs, slog.String("cause", string(after)))...)
	}
}

// exceeded reports whether count is at its limit, or was and has not fallen enough since.
func exceeded(was bool, count, bound int) bool {
	if was {
		return bound > 0 && count > bound*reopen/reopenOf
	}
	return bound > 0 && count >= bound
}

// cause returns the limit that is exceeded, or an empty Cause.
func (g *Gate) cause() Cause {
	switch {
	case g.limits.Open > 0 && !g.counted:
		return Starting
	case g.full:
		return Full
	case g.slow:
		return Slow
	case g.crowded:
		return Waiting
	default:
		return ""
	}
}

func (g *Gate) scan(now time.Time) {
	g.scanned, g.oldest, g.old = now, time.Time{}, 0
	for _, e := range g.open {
		if g.oldest.IsZero() || e.since.Before(g.oldest) {
			g.oldest = e.since
		}
		if now.Sub(e.since) > g.limits.Age {
			g.old++
		}
	}
}

// Observe counts the order by its current status. If this process saw the order end, Observe ignores an open version of it, which
// was read before.
func (g *Gate) Observe(o *order.Order) {
	id, final := o.ID(), o.Status().Final()
	if final {
		g.ended.Add(id)
	} else if g.ended.Has(id) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.giveBack(g.slots[id])
	now := time.Now()
	known, wasOpen := g.open[id]
	if !wasOpen {
		known = g.waiting[id]
	}
	g.forget(id)
	person := o.WaitsForPerson()
	switch {
	case final || person:
		if wasOpen {
			g.ends.add(now)
			if o.Status() != order.Cancelled && now.Sub(known.since) <= g.limits.Age {
				g.prompt = now // a cancellation may have ended it before its saga started
			}
		}
		if person {
			g.waiting[id] = &entry{customer: o.CustomerID(), pass: g.pass}
		}
	default:
		e := &entry{customer: o.CustomerID(), received: o.Status() == order.Received, bus: o.FromBus(), pass: g.pass}
		switch {
		case wasOpen:
			e.since = known.since
		case known != nil: // it waited for a person
			e.since = now
		default:
			if e.since = o.WorkedOnSince(); e.since.After(now) {
				e.since = now // another process's clock is ahead
			}
		}
		g.add(id, e)
	}
	g.judge(now)
}

func (g *Gate) add(id order.ID, e *entry) {
	g.open[id] = e
	g.held[e.customer]++
	if e.received {
		g.received++
	}
	if e.bus {
		g.bus++
	}
}

func (g *Gate) forget(id order.ID) {
	delete(g.waiting, id)
	e, ok := g.open[id]
	if !ok {
		return
	}
	delete(g.open, id)
	g.release(e.customer)
	if e.received {
		g.received--
	}
	if e.bus {
		g.bus--
	}
}

// Begin starts a pass over the pending set. The caller observes the orders that it finds and then calls End. Only one pass may run
// at a time.
func (g *Gate) Begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass++
}

// End ends a complete pass. An order that was not observed since Begin ended in another process.
func (g *Gate) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for id, e := range g.open {
		if e.pass != g.pass {
			g.forget(id)
			g.ends.add(now)
		}
	}
	for id, e := range g.waiting {
		if e.pass != g.pass {
			delete(g.waiting, id)
		}
	}
	g.begin(now)
}

// Failed says that the first pass failed. If a retry would fail too, the Gate continues with what it has counted.
func (g *Gate) Failed(err error) {
	if retryable.Is(err) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.counted {
		g.limits.Logger.Error("open orders could not be counted; admission counts only new ones", slog.Any("error", err))
	}
	g.begin(time.Now())
}

func (g *Gate) begin(now time.Time) {
	if !g.counted {
		g.counted, g.since, g.prompt, g.ends = true, now, now, rate{began: now}
	}
	g.scan(now)
	g.judge(now)
}

// Counted reports whether a pass was complete.
func (g *Gate) Counted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counted
}

var errNotCounted = health.Explain(errors.New("the pending set was not read"), "the open orders are not counted yet")

// Ready returns an error while Admit refuses every order because the open orders are not counted.
func (g *Gate) Ready(context.Context) error {
	if g.limits.Open > 0 && !g.Counted() {
		return errNotCounted
	}
	return nil
}

// BusHeld reports whether deliveries of this process wait for admission, or did a moment ago.
func (g *Gate) BusHeld() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busHeld(time.Now())
}

func (g *Gate) busHeld(now time.Time) bool {
	return !g.heldAt.IsZero() && now.Sub(g.heldAt) < heldLately
}

// BusMayBeHeld reports whether deliveries may wait for admission in this process or in another one.
func (g *Gate) BusMayBeHeld() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busHeld(time.Now()) || g.limits.Open > 0 && len(g.open)-g.received >= g.busMost()
}

// busMost is the number of open orders at which orders from the bus have to wait.
func (g *Gate) busMost() int { return max(1, g.limits.Open*busPart/busParts) }

// Stop ends the waiting of deliveries, because the process ends.
func (g *Gate) Stop() { g.once.Do(func() { close(g.stop) }) }

// Stopped returns a channel that Stop closes.
func (g *Gate) Stopped() <-chan struct{} { return g.stop }
