package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// Options configure an examination.
type Options struct {
	// Running: the system runs. Then a difference may be work in flight, and counts only if it still exists, unchanged, after
	// Grace. On a stopped system it counts if nothing about it was written in the last Grace before the stop.
	Running bool
	Grace   time.Duration
	// Kept is how long the services keep ended records.
	Kept Kept
	// Progress is called with a sentence about what takes time; it may be nil.
	Progress func(string)
}

// Kept is how long orders, sagas and messages are kept after their end (ORDER_RETENTION, SAGA_RETENTION, MESSAGE_RETENTION); 0 is
// for ever. What has vanished is not missed.
type Kept struct{ Orders, Sagas, Messages time.Duration }

// source is where the facts come from.
type source interface {
	name() string
	known(ctx context.Context) (known, error)
	// prepare reads the lists and pending sets, for each if withLists is set, and for look.
	prepare(ctx context.Context, withLists bool) error
	each(ctx context.Context, visit func(o *facts) error) error
	look(ctx context.Context, id string) (*facts, error)
	// products compares the stock of every product, and returns their number.
	products(ctx context.Context) ([]Finding, int, error)
	// rest adds what belongs to no order and no product.
	rest(ctx context.Context, r *Report) error
	// until is when the system last changed; zero if unknown.
	until(ctx context.Context) (time.Time, error)
}

// maxSuspects is how many orders are checked a second time.
const maxSuspects = 100_000

// Folder examines the stores of a data folder: the files of the folder state in it.
func Folder(ctx context.Context, state string, o Options) (r *Report, err error) {
	f, err := openFolder(ctx, state)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	return run(ctx, &folderSource{folder: f}, o)
}

func run(ctx context.Context, s source, o Options) (*Report, error) {
	r := &Report{Source: s.name(), Running: o.Running, Counts: map[string]int{}, Differences: []Finding{}, NotKept: map[string]int{}}
	known, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	known.vanish = known.vanish || o.Kept.Orders > 0
	x := &examiner{known: known, now: time.Now(), kept: o.Kept}
	if !o.Running {
		// It has not changed since then.
		last, err := s.until(ctx)
		if err != nil {
			return nil, err
		}
		if !last.IsZero() {
			x.now = last
		}
	}
	if err := s.prepare(ctx, true); err != nil {
		return nil, err
	}
	lost := newLosses()
	var suspects []string
	err = s.each(ctx, func(f *facts) error {
		r.count(f)
		lost.see(f)
		found := x.examine(f)
		if len(found) == 0 {
			return nil
		}
		if o.Running {
			if len(suspects) < maxSuspects {
				suspects = append(suspects, f.id)
			} else {
				r.NotKept["not_looked_at_again"]++
			}
			return nil
		}
		r.judge(found, x.now, o.Grace)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := again(ctx, s, x, r, suspects, o); err != nil {
		return nil, err
	}
	found, n, err := s.products(ctx)
	if err != nil {
		return nil, err
	}
	r.Counts["products"] = n
	r.add(found...)
	if err := s.rest(ctx, r); err != nil {
		return nil, err
	}
	r.add(lost.findings(known, r)...)
	r.sort()
	return r, nil
}

// judge adds the findings about one order of a stopped system, except for work that was in flight when it stopped.
func (r *Report) judge(found []Finding, stopped time.Time, grace time.Duration) {
	inFlight := false
	for _, f := range found {
		if f.passing && stopped.Sub(f.Since) < grace {
			inFlight = true
			continue
		}
		r.add(f)
	}
	if inFlight {
		r.InFlight++
	}
}

// suspect is an order of a running system with findings.
type suspect struct {
	id    string
	mark  string // what was found, and of which documents
	since time.Time
}

// atLeast is how long suspects are checked if there is no grace period.
const atLeast = time.Second

// again checks the suspects until each is without findings, or has not changed for the grace period. One that keeps changing is
// in flight.
func again(ctx context.Context, s source, x *examiner, r *Report, ids []string, o Options) error {
	suspects := make([]suspect, len(ids))
	for i, id := range ids {
		suspects[i].id = id
	}
	if len(suspects) > 0 && o.Progress != nil {
		o.Progress(fmt.Sprintf("%d orders look wrong, which they may for a moment while the system runs: looking at them for another %s", len(suspects), o.Grace))
	}
	pause := max(o.Grace/5, 20*time.Millisecond)
	for deadline := time.Now().Add(4*o.Grace + atLeast); len(suspects) > 0; {
		if err := s.prepare(ctx, false); err != nil {
			return err
		}
		last := time.Now().After(deadline)
		left := suspects[:0]
		for _, p := range suspects {
			f, err := s.look(ctx, p.id)
			if err != nil {
				return err
			}
			x.now = time.Now()
			found := x.examine(f)
			mark := fingerprint(f, found)
			switch {
			case len(found) == 0:
			case mark != p.mark && !last:
				left = append(left, suspect{p.id, mark, time.Now()})
			case mark != p.mark:
				r.InFlight++
			case time.Since(p.since) >= o.Grace:
				r.add(found...)
			default:
				left = append(left, p)
			}
		}
		if suspects = left; len(suspects) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
	return nil
}

func fingerprint(f *facts, found []Finding) string {
	codes := make([]string, len(found))
	for i := range found {
		codes[i] = found[i].Code + found[i].What
	}
	return f.version + strings.Join(codes, "\n")
}

func (r *Report) count(f *facts) {
	for what, there := range map[string]bool{
		"orders": f.order != nil, "sagas": f.saga != nil, "payments": f.payment != nil, "reservations": f.reservation != nil,
		"shipments": f.shipment != nil, "orders_with_messages": f.messages != nil,
	} {
		if there {
			r.Counts[what]++
		}
	}
}

// losses finds a whole store, or all of its older part, that is missing.
type losses struct {
	sagaless, orderless, messageless loss
	// oldest are the oldest saga and order.
	oldestSaga, oldestOrder time.Time
}

// loss is what one side has and another one does not have.
type loss struct {
	n      int
	newest time.Time
	some   []string
}

const maxNamed = 5

func newLosses() *losses { return &losses{} }

func (l *loss) add(id string, at time.Time) {
	if l.n++; len(l.some) < maxNamed {
		l.some = append(l.some, id)
	}
	if at.After(l.newest) {
		l.newest = at
	}
}

func (l *loss) named() string {
	names := strings.Join(l.some, ", ")
	if l.n > len(l.some) {
		names += ", …"
	}
	return names
}

func (l *losses) see(f *facts) {
	if f.expires || len(f.unreadable) > 0 {
		return
	}
	if o := f.order; o != nil {
		if l.oldestOrder.IsZero() || o.CreatedAt.Before(l.oldestOrder) {
			l.oldestOrder = o.CreatedAt
		}
		if f.saga == nil && o.needsSaga() {
			l.sagaless.add(f.id, o.CreatedAt)
		}
	}
	if s := f.saga; s != nil && s.started() {
		if l.oldestSaga.IsZero() || s.StartedAt.Before(l.oldestSaga) {
			l.oldestSaga = s.StartedAt
		}
		if f.order == nil {
			l.orderless.add(f.id, s.StartedAt)
		}
		if s.ended() && f.messages == nil {
			l.messageless.add(f.id, s.EndedAt)
		}
	}
}

// findings names the stores that look deleted: they have nothing that is older than a time, and others do.
func (l *losses) findings(known known, r *Report) (found []Finding) {
	report := func(app, has, lacks string, gone loss, since time.Time, mend string) {
		if gone.n < 2 || !since.IsZero() && !gone.newest.Before(since) {
			return
		}
		when := "all of them"
		if !since.IsZero() {
			when = "all from before " + since.UTC().Format(time.RFC3339)
		}
		found = append(found, Finding{
			Code: CodeStoreLost, Where: []string{app}, Since: gone.newest,
			What: fmt.Sprintf("The store of %s looks deleted: %d %s have no %s, %s (%s).", app, gone.n, has, lacks, when, gone.named()),
			Why:  "What only that store knew is gone: orders and customers' lists, or payments, stock and approvals, or contacts and messages.",
			Mend: mend,
		})
	}
	if known.fulfillment && r.Counts["sagas"] < r.Counts["orders"] {
		report(contracts.AppFulfillment, "orders", "saga", l.sagaless, l.oldestSaga,
			"Restore the file from a backup while the system is stopped. Without one: orders that have not ended are announced again within 5 minutes of running, and fulfilled; set the stock first (docs/operations.md, Count the stock), and keep in mind that a charge is repeated only where the payment provider forgot it, too.")
	}
	if known.orders && r.Counts["orders"] < r.Counts["sagas"] {
		report(contracts.AppOrders, "sagas", "order", l.orderless, l.oldestOrder,
			"Restore the file from a backup while the system is stopped. Without one: `make doctor ARGS=--recreate` on the running system places the orders again from fulfilment's journal.")
	}
	if known.notifications && r.Counts["orders_with_messages"] == 0 {
		report(contracts.AppNotifications, "ended sagas", "message", l.messageless, time.Time{},
			"Restore the file from a backup while the system is stopped. Without one, customers' contacts must be set again; messages that were lost are not sent.")
	}
	return found
}

// folderSource reads a data folder.
type folderSource struct {
	*folder

	sets *sets
}

func (s *folderSource) name() string { return s.path }

func (s *folderSource) known(ctx context.Context) (k known, err error) {
	k = known{orders: s.orders != nil, fulfillment: s.fulfillment != nil, notifications: s.notifications != nil}
	if k.orders {
		k.vanish, err = s.orders.vanish(ctx, "order:")
	}
	return k, err
}

func (s *folderSource) prepare(ctx context.Context, withLists bool) (err error) {
	s.sets, err = s.readSets(ctx, withLists)
	return err
}

func (s *folderSource) each(ctx context.Context, visit func(o *facts) error) error {
	return s.eachOrder(ctx, s.sets, visit)
}

func (s *folderSource) look(ctx context.Context, id string) (*facts, error) {
	return s.folder.look(ctx, s.sets, id)
}

func (s *folderSource) products(ctx context.Context) ([]Finding, int, error) { return s.stocks(ctx) }

func (s *folderSource) until(ctx context.Context) (last time.Time, err error) {
	for _, store := range s.stores() {
		at, err := store.newest(ctx)
		if err != nil {
			return last, err
		}
		if at.After(last) {
			last = at
		}
	}
	return last, nil
}

// rest checks for missing stores, documents that cannot be decoded, and dead letters.
func (s *folderSource) rest(ctx context.Context, r *Report) error {
	for _, file := range s.missing {
		app, component, _ := strings.Cut(strings.TrimSuffix(file, ".db"), ".")
		f := Finding{
			Code: CodeStoreMissing, Where: []string{file}, What: fmt.Sprintf("There is no store %s, and there are others.", file),
			Why:  "Everything that " + app + " knew is gone; a start makes an empty store.",
			Mend: "Put the file back from a backup before the next start. Without one, `make up` makes an empty one; ask `make doctor` again then, which says what can be made again.",
		}
		if component == contracts.WorkflowStore {
			f.Why = "The workflow engine has forgotten its sagas. No order is lost by that."
			f.Mend = "No action is needed: the reconciler of fulfillment starts every saga that has not ended again (RECONCILE_INTERVAL, 30 s)."
		}
		if len(s.missing) < 5 { // else nothing was ever stored here
			r.add(f)
		} else {
			r.Notes = append(r.Notes, "Nothing was ever stored here.")
			break
		}
	}
	for _, u := range s.sets.broken {
		r.add(unreadableFinding("", u, time.Time{}))
	}
	if s.notifications != nil {
		for _, prefix := range []string{"contact:", "message:"} {
			if err := s.notifications.each(ctx, prefix, func(row row) error {
				if u := decode(s.notifications, row, &struct{}{}); u != nil {
					r.add(unreadableFinding("", *u, row.written))
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	for _, store := range s.stores() {
		if store == s.engine {
			continue
		}
		if err := store.letters(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// letters notes the open dead letters.
func (s *store) letters(ctx context.Context, r *Report) error {
	open := map[string]int{}
	err := s.each(ctx, "deadletters:", func(row row) error {
		topic, page, _ := strings.Cut(strings.TrimPrefix(row.key, "deadletters:"), ":")
		if page == "" {
			return nil
		}
		var p lettersPage
		if u := decode(s, row, &p); u != nil {
			r.add(unreadableFinding("", *u, row.written))
			return nil
		}
		for _, item := range p.Items {
			if item.Open > 0 {
				open[topic]++
			}
		}
		return nil
	})
	for _, topic := range slices.Sorted(maps.Keys(open)) {
		r.Notes = append(r.Notes, fmt.Sprintf("%s has %d open dead letters of the topic %s: GET /v1/dead-letters?topic=%s shows them with their reasons.", s.app, open[topic], topic, topic))
	}
	return err
}
