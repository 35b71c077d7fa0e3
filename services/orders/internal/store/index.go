package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"waybill/platform/state"
	"waybill/services/orders/internal/order"
)

// A customer's index is a head document, which takes new ids, and pages, which each took the older half of the head's ids
// when it was full and never change again. So every id has a position for good, counted from the customer's first order;
// that is what makes a cursor hold while orders are added. And the head knows the newest ids without a page.
type (
	head struct {
		Pages int        `json:"pages"`
		IDs   []order.ID `json:"ids"`
	}
	page struct {
		IDs []order.ID `json:"ids"`
	}
)

const (
	// pageSize is how many ids a page of an index holds, and the head at least, once there are so many.
	pageSize = 100
	// headSize is how many ids the head holds at most.
	headSize = 2 * pageSize
	// maxScan is how many orders one List reads at most in search of those that match.
	maxScan = 500
	// maxBatch is how many orders are read at once: the largest have some 130 KB.
	maxBatch = 25
)

func headKey(customerID string) string { return "customer:" + customerID }

func pageKey(customerID string, n int) string { return headKey(customerID) + ":" + strconv.Itoa(n) }

// Index adds the order to its customer's index unless it is among the newest hundred there, so it may be repeated. A
// repetition after more than a hundred further orders of the customer would list the order twice. It does not come to
// that: an order is indexed again only while its confirmation is not stored, so its event is not acknowledged, and the
// customer's next events wait behind that one, for the bus keeps the order of a key and retries without end.
func (s *Store) Index(ctx context.Context, customerID string, id order.ID) error {
	ttl := s.indexTTL()
	_, err := state.Update(ctx, s.state, headKey(customerID), func(h *head, _ bool) error {
		if slices.Contains(h.IDs, id) {
			return state.ErrUnchanged
		}
		if len(h.IDs) == headSize {
			// What is oldest in a full head becomes this page and nothing else, so a page that is there already holds the same ids.
			err := s.state.Create(ctx, pageKey(customerID, h.Pages), page{h.IDs[:pageSize]}, ttl)
			if err != nil && !errors.Is(err, state.ErrConflict) {
				return err
			}
			h.Pages, h.IDs = h.Pages+1, h.IDs[pageSize:]
		}
		h.IDs = append(h.IDs, id)
		return nil
	}, ttl)
	return err
}

// openAtMost is how long an order that is still listed may take to end.
const openAtMost = 30 * 24 * time.Hour

// indexTTL lets a part of an index go when the orders that it lists are gone, counted from its last write: each of them was placed
// before it.
func (s *Store) indexTTL() state.Option {
	if s.retention == 0 {
		return state.TTL(0)
	}
	return state.TTL(s.retention + openAtMost)
}

func (s *Store) page(ctx context.Context, customerID string, n int) ([]order.ID, error) {
	var p page
	if _, err := s.state.Get(ctx, pageKey(customerID, n), &p); err != nil {
		return nil, err
	}
	return p.IDs, nil
}

// List returns the customer's orders, newest first, at most limit of them, beginning below the position before, or with
// the newest when before is 0; of status only, unless that is empty. Next is where to go on, 0 at the end. It reads a bounded
// number of orders, so it may return fewer than limit, or none, although there is more.
func (s *Store) List(ctx context.Context, customerID string, status order.Status, limit, before int) (orders []*order.Order, next int, err error) {
	var h head
	if _, err := s.state.Get(ctx, headKey(customerID), &h); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil, 0, nil
		}
		return nil, 0, err
	}
	at := h.Pages*pageSize + len(h.IDs)
	if before > 0 {
		at = min(at, before)
	}
	for scanned := 0; at > 0 && len(orders) < limit && scanned < maxScan; {
		first, ids := h.Pages*pageSize, h.IDs
		if at <= first {
			n := (at - 1) / pageSize
			first = n * pageSize
			ids, err = s.page(ctx, customerID, n)
			if errors.Is(err, state.ErrNotFound) {
				return orders, 0, nil // it outlived its orders, and so did those before it
			}
			if err != nil {
				return nil, 0, err
			}
		}
		wanted := min(pageSize, maxScan-scanned)
		if status == "" {
			wanted = min(wanted, limit-len(orders))
		}
		ids = ids[:at-first]
		ids = ids[max(0, len(ids)-wanted):]
		found, unreadable, err := s.many(ctx, ids)
		if err == nil {
			err = joined(unreadable)
		}
		if err != nil {
			return nil, 0, err
		}
		for _, id := range slices.Backward(ids) {
			if len(orders) == limit {
				break
			}
			at--
			scanned++
			// An order that was indexed and never confirmed may be gone, and its id another customer's by now.
			if o, ok := found[id]; ok && o.CustomerID() == customerID && (status == "" || o.Status() == status) {
				orders = append(orders, o)
			}
		}
	}
	return orders, at, nil
}

// many reads orders, by batches, for an answer of the sidecar is limited to 4 MiB. An order whose
// document cannot be decoded is in unreadable instead, with the error.
func (s *Store) many(ctx context.Context, ids []order.ID) (orders map[order.ID]*order.Order, unreadable map[order.ID]error, err error) {
	orders, unreadable = make(map[order.ID]*order.Order, len(ids)), map[order.ID]error{}
	for batch := range slices.Chunk(ids, maxBatch) {
		keys := make([]string, len(batch))
		for i, id := range batch {
			keys[i] = orderKey(id)
		}
		values, err := s.state.GetMany(ctx, keys)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range batch {
			value, exists := values[orderKey(id)]
			if !exists {
				continue
			}
			var d document
			if err := state.Decode(orderKey(id), value, &d); err != nil {
				unreadable[id] = err
				continue
			}
			orders[id] = d.order()
		}
	}
	return orders, unreadable, nil
}

// joined is one error of many, in the order of the ids.
func joined(unreadable map[order.ID]error) error {
	errs := make([]error, 0, len(unreadable))
	for _, id := range slices.Sorted(maps.Keys(unreadable)) {
		errs = append(errs, unreadable[id])
	}
	return errors.Join(errs...)
}
