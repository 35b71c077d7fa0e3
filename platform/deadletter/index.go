package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"waybill/platform/state"
)

// A topic's list is a head, which counts pages, and pages, which hold keys of entries. A key never changes its place, so a cursor
// stays valid while entries are added and redriven. Each key has a mark that says whether its entry is open, so that only the open
// entries are read to find them. An open entry is always listed as open. A closed one may still be listed as open for a moment,
// or after a crash; the next reader of the list corrects that.
type (
	head struct {
		Pages int `json:"pages"`
	}
	page struct {
		Items []item `json:"items"`
	}
	item struct {
		Key string `json:"key"`
		// Open is the entry's opening, so that closing an old one does not close a newer one; 0 if it is not open.
		Open int `json:"open,omitempty"`
		// Dismissed distinguishes dismissed entries from redriven ones.
		Dismissed bool `json:"dismissed,omitempty"`
	}
	// place is an item and its position in the list.
	place struct {
		item
		position int
	}
)

const (
	// pageSize is how many keys a page holds.
	pageSize = 100
	// maxPages is how many pages are read at once.
	maxPages = 50
)

func headKey(topic string) string { return "deadletters:" + topic }

func pageKey(topic string, n int) string { return headKey(topic) + ":" + strconv.Itoa(n) }

var errPageFull = errors.New("the page is full")

// list adds the key of an entry that is open for the first time, and returns the page. It is idempotent, except that an entry
// may be listed twice if a whole page of others was added between: then only the page that the entry names counts.
func (q *Queue) list(ctx context.Context, topic, key string) (int, error) {
	var h head
	if _, err := q.store.Get(ctx, headKey(topic), &h); err != nil && !errors.Is(err, state.ErrNotFound) {
		return 0, err
	}
	for {
		n := max(0, h.Pages-1)
		if h.Pages > 0 {
			first := item{Key: key, Open: 1}
			_, err := state.Update(ctx, q.store, pageKey(topic, n), func(p *page, _ bool) error {
				i := slices.IndexFunc(p.Items, func(i item) bool { return i.Key == key })
				switch {
				case i >= 0 && p.Items[i] == first:
					return state.ErrUnchanged
				case i >= 0:
					p.Items[i] = first // instead of a closed entry that has expired
				case len(p.Items) >= pageSize:
					return errPageFull
				default:
					p.Items = append(p.Items, first)
				}
				return nil
			})
			if !errors.Is(err, errPageFull) {
				return n, err
			}
		}
		// The head changes first: a page that it does not count would not be found.
		seen := h.Pages
		var err error
		if h, err = state.Update(ctx, q.store, headKey(topic), func(h *head, _ bool) error {
			if h.Pages > seen {
				return state.ErrUnchanged
			}
			h.Pages++
			return nil
		}); err != nil {
			return 0, err
		}
	}
}

// mark lists the entry as open.
func (q *Queue) mark(ctx context.Context, e entry, opening int) error {
	return q.set(ctx, e.Topic, e.Page, e.key(), func(i *item) bool {
		changed := i.Open < opening
		if changed {
			i.Open, i.Dismissed = opening, false
		}
		return changed
	})
}

// pageGrace is how much longer a page is kept than the entries that it lists.
const pageGrace = 24 * time.Hour

// strike lists the entry as closed, in state as, unless it was opened again since.
func (q *Queue) strike(ctx context.Context, topic string, n int, key string, opening int, as entryState) error {
	return q.set(ctx, topic, n, key, func(i *item) bool {
		closed := item{Key: i.Key, Dismissed: as == dismissed}
		if *i == closed || i.Open != 0 && i.Open != opening {
			return false
		}
		*i = closed
		return true
	})
}

// state is the state that the list has of an entry.
func (i item) state() entryState {
	switch {
	case i.Open > 0:
		return open
	case i.Dismissed:
		return dismissed
	default:
		return redriven
	}
}

func (q *Queue) set(ctx context.Context, topic string, n int, key string, change func(i *item) bool) error {
	var ttl time.Duration
	_, err := state.Update(ctx, q.store, pageKey(topic, n), func(p *page, exists bool) error {
		i := slices.IndexFunc(p.Items, func(i item) bool { return i.Key == key })
		switch {
		case i < 0 && exists:
			return fmt.Errorf("page %d of %s does not list %s", n, topic, key)
		case i < 0:
			// The page expired, but the entry, which was written later, did not.
			i, p.Items = 0, []item{{Key: key}}
		}
		if !change(&p.Items[i]) {
			return state.ErrUnchanged
		}
		ttl = 0
		if q.retention > 0 && len(p.Items) >= pageSize && !slices.ContainsFunc(p.Items, func(i item) bool { return i.Open > 0 }) {
			ttl = q.retention + pageGrace
		}
		return nil
	}, state.TTLFunc(func() time.Duration { return ttl }))
	return err
}

// all reads a topic's list, oldest first.
func (q *Queue) all(ctx context.Context, topic string) ([]place, error) {
	var h head
	if _, err := q.store.Get(ctx, headKey(topic), &h); err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	keys := make([]string, h.Pages)
	for n := range keys {
		keys[n] = pageKey(topic, n)
	}
	var places []place
	n := 0
	for chunk := range slices.Chunk(keys, maxPages) {
		pages, err := q.store.GetMany(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, key := range chunk {
			var p page
			if written, ok := pages[key]; ok {
				if err := json.Unmarshal(written, &p); err != nil {
					return nil, fmt.Errorf("read %s: %w", key, err)
				}
			}
			for i, item := range p.Items {
				places = append(places, place{item, n*pageSize + i})
			}
			n++
		}
	}
	return places, nil
}

// entry reads the entry at a place, and corrects the list if it differs. It returns false if no entry counts there.
func (q *Queue) entry(ctx context.Context, topic string, p place) (entry, bool, error) {
	e, err := q.get(ctx, p.Key)
	if err != nil {
		if errors.Is(err, errNoEntry) {
			err = nil
		}
		return entry{}, false, err
	}
	counts := e.Page < 0 || e.Page == p.position/pageSize
	// An opening that is later in the list than in the entry is of an entry that is about to be opened again.
	closed := e.State != open && (p.Open == e.Opening || p.Open == 0)
	if counts && closed && p.state() != e.State || !counts && p.Open > 0 {
		if err := q.strike(ctx, topic, p.position/pageSize, p.Key, p.Open, e.State); err != nil {
			return entry{}, false, err
		}
	}
	return e, counts, nil
}
