package ordering

import (
	"context"
	"log/slog"
	"time"

	"waybill/platform/reconcile"
	"waybill/services/orders/internal/order"
)

const (
	// maxBackoff is the longest pause between two publications for one order. An order that waits for a person has it from the
	// beginning.
	maxBackoff = 5 * time.Minute
	// missingGrace is how long an id must be missing from the store before it leaves the pending set. A new order is added to
	// the set before it is saved, and every save has ended after that time.
	missingGrace = 2 * time.Minute
)

// Counter counts the open orders of a pass over the pending set.
type Counter interface {
	// Begin and End enclose the calls of Observe of one complete pass.
	Begin()
	Observe(o *order.Order)
	End()
	// Failed says that the first pass failed. Counted reports whether the orders are counted, or never will be.
	Failed(err error)
	Counted() bool
}

// ReconcilerOptions are the parts of the reconciler of orders.
type ReconcilerOptions struct {
	Pending reconcile.Set
	// GetMany reads orders. An order that is stored and cannot be read is in unreadable, with the error.
	GetMany func(ctx context.Context, ids []order.ID) (orders map[order.ID]*order.Order, unreadable map[order.ID]error, err error)
	// PublishUnanswered publishes again what of the order has no answer yet. It must be idempotent.
	PublishUnanswered func(ctx context.Context, o *order.Order) error
	// Counter gets each pass. The first pass comes at once and publishes nothing.
	Counter Counter
	// Interval is the pause between two passes. After is how long an order may be unchanged before the first publication.
	Interval, After time.Duration
	Logger          *slog.Logger
}

// reconciler publishes again what of an order has no answer, and lets ended orders leave the pending set (docs/adr/0009).
type reconciler struct {
	ReconcilerOptions

	// orders are those of the current batch.
	orders map[order.ID]*order.Order
}

// NewReconciler returns the loop that reconciles the pending orders.
func NewReconciler(o ReconcilerOptions) (*reconcile.Loop, error) {
	r := &reconciler{ReconcilerOptions: o}
	longest := r.longest()
	return reconcile.New(reconcile.Options{
		Name: "orders", IDKey: "order_id", Logger: o.Logger,
		Pending: o.Pending, Prefetch: r.prefetch, Reconcile: r.reconcile,
		Interval: o.Interval, Grace: missingGrace, Backoff: min(2*o.After, longest), MaxBackoff: longest,
		PassBegins: o.Counter.Begin, PassEnds: o.Counter.End,
		Survey: func(err error) (again bool) {
			if err == nil {
				return false
			}
			o.Counter.Failed(err)
			return !o.Counter.Counted()
		},
	})
}

func (r *reconciler) longest() time.Duration { return max(maxBackoff, r.After) }

// prefetch reads a batch of orders and counts them.
func (r *reconciler) prefetch(ctx context.Context, ids []string) (map[string]reconcile.Record, error) {
	named := make([]order.ID, len(ids))
	for i, id := range ids {
		named[i] = order.ID(id)
	}
	orders, unreadable, err := r.GetMany(ctx, named)
	if err != nil {
		return nil, err
	}
	r.orders = orders
	records := make(map[string]reconcile.Record, len(ids))
	for id, o := range orders {
		r.Counter.Observe(o)
		s := o.Snapshot()
		records[string(id)] = reconcile.Record{Changed: s.UpdatedAt, Created: s.CreatedAt, Grace: r.grace(o)}
	}
	for id, err := range unreadable {
		records[string(id)] = reconcile.Record{Unreadable: err}
	}
	return records, nil
}

// grace is how long the order may be unchanged before it is reconciled.
func (r *reconciler) grace(o *order.Order) time.Duration {
	switch {
	case o.Status().Final():
		return 0
	case o.WaitsForPerson():
		return r.longest()
	default:
		return r.After
	}
}

func (r *reconciler) reconcile(ctx context.Context, id string) (reconcile.Result, error) {
	o := r.orders[order.ID(id)]
	if o == nil {
		return reconcile.Result{Done: true}, nil // it was missing during the whole grace period
	}
	// Also for an order that has ended: it may have ended here, and the process may have died before it published that.
	if err := r.PublishUnanswered(ctx, o); err != nil {
		return reconcile.Result{}, err
	}
	switch {
	case o.Status().Final():
		return reconcile.Result{Done: true}, nil
	case o.WaitsForPerson():
		r.logUnanswered(ctx, slog.LevelDebug, o)
		return reconcile.Result{RequeueAfter: r.longest()}, nil
	default:
		r.logUnanswered(ctx, slog.LevelWarn, o)
		return reconcile.Result{}, nil
	}
}

func (r *reconciler) logUnanswered(ctx context.Context, level slog.Level, o *order.Order) {
	r.Logger.Log(ctx, level, "order has not moved; its events were published again",
		slog.String("order_id", string(o.ID())), slog.String("status", string(o.Status())), slog.Time("updated_at", o.Snapshot().UpdatedAt))
}
