package doctor

import (
	"context"
	"encoding/json"
	"fmt"
)

// kind is one kind of documents that belong to an order.
type kind struct {
	store  *store
	prefix string
	into   func(f *facts) any
}

func (f *folder) kinds() []kind {
	var kinds []kind
	add := func(s *store, prefix string, into func(f *facts) any) {
		if s != nil {
			kinds = append(kinds, kind{s, prefix, into})
		}
	}
	add(f.orders, "order:", func(f *facts) any { f.order = &orderDoc{}; return f.order })
	add(f.fulfillment, "saga:", func(f *facts) any { f.saga = &sagaDoc{}; return f.saga })
	add(f.fulfillment, "payment:", func(f *facts) any { f.payment = &paymentDoc{}; return f.payment })
	add(f.fulfillment, "reservation:", func(f *facts) any { f.reservation = &reservationDoc{}; return f.reservation })
	add(f.fulfillment, "shipment:", func(f *facts) any { f.shipment = &shipmentDoc{}; return f.shipment })
	add(f.notifications, "order-messages:", func(f *facts) any { f.messages = &messagesDoc{}; return f.messages })
	return kinds
}

// take adds a document to the facts of its order.
func (k kind) take(f *facts, r row) {
	f.version += r.etag + " "
	if r.written.After(f.changed) {
		f.changed = r.written
	}
	// Messages expire by default (MESSAGE_RETENTION); that does not mean that orders and sagas do.
	f.expires = f.expires || r.expires && k.prefix != "order-messages:"
	before := *f
	if err := json.Unmarshal(r.value, k.into(f)); err != nil {
		*f = before // nothing of it is known
		f.unreadable = append(f.unreadable, unreadable{k.store.app, r.key, err})
	}
}

// orders calls visit for every order with a document in any store, by id.
func (f *folder) eachOrder(ctx context.Context, s *sets, visit func(o *facts) error) error {
	kinds := f.kinds()
	cursors := make([]cursor, len(kinds))
	for i, k := range kinds {
		cursors[i] = cursor{store: k.store, kind: k.prefix}
	}
	for {
		lowest, found := "", false
		for i := range cursors {
			r, there, err := cursors[i].head(ctx)
			if err != nil {
				return err
			}
			if id := r.key[min(len(r.key), len(kinds[i].prefix)):]; there && (!found || id < lowest) {
				lowest, found = id, true
			}
		}
		if !found {
			return nil
		}
		o := &facts{id: lowest}
		for i := range cursors {
			if r, there, err := cursors[i].head(ctx); err != nil {
				return err
			} else if there && r.key == kinds[i].prefix+lowest {
				kinds[i].take(o, r)
				cursors[i].next()
			}
		}
		if err := f.complete(ctx, s, o); err != nil {
			return err
		}
		if o.order != nil && s.has.lists {
			o.listed = fact(s.lists.has(o.order.Content.CustomerID + "\x00" + o.id))
		}
		if err := visit(o); err != nil {
			return err
		}
	}
}

// look reads the present facts of one order.
func (f *folder) look(ctx context.Context, s *sets, id string) (*facts, error) {
	o := &facts{id: id}
	for _, k := range f.kinds() {
		r, there, err := k.store.get(ctx, k.prefix+id)
		if err != nil {
			return nil, err
		}
		if there {
			k.take(o, r)
		}
	}
	if err := f.complete(ctx, s, o); err != nil {
		return nil, err
	}
	if o.order != nil {
		listed, err := f.listed(ctx, o.order.Content.CustomerID, id)
		if err != nil {
			return nil, err
		}
		o.listed = listed
	}
	return o, nil
}

// complete adds what the pending sets and the workflow engine have.
func (f *folder) complete(ctx context.Context, s *sets, o *facts) error {
	if o.order != nil && s.has.orders {
		o.orderPending = fact(s.orders.has(o.id))
	}
	if o.saga != nil && s.has.sagas {
		o.sagaPending = fact(s.sagas.has(o.id))
	}
	if o.saga != nil && s.has.approvals {
		o.approvalListed = fact(s.approvals.has(o.id))
	}
	if o.saga != nil && o.saga.started() && !o.saga.ended() && f.engine != nil {
		_, there, err := f.engine.get(ctx, instanceKey(o.id))
		if err != nil {
			return fmt.Errorf("look for the workflow of %s: %w", o.id, err)
		}
		o.inEngine = fact(there)
	}
	if o.messages == nil {
		return nil
	}
	for _, m := range o.messages.Messages {
		switch {
		case m.final():
		case m.State == messageWaiting && s.has.waits && !s.waits.has("order-messages:"+o.id),
			m.State != messageWaiting && s.has.messages && !s.messages.has(m.ID):
			o.unqueued = append(o.unqueued, m.ID)
		}
	}
	return nil
}
