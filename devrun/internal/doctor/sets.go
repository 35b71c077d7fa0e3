package doctor

import (
	"context"
	"slices"
	"strings"
)

// sets are the lists and pending sets that must contain orders and messages.
type sets struct {
	lists                    set // customer, order
	orders, sagas, approvals set
	messages                 set // ids of messages that are on their way
	waits                    set // places where messages wait for an address
	has                      struct{ lists, orders, sagas, approvals, messages, waits bool }
	broken                   []unreadable
}

// readSets reads the pending sets, and the customers' lists if withLists is set.
func (f *folder) readSets(ctx context.Context, withLists bool) (*sets, error) {
	s := &sets{}
	broken := func(app string, pointless *bool) func(r row, err error) {
		return func(r row, err error) {
			s.broken = append(s.broken, unreadable{app, r.key, err})
			*pointless = true // what it listed is not known
		}
	}
	for _, b := range []struct {
		store *store
		name  string
		into  *set
		has   *bool
		id    func(entry string) string
	}{
		{f.orders, "orders", &s.orders, &s.has.orders, nil},
		{f.fulfillment, "sagas", &s.sagas, &s.has.sagas, nil},
		{f.fulfillment, "approvals", &s.approvals, &s.has.approvals, nil},
		{f.notifications, "notifications", &s.messages, &s.has.messages, func(entry string) string { id, _, _ := strings.Cut(entry, "#"); return id }},
		{f.notifications, "address-waits", &s.waits, &s.has.waits, func(entry string) string { _, place, _ := cut2(entry); return place }},
	} {
		if b.store == nil {
			continue
		}
		pointless := false
		if err := b.store.backlog(ctx, b.name, func(entry string) {
			if b.id != nil {
				entry = b.id(entry)
			}
			b.into.add(entry)
		}, broken(b.store.app, &pointless)); err != nil {
			return nil, err
		}
		*b.has = !pointless
	}
	if f.orders == nil || !withLists {
		return s, nil
	}
	pointless := false
	err := f.orders.each(ctx, "customer:", func(r row) error {
		var d listDoc
		if u := decode(f.orders, r, &d); u != nil {
			broken(f.orders.app, &pointless)(r, u.err)
			return nil
		}
		customer, _, _ := strings.Cut(strings.TrimPrefix(r.key, "customer:"), ":")
		for _, id := range d.IDs {
			s.lists.add(customer + "\x00" + id)
		}
		return nil
	})
	s.has.lists = !pointless
	return s, err
}

// cut2 takes the first two words off an entry of those that wait for an address: a time, a customer, and the place.
func cut2(entry string) (customer, place string, ok bool) {
	_, rest, _ := strings.Cut(entry, " ")
	return strings.Cut(rest, " ")
}

// listed reports whether the customer's list contains the order now.
func (f *folder) listed(ctx context.Context, customer, order string) (Fact, error) {
	found := No
	look := func(r row) {
		var d listDoc
		switch {
		case decode(f.orders, r, &d) != nil:
			found = Unknown
		case slices.Contains(d.IDs, order):
			found = Yes
		}
	}
	head, there, err := f.orders.get(ctx, "customer:"+customer)
	if err != nil {
		return Unknown, err
	}
	if there {
		look(head)
	}
	err = f.orders.each(ctx, "customer:"+customer+":", func(r row) error { look(r); return nil })
	return found, err
}
