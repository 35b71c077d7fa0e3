package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"waybill/tests/internal/stored"
)

// look is the stored records at one moment.
type look struct {
	at      time.Duration // since the load began
	records map[string]stored.Records
	disk    map[string]int64
}

const (
	// stillAllowed is the share by which the maximum of the last window may exceed that of the window before: orders come evenly
	// and are removed with each cleanup.
	stillAllowed = 0.15
	stillRows    = 200
	stillBytes   = 6 << 20
)

// filling are the parts of the data folder that do not grow without limit although they may never shrink: files whose pages are
// reused, and the segments of the broker's topics.
var filling = []string{
	"broker", "scheduler/db", "scheduler/wal", "state/fulfillment.workflowstore.db", "state/notifications.statestore.db", "state/orders.statestore.db",
}

// plateau returns the kinds that have a retention and still grew in the last window.
func plateau(looks []look, length, window time.Duration) (faults []error) {
	before, last := between(looks, length-2*window, length-window), between(looks, length-window, length)
	if len(before) == 0 || len(last) == 0 {
		return []error{errors.New("what is stored was not looked at in the last two windows")}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if kinds[kind].keeping != forAWhile {
			continue
		}
		rows := func(l look) int64 { return l.records[kind].Rows }
		was, is := most(before, rows), most(last, rows)
		if is > was+max(int64(stillAllowed*float64(was)), stillRows) {
			faults = append(faults, fmt.Errorf("%s grows: %d at most in the %s before, %d in the last", kind, was, window, is))
		}
	}
	for _, part := range filling {
		size := func(l look) int64 { return l.disk[part] }
		was, is := most(before, size), most(last, size)
		if is > was+max(int64(stillAllowed*float64(was)), stillBytes) {
			faults = append(faults, fmt.Errorf("the disk space of %s grows: %s MB at most in the %s before, %s MB in the last", part, mb(was), window, mb(is)))
		}
	}
	return faults
}

func between(looks []look, from, to time.Duration) (all []look) {
	for _, l := range looks {
		if l.at >= from && l.at < to {
			all = append(all, l)
		}
	}
	return all
}

func most(looks []look, of func(look) int64) (n int64) {
	for _, l := range looks {
		n = max(n, of(l))
	}
	return n
}

// lasts reports whether there are kinds with a retention.
func lasts(stored map[string]stored.Records) bool {
	for kind, r := range stored {
		if kinds[kind].keeping == forAWhile && r.Rows > 0 {
			return true
		}
	}
	return false
}

// left returns the records of a run's orders that remain after every retention is over.
func left(begin, end map[string]stored.Records, orders int64) (faults []error) {
	for _, kind := range slices.Sorted(maps.Keys(end)) {
		rows, more := end[kind].Rows, end[kind].Rows-begin[kind].Rows
		switch known := kinds[kind]; {
		case known.keeping == forAWhile && rows > 0:
			faults = append(faults, fmt.Errorf("%d of %s were not removed after their retention", rows, kind))
		case known.keeping == forEver && float64(more) > known.perOrder*float64(orders)+10:
			faults = append(faults, fmt.Errorf("%d of %s came with %d orders, expected are %g an order", more, kind, orders, known.perOrder))
		case known.keeping == few && more > someRows:
			faults = append(faults, fmt.Errorf("%d of %s came, whose number does not follow from that of the orders", more, kind))
		case known.keeping == 0:
			faults = append(faults, fmt.Errorf("%d of %s are stored: nothing says how long they are kept (kinds in tests/soak/kept.go, docs/adr/0033)", rows, kind))
		}
	}
	return faults
}
