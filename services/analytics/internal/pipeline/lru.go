package pipeline

import "strings"

// kept is the value of a name in a table. Clear empties it for another name and keeps its memory.
type kept[T any] interface {
	*T
	clear()
}

// table keeps a value for each of the most recently used names, up to a number of them. It reuses the memory of the value that it
// drops.
type table[T any, P kept[T]] struct {
	max     int
	rows    map[string]*row[T]
	links   []link[T] // the order of use, as a ring. At 0 it begins and ends: next is the row used longest ago, prev the one used last
	evicted uint64
}

// link is the position of a row in the order of use. It refers to its neighbours by number, and all links are in one slice: most
// events change the order, and so touch no other row.
type link[T any] struct {
	prev, next uint32
	row        *row[T]
}

type row[T any] struct {
	name  string
	link  uint32
	value T
}

func newTable[T any, P kept[T]](limit int) *table[T, P] {
	return &table[T, P]{max: limit, rows: map[string]*row[T]{}, links: make([]link[T], 1)}
}

// use returns the value of a name, a new one if there is none, and makes the name the most recently used.
func (t *table[T, P]) use(name string) *row[T] {
	r := t.rows[name]
	switch {
	case r != nil:
		if t.links[0].prev == r.link {
			return r
		}
		t.unlink(r)
	case len(t.rows) >= t.max:
		r = t.links[t.links[0].next].row
		t.unlink(r)
		delete(t.rows, r.name)
		t.evicted++
		P(&r.value).clear()
		t.name(r, name)
	default:
		r = &row[T]{link: uint32(len(t.links))} //nolint:gosec // four thousand million rows find no room in memory
		t.links = append(t.links, link[T]{row: r})
		t.name(r, name)
	}
	last := t.links[0].prev
	t.links[r.link].prev, t.links[r.link].next = last, 0
	t.links[last].next, t.links[0].prev = r.link, r.link
	return r
}

func (t *table[T, P]) unlink(r *row[T]) {
	one := t.links[r.link]
	t.links[one.prev].next, t.links[one.next].prev = one.next, one.prev
}

// name copies the name, so that the event's text can be freed.
func (t *table[T, P]) name(r *row[T], name string) {
	r.name = strings.Clone(name)
	t.rows[r.name] = r
}

// get returns the value of a name, or nil.
func (t *table[T, P]) get(name string) *T {
	if r := t.rows[name]; r != nil {
		return &r.value
	}
	return nil
}

// all yields every row, least recently used first.
func (t *table[T, P]) all(yield func(name string, value *T) bool) {
	for i := t.links[0].next; i != 0; i = t.links[i].next {
		if r := t.links[i].row; !yield(r.name, &r.value) {
			return
		}
	}
}
