package pipeline

import "strings"

// kept is what a table keeps of one name. Clear empties it for another name and keeps its memory.
type kept[T any] interface {
	*T
	clear()
}

// table keeps something of the names heard of last, up to a number of them. The memory of the one that has to go is used
// for the one that comes.
type table[T any, P kept[T]] struct {
	max     int
	rows    map[string]*row[T]
	links   []link[T] // the order of use, as a ring. At 0 it begins and ends: next is the row used longest ago, prev the one used last
	evicted uint64
}

// link is a row's place in the order of use. It names the links beside it by number, and all stand together instead of in
// the rows: most events change the order, and so touch no other row.
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

// use is what is kept of a name, new when nothing is, and makes it the one used last.
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

// name keeps a copy of the name: what it was cut from, an event's whole text, may go.
func (t *table[T, P]) name(r *row[T], name string) {
	r.name = strings.Clone(name)
	t.rows[r.name] = r
}

// get is what is kept of a name, nil when nothing is.
func (t *table[T, P]) get(name string) *T {
	if r := t.rows[name]; r != nil {
		return &r.value
	}
	return nil
}

// all yields every row, the one used longest ago first.
func (t *table[T, P]) all(yield func(name string, value *T) bool) {
	for i := t.links[0].next; i != 0; i = t.links[i].next {
		if r := t.links[i].row; !yield(r.name, &r.value) {
			return
		}
	}
}
