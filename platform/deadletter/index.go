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

// A topic's list is a head, which counts pages, and pages, which take keys of entries until they are full. A key keeps its
// place for good, so a cursor holds while entries are added and redriven. Beside each key stands whether its entry is open,
// so that finding the open ones reads no others. An entry that is open is always listed as open; one that is not may be
// listed so for a moment, or after a crash, and is then struck off by whoever finds out.
type (
	head struct {
		Pages int `json:"pages"`
	}
	page struct {
		Items []item `json:"items"`
	}
	item struct {
		Key string `json:"key"`
		// Open is the entry's opening, so that striking off an old one leaves a newer one alone; 0 when it is not open.
		Open int `json:"open,omitempty"`
		// Dismissed tells those that are not open apart.
		Dismissed bool `json:"dismissed,omitempty"`
	}
	// place is an item and where it stands.
	place struct {
		item
		position int
	}
)

const (
	// pageSize is how many keys a page takes.
	pageSize = 100
	// maxPages is how many pages are read at once.
	maxPages = 50
)

func headKey(topic string) string { return "deadletters:" + topic }

func pageKey(topic string, n int) string { return headKey(topic) + ":" + strconv.Itoa(n) }

var errPageFull = errors.New("the page is full")

// list adds the key of an entry that is open for the first time, and returns the page. It may be repeated; when that takes
// place after a whole page of others the entry is listed twice, and only the page that it names counts.
func (l *Letters) list(ctx context.Context, topic, key string) (int, error) {
	var h head
	if _, err := l.store.Get(ctx, headKey(topic), &h); err != nil && !errors.Is(err, state.ErrNotFound) {
		return 0, err
	}
	for {
		n := max(0, h.Pages-1)
		if h.Pages > 0 {
			first := item{Key: key, Open: 1}
			_, err := state.Update(ctx, l.store, pageKey(topic, n), func(p *page, _ bool) error {
				i := slices.IndexFunc(p.Items, func(i item) bool { return i.Key == key })
				switch {
				case i >= 0 && p.Items[i] == first:
					return state.ErrUnchanged
				case i >= 0:
					p.Items[i] = first // in place of an entry that vanished after it was closed
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
		// The head first: a page that it does not count would not be found.
		seen := h.Pages
		var err error
		if h, err = state.Update(ctx, l.store, headKey(topic), func(h *head, _ bool) error {
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
func (l *Letters) mark(ctx context.Context, e entry, opening int) error {
	return l.set(ctx, e.Topic, e.Page, e.key(), func(i *item) bool {
		changed := i.Open < opening
		if changed {
			i.Open, i.Dismissed = opening, false
		}
		return changed
	})
}

// pageGrace is how much longer a page is kept than the entries that it lists.
const pageGrace = 24 * time.Hour

// strike lists the entry as one that is not open but as, unless it was opened again since.
func (l *Letters) strike(ctx context.Context, topic string, n int, key string, opening int, as entryState) error {
	return l.set(ctx, topic, n, key, func(i *item) bool {
		closed := item{Key: i.Key, Dismissed: as == dismissed}
		if *i == closed || i.Open != 0 && i.Open != opening {
			return false
		}
		*i = closed
		return true
	})
}

// state is what the list says of an entry.
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

func (l *Letters) set(ctx context.Context, topic string, n int, key string, change func(i *item) bool) error {
	var ttl time.Duration
	_, err := state.Update(ctx, l.store, pageKey(topic, n), func(p *page, exists bool) error {
		i := slices.IndexFunc(p.Items, func(i item) bool { return i.Key == key })
		switch {
		case i < 0 && exists:
			return fmt.Errorf("page %d of %s does not list %s", n, topic, key)
		case i < 0:
			// The page vanished, and the entry, which was written since, did not.
			i, p.Items = 0, []item{{Key: key}}
		}
		if !change(&p.Items[i]) {
			return state.ErrUnchanged
		}
		ttl = 0
		if l.retention > 0 && len(p.Items) >= pageSize && !slices.ContainsFunc(p.Items, func(i item) bool { return i.Open > 0 }) {
			ttl = l.retention + pageGrace
		}
		return nil
	}, state.TTLFunc(func() time.Duration { return ttl }))
	return err
}

// all reads a topic's list, oldest first.
func (l *Letters) all(ctx context.Context, topic string) ([]place, error) {
	var h head
	if _, err := l.store.Get(ctx, headKey(topic), &h); err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	keys := make([]string, h.Pages)
	for n := range keys {
		keys[n] = pageKey(topic, n)
	}
	var places []place
	n := 0
	for chunk := range slices.Chunk(keys, maxPages) {
		pages, err := l.store.GetMany(ctx, chunk)
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

// entry reads the entry at a place; false says that there is none that counts there.
func (l *Letters) entry(ctx context.Context, topic string, p place) (entry, bool, error) {
	e, err := l.get(ctx, p.Key)
	if err != nil {
		if errors.Is(err, errNoEntry) {
			err = nil
		}
		return entry{}, false, err
	}
	counts := e.Page < 0 || e.Page == p.position/pageSize
	// A later opening in the list than in the entry is that of one which is about to be opened again.
	closed := e.State != open && (p.Open == e.Opening || p.Open == 0)
	if counts && closed && p.state() != e.State || !counts && p.Open > 0 {
		if err := l.strike(ctx, topic, p.position/pageSize, p.Key, p.Open, e.State); err != nil {
			return entry{}, false, err
		}
	}
	return e, counts, nil
}
