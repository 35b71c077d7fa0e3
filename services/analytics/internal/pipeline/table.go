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
	order   []turn[T] // what stands at 0 is no row: after it comes the row used longest ago, before it the one used last
	evicted uint64
}

// turn is a row's place in the order of use. The rows beside it are numbers and not pointers, and stand together instead of
// in the rows: most events change the order, and so touch no other row.
type turn[T any] struct {
	prev, next uint32
	row        *row[T]
}

type row[T any] struct {
	name  string
	turn  uint32
	value T
}

func newTable[T any, P kept[T]](limit int) *table[T, P] {
	return &table[T, P]{max: limit, rows: map[string]*row[T]{}, order: make([]turn[T], 1)}
}

// use is what is kept of a name, new when nothing is, and makes it the one used last.
func (t *table[T, P]) use(name string) *row[T] {
	r := t.rows[name]
	switch {
	case r != nil:
		if t.order[0].prev == r.turn {
			return r
		}
		t.unlink(r)
	case len(t.rows) >= t.max:
		r = t.order[t.order[0].next].row
		t.unlink(r)
		delete(t.rows, r.name)
		t.evicted++
		P(&r.value).clear()
		t.name(r, name)
	default:
		r = &row[T]{turn: uint32(len(t.order))} //nolint:gosec // a table has at most some millions of rows
		t.order = append(t.order, turn[T]{row: r})
		t.name(r, name)
	}
	last := t.order[0].prev
	t.order[r.turn].prev, t.order[r.turn].next = last, 0
	t.order[last].next, t.order[0].prev = r.turn, r.turn
	return r
}

func (t *table[T, P]) unlink(r *row[T]) {
	one := t.order[r.turn]
	t.order[one.prev].next, t.order[one.next].prev = one.next, one.prev
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
	for i := t.order[0].next; i != 0; i = t.order[i].next {
		if r := t.order[i].row; !yield(r.name, &r.value) {
			return
		}
	}
}
