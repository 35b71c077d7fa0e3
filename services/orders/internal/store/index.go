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

// A customer's index is a head document with the newest ids, and pages. When the head is full, its older half becomes a
// page, which never changes. So the position of an id, counted from the customer's first order, never changes either, and a
// cursor stays valid while orders are added.
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
	// pageSize is the number of ids in a page of an index, and the least number in the head once there are pages.
	pageSize = 100
	// headSize is the largest number of ids in the head.
	headSize = 2 * pageSize
	// maxScan is the largest number of orders that one List reads to find those that match.
	maxScan = 500
	// maxBatch is the number of orders in one read. An answer of the sidecar is limited to 4 MiB, and the largest orders have
	// about 130 KB.
	maxBatch = 25
)

func headKey(customerID string) string { return "customer:" + customerID }

func pageKey(customerID string, n int) string { return headKey(customerID) + ":" + strconv.Itoa(n) }

// Index adds the order to its customer's index, unless it is among the newest hundred there. So it may be called again, but
// not after more than a hundred later orders of the customer. That does not happen: an order is indexed again only while its
// confirmation is not stored. Until then its event is not acknowledged, and the customer's later events wait behind it,
// because the bus keeps the order of a key.
func (s *Store) Index(ctx context.Context, customerID string, id order.ID) error {
	ttl := s.indexTTL()
	_, err := state.Update(ctx, s.state, headKey(customerID), func(h *head, _ bool) error {
		if slices.Contains(h.IDs, id) {
			return state.ErrUnchanged
		}
		if len(h.IDs) == headSize {
			// A page has only one possible content, so a page that exists already holds the same ids.
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

// openAtMost is the longest time that an order may need to end, for the expiry of its index.
const openAtMost = 30 * 24 * time.Hour

// indexTTL is when a document of an index expires after its last write. All its orders were placed before that write, so they have
// expired by then.
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

// List returns the customer's orders, newest first, at most limit. It starts below the position before, or at the newest if
// before is 0, and returns only orders of that status unless it is empty. Next is the position for the next call, 0 at the
// end. List reads a bounded number of orders, so it may return fewer than limit, or none, although there are more.
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
				return orders, 0, nil // the page expired, and so did all older ones
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
		found, unreadable, err := s.GetMany(ctx, ids)
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
			// An order that was indexed and never confirmed may have expired, and another customer may have its id now.
			if o, ok := found[id]; ok && o.CustomerID() == customerID && (status == "" || o.Status() == status) {
				orders = append(orders, o)
			}
		}
	}
	return orders, at, nil
}

// GetMany reads orders. An order that does not exist is missing in both maps; one whose document cannot be decoded is in
// unreadable, with the error.
func (s *Store) GetMany(ctx context.Context, ids []order.ID) (orders map[order.ID]*order.Order, unreadable map[order.ID]error, err error) {
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

// joined returns all errors as one, sorted by id.
func joined(unreadable map[order.ID]error) error {
	errs := make([]error, 0, len(unreadable))
	for _, id := range slices.Sorted(maps.Keys(unreadable)) {
		errs = append(errs, unreadable[id])
	}
	return errors.Join(errs...)
}
