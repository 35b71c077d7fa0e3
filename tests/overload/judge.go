package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/tests/internal/figures"
)

// result is what one shape did.
type result struct {
	shape    shape
	capacity float64 // orders fulfilled a second, with as many in flight as the system likes
	// leftBefore and left are the shares of the machine that other processes left while the capacity was measured and during the
	// burst.
	leftBefore, left float64
	rate             float64 // orders offered a second in the burst
	burst            time.Duration
	least            float64 // the share of the capacity under which goodput must not fall

	offered, held int // orders of the burst, and those that were due while every client waited for an answer
	accepted      int // of those
	refused       map[string]int
	unhinted      int // refusals without Retry-After
	unanswered    map[string]int
	goodput       []float64 // orders fulfilled a second, in every ten seconds of the burst
	ends          counts    // of all orders of the run
	drained       time.Duration

	other        []time.Duration // that orders of another customer took during the burst
	otherRefused int

	before, after  []time.Duration // that a new order took
	recovered      bool
	recoveredAfter time.Duration // since the burst, or since the bus was empty

	processor map[string]float64 // that a process used during the burst, 1 is one processor
	memory    map[string]int64
	restarts  map[string]int
	books     []string
}

const (
	// least is the share of the capacity that the goodput of every ten seconds must reach. A burst of 15 seconds is hardly more
	// than its start, in which the system fills up. Without admission goodput fell to 29 %.
	least, leastQuick = 0.7, 0.5
	// endWithin is the time after the burst in which every accepted order must have ended, plus twice the time of its carrier.
	// Orders that waited on the bus have twice the time that the system needs for them at its capacity.
	endWithin = time.Minute
	// A new order may take 1.5 times as long as before the burst and a little more, because a machine is never the same twice.
	slack, slackFloor = 1.5, 150 * time.Millisecond
)

// The most memory that a process may hold, in bytes.
const (
	sidecarMemory = 600 << 20
	serviceMemory = 150 << 20
)

func memoryBound(process string) int64 {
	switch process {
	case contracts.AppOrders, contracts.AppFulfillment, contracts.AppNotifications, contracts.AppAnalytics, "broker", "inbox":
		return serviceMemory
	default:
		return sidecarMemory // the sidecars, placement and scheduler
	}
}

// judge returns everything that must not happen in a burst and did.
func judge(r result) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for at, rate := range r.goodput {
		if rate < r.least*r.possible() {
			fault("goodput fell to %.1f orders a second in the seconds %d to %d of the burst, %.0f %% of the %.1f that are possible; at least %.0f %% are expected (it was lowest at %.1f)",
				rate, at, at+int(window.Seconds()), 100*rate/r.possible(), r.possible(), 100*r.least, slices.Min(r.goodput))
			break
		}
	}
	if len(r.goodput) == 0 {
		fault("the burst was too short to measure goodput")
	}
	for _, answer := range slices.Sorted(maps.Keys(r.refused)) {
		if !refusal(answer) {
			fault("%d requests were answered with %s; only 202 and 503 are expected", r.refused[answer], answer)
		}
	}
	if r.unhinted > 0 {
		fault("%d refusals had no Retry-After", r.unhinted)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.unanswered)) {
		fault("%d requests: %s", r.unanswered[reason], reason)
	}
	if r.otherRefused > 0 {
		fault("%d orders of a customer who placed one a second were refused because of another customer", r.otherRefused)
	}
	if r.ends.open > 0 {
		fault("%d of %d accepted orders have not ended in time", r.ends.open, r.ends.accepted)
	}
	for _, how := range slices.Sorted(maps.Keys(r.ends.failed)) {
		fault("%d accepted orders ended with %s, and nothing of theirs was wrong", r.ends.failed[how], how)
	}
	switch limit := allowed(r.before); {
	case !r.recovered:
		fault("new orders took longer than %s, which is allowed after %s before the burst, for as long as anybody looked", figures.MS(limit), figures.MS(figures.Quantile(r.before, 0.95)))
	case r.recoveredAfter > recoverWithin:
		fault("new orders took longer than %s until %.0f s after the burst; %s are allowed", figures.MS(limit), r.recoveredAfter.Seconds(), recoverWithin)
	}
	for _, name := range slices.Sorted(maps.Keys(r.memory)) {
		if bound := memoryBound(name); r.memory[name] > bound {
			fault("%s held %d MiB; at most %d are allowed", name, r.memory[name]>>20, bound>>20)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.restarts)) {
		if r.restarts[name] > 0 {
			fault("%s was restarted %d times", name, r.restarts[name])
		}
	}
	return append(faults, r.books...)
}

// possible is the capacity less what other processes used of the machine during the burst and not while the capacity was
// measured.
func (r result) possible() float64 {
	if r.leftBefore == 0 {
		return r.capacity
	}
	return r.capacity * min(1, r.left/r.leftBefore)
}

// refusal reports whether an answer is one that a client of an overloaded system can act on.
func refusal(answer string) bool { return len(answer) > 4 && answer[:4] == "503 " }

// allowed is how long a new order may take after a burst.
func allowed(before []time.Duration) time.Duration {
	return time.Duration(slack*float64(figures.Quantile(before, 0.95))) + slackFloor
}

// recovered is the index of the first of n new orders in a row that took no longer than the limit, or -1.
func recovered(all []*trial, limit time.Duration) int {
	good := 0
	for at, t := range all {
		if t.done && t.err == nil && t.took <= limit {
			if good++; good == probes {
				return at - probes + 1
			}
			continue
		}
		good = 0
	}
	return -1
}

// goodput is the number of orders that ended in each second, averaged over ten seconds, between from and to.
func goodput(ends []time.Duration, from, to time.Duration) (rates []float64) {
	for start := from; start+window <= to; start += time.Second {
		n := 0
		for _, at := range ends {
			if at >= start && at < start+window {
				n++
			}
		}
		rates = append(rates, float64(n)/window.Seconds())
	}
	return rates
}

func mean(of []float64) float64 {
	total := 0.0
	for _, one := range of {
		total += one
	}
	return total / float64(max(1, len(of)))
}
