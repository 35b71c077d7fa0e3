// Package admission bounds the work that this service accepts by what the system can finish (docs/adr/0029). It counts the
// orders that have not ended, and says of a new one whether there is room for it. It knows neither store nor bus nor HTTP.
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

// Options are the bounds. Zero of Open or Waiting stands for no bound.
type Options struct {
	// Open bounds the orders that are being worked on, Waiting those that wait for a person.
	Open, Waiting int
	// Age is how old an order that is being worked on becomes as long as the system keeps up.
	Age    time.Duration
	Logger *slog.Logger
}

// Cause is why an order is refused.
type Cause string

const (
	// Starting means that the orders that were accepted before this process began are not counted yet.
	Starting Cause = "starting"
	// Full means that as many orders are being worked on as the bound allows.
	Full Cause = "open"
	// Slow means that orders take longer than they may.
	Slow Cause = "age"
	// Waiting means that as many orders wait for a person as the bound allows.
	Waiting Cause = "waiting"
	// Share means that much of the bound is in use, and that this customer has more than its share of that.
	Share Cause = "customer"
)

const (
	// busPart of busParts of the bound is for orders from the bus at most, so that a backlog there leaves room for REST;
	// the rest is theirs in any case, so that REST leaves room for the bus.
	busPart, busParts = 3, 4
	// slowPart is the part of the bound that must be too old before the system counts as slow, at least slowOrders: some
	// orders that cannot end must not close the shop.
	slowPart, slowOrders = 10, 2
	// newcomers is the part of the bound that customers who have orders already leave to those who have none.
	newcomers = 10
	// smallShare is the part of the bound that no customer is refused for, however many there are.
	smallShare = 20
	// reopen of reopenOf of a bound is where what closed at the bound opens again.
	reopen, reopenOf = 4, 5
	// probeInterval is how often an order is let in although the system is slow, to find out whether it still is.
	probeInterval = 10 * time.Second
	// heldLately is how long the bus counts as held after a delivery found no room.
	heldLately = 10 * time.Second
	// scanInterval is how long the ages of orders that were looked at count as right.
	scanInterval = 250 * time.Millisecond
	// window is how many seconds of ended orders tell how fast the system drains.
	window = 30
	// longestRetry bounds what clients are asked to wait, in seconds.
	longestRetry = 60
	// rememberedEnds is how many orders at least a process knows to have ended.
	rememberedEnds = 10_000
)

// Gate counts orders and admits new ones. It may be used by many goroutines.
//
// What this process does with an order is counted at once; what other processes do, with their next pass over the backlog
// (Begin, Observe, End). So several replicas together can exceed a bound by what they accept between two passes.
type Gate struct {
	limits Options
	ended  *recent.Set[order.ID]
	stop   chan struct{}
	once   sync.Once

	mu sync.Mutex // guards what follows
	// open are the orders that are being worked on, waiting those that wait for a person.
	open, waiting map[order.ID]*entry
	// received and bus are how many of open are not confirmed yet, and how many came from the bus.
	received, bus int
	// inFlight are the requests and deliveries that have a slot, busInFlight those of them that came from the bus.
	inFlight, busInFlight int
	// slots are the slots by their orders' ids; of several for one order, the last.
	slots map[order.ID]*Slot
	// held is how many open orders and slots each customer has.
	held map[string]int
	// pass numbers the passes over the backlog. counted says that one was complete.
	pass    uint64
	counted bool

	full, slow, crowded bool // which bounds are exceeded: Full, Slow, Waiting
	since               time.Time
	probed              time.Time
	heldAt              time.Time // when a delivery last found no room
	prompt              time.Time // when an order last ended in time
	ends                rate
	scanned             time.Time
	oldest              time.Time // of the open orders, at the last scan; zero when there are none
	old                 int       // how many of the open orders were too old then

	refusals metric.Int64Counter
}

// entry is an order that has not ended.
type entry struct {
	customer      string
	since         time.Time
	received, bus bool
	pass          uint64
}

// New returns a Gate that has counted nothing yet. It admits nothing before the first pass over the backlog is complete,
// unless Open is 0.
func New(o Options) (*Gate, error) {
	now := time.Now()
	g := &Gate{
		limits: o, ended: recent.NewSet[order.ID](rememberedEnds), stop: make(chan struct{}),
		open: map[order.ID]*entry{}, waiting: map[order.ID]*entry{}, held: map[string]int{}, slots: map[order.ID]*Slot{},
		since: now, prompt: now, ends: rate{began: now},
	}
	return g, g.measure(otel.Meter("waybill/services/orders"))
}

// Slot is the room of an order that is being accepted, until the order is observed. The caller must Release it, whatever
// becomes of the order. A nil Slot is of an order that needs none.
type Slot struct {
	gate     *Gate
	id       order.ID
	customer string
	bus      bool
	released bool // guarded by the gate
}

// Release gives the slot back. It may be called again.
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

// Refusal says why there is no room for an order. It is an error.
type Refusal struct {
	Cause Cause
	// Count of Limit is what is full; both are 0 where nothing was counted.
	Count, Limit int
	// RetryAfter is when there will be room, as far as can be told, in seconds.
	RetryAfter int
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("no room for another order (%s: %d of %d)", r.Cause, r.Count, r.Limit)
}

// Admit asks for the room of an order that a customer places over REST. The error is a *Refusal.
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

// AdmitFromBus asks for the room of an order from the bus. The error is a *Refusal.
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

// refuse is why an order over REST finds no room; nil when it does.
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

// hold is why an order from the bus has to wait there; nil when it has not. Orders that are received and not confirmed do not
// count: their own events may be behind the very delivery that waits, which would then never end. There is no hysteresis: a
// delivery that waits costs nothing, and each order that ends lets one in.
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

// share is how many open orders the customer may have once half the bound is in use.
func (g *Gate) share(customer string) int {
	customers := len(g.held)
	if g.held[customer] == 0 {
		customers++
	}
	return max(1, g.limits.Open/smallShare, (g.limits.Open-g.limits.Open/newcomers)/customers)
}

// tooOld is how many orders that are too old make the system slow.
func (g *Gate) tooOld() int { return max(slowOrders, g.limits.Open/slowPart) }

// probe reports whether an order is let in to find out whether the system is still slow.
func (g *Gate) probe(now time.Time) bool {
	if now.Sub(g.probed) < probeInterval {
		return false
	}
	g.probed = now
	return true
}

// retryAfter is how long it takes, in seconds, until that many orders have ended, if the given part of what ends are such
// orders. Clients that were refused together come back apart.
func (g *Gate) retryAfter(now time.Time, excess int, part float64) int {
	const most = longestRetry * 3 / 4
	wait := float64(most)
	if speed := g.ends.perSecond(now) * part; speed > 0 {
		wait = min(most, max(1, float64(excess)/speed))
	}
	return min(longestRetry, int(wait*(1+rand.Float64()/3)+rand.Float64())) //nolint:gosec // jitter
}

// judge finds out which bounds are exceeded.
func (g *Gate) judge(now time.Time) {
	if now.Sub(g.scanned) >= scanInterval || now.Before(g.scanned) {
		g.scan(now)
	}
	before := g.cause()
	bound := g.limits.Open
	g.full = exceeded(g.full, len(g.open)+g.inFlight, bound)
	g.crowded = exceeded(g.crowded, len(g.waiting), g.limits.Waiting)
	// Orders that end in time show that those which do not are held up by something else than too much work.
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

// exceeded reports whether count is at its bound, or was and has not fallen enough since.
func exceeded(was bool, count, bound int) bool {
	if was {
		return bound > 0 && count > bound*reopen/reopenOf
	}
	return bound > 0 && count >= bound
}

// cause is the bound that is exceeded, empty when none is.
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

// Observe counts the order as what it is now. Of an order that this process saw end, nothing else is believed: what comes
// later was read before.
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
				g.prompt = now // a cancellation may have ended it before anybody began
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
				e.since = now // another process's clock
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

// Begin begins a pass over the backlog. The orders found there are observed, and then comes End; one pass at a time.
func (g *Gate) Begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass++
}

// End ends a complete pass: what was not observed since its beginning has ended elsewhere.
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

// Failed says that the first pass broke off. If it would break off each time, the Gate goes on with what it knows.
func (g *Gate) Failed(err error) {
	if retryable.Is(err) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.counted {
		g.limits.Logger.Error("the open orders could not be counted; admission counts from now on only", slog.Any("error", err))
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

var errNotCounted = health.Explain(errors.New("the backlog was not read"), "the open orders are not counted yet")

// Ready is an error as long as Admit refuses every order because none is counted.
func (g *Gate) Ready(context.Context) error {
	if g.limits.Open > 0 && !g.Counted() {
		return errNotCounted
	}
	return nil
}

// BusHeld reports whether deliveries of this process wait for room, or did a moment ago.
func (g *Gate) BusHeld() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busHeld(time.Now())
}

func (g *Gate) busHeld(now time.Time) bool {
	return !g.heldAt.IsZero() && now.Sub(g.heldAt) < heldLately
}

// BusMayBeHeld reports whether deliveries wait for room, of this process or perhaps of another one.
func (g *Gate) BusMayBeHeld() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busHeld(time.Now()) || g.limits.Open > 0 && len(g.open)-g.received >= g.busMost()
}

// busMost is how many orders may be open when one is taken from the bus.
func (g *Gate) busMost() int { return max(1, g.limits.Open*busPart/busParts) }

// Stop ends the waiting of deliveries, for the process is about to end.
func (g *Gate) Stop() { g.once.Do(func() { close(g.stop) }) }

// Stopped is closed by Stop.
func (g *Gate) Stopped() <-chan struct{} { return g.stop }
