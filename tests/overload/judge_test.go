package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// good is a burst as it should be.
func good() result {
	before := slices.Repeat([]time.Duration{100 * time.Millisecond}, probes)
	return result{
		least: least,
		shape: allShapes()[0], capacity: 16, rate: 160, burst: 20 * time.Second, offered: 3200, accepted: 400, refused: map[string]int{"503 overloaded": 2800},
		goodput: slices.Repeat([]float64{15}, 11), ends: counts{accepted: 800, fulfilled: 800}, before: before, after: before,
		recovered: true, recoveredAfter: 5 * time.Second,
		memory: map[string]int64{"fulfillment": 100 << 20, "fulfillment-sidecar": 400 << 20}, restarts: map[string]int{"fulfillment": 0},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*result)
		want   string // in the only fault, empty for none
	}{
		"as it should be":                    {func(*result) {}, ""},
		"goodput falls for ten seconds":      {func(r *result) { r.goodput[4] = 11 }, "goodput fell to 11.0 orders a second in the seconds 4 to 14"},
		"goodput falls, but not by so much":  {func(r *result) { r.goodput[4] = 11.3 }, ""},
		"a short burst may fall lower":       {func(r *result) { r.least, r.goodput[4] = leastQuick, 8.1 }, ""},
		"others took a third of the machine": {func(r *result) { r.goodput[4], r.leftBefore, r.left = 8, 0.9, 0.6 }, ""},
		"others took less than before":       {func(r *result) { r.goodput[4], r.leftBefore, r.left = 11, 0.6, 0.9 }, "goodput fell to 11.0"},
		"nothing was measured":               {func(r *result) { r.goodput = nil }, "too short"},
		"another status":                     {func(r *result) { r.refused["500 internal"] = 3 }, "3 requests were answered with 500 internal"},
		"refused without a time":             {func(r *result) { r.unhinted = 2 }, "2 refusals had no Retry-After"},
		"no answer":                          {func(r *result) { r.unanswered = map[string]int{"no answer within 10s": 4} }, "4 requests: no answer"},
		"another customer was refused":       {func(r *result) { r.otherRefused = 2 }, "2 orders of a customer who placed one a second were refused"},
		"an order is open":                   {func(r *result) { r.ends.open = 1 }, "1 of 800 accepted orders have not ended"},
		"an order failed":                    {func(r *result) { r.ends.failed = map[string]int{"Order.FulfillmentFailed reservation_timeout": 7} }, "7 accepted orders ended with Order.FulfillmentFailed reservation_timeout"},
		"new orders stay slow":               {func(r *result) { r.recovered = false }, "for as long as anybody looked"},
		"new orders are slow for too long":   {func(r *result) { r.recoveredAfter = 31 * time.Second }, "until 31 s after the burst"},
		"a service holds too much":           {func(r *result) { r.memory["fulfillment"] = 151 << 20 }, "fulfillment held 151 MiB; at most 150"},
		"a sidecar may hold more":            {func(r *result) { r.memory["fulfillment-sidecar"] = 599 << 20 }, ""},
		"a sidecar holds too much":           {func(r *result) { r.memory["fulfillment-sidecar"] = 601 << 20 }, "fulfillment-sidecar held 601 MiB"},
		"a process was started again":        {func(r *result) { r.restarts["fulfillment"] = 1 }, "fulfillment was restarted 1 times"},
		"the books differ":                   {func(r *result) { r.books = []string{"the stock of PROD-001 is wrong"} }, "the stock of PROD-001"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := good()
			test.change(&r)
			faults := judge(r)
			switch {
			case test.want == "" && len(faults) > 0:
				t.Errorf("faults %q, want none", faults)
			case test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)):
				t.Errorf("faults %q, want one with %q", faults, test.want)
			}
		})
	}
}

func TestGoodputIsAnAverageOfTenSeconds(t *testing.T) {
	t.Parallel()
	var ends []time.Duration
	for at := 100 * time.Second; at < 112*time.Second; at += time.Second / 4 {
		if at < 105*time.Second || at >= 108*time.Second { // nothing for three seconds
			ends = append(ends, at)
		}
	}
	if diff := cmp.Diff([]float64{2.8, 2.8, 2.8}, goodput(ends, 100*time.Second, 112*time.Second)); diff != "" {
		t.Error(diff)
	}
	if got := goodput(ends, 100*time.Second, 109*time.Second); got != nil {
		t.Errorf("nine seconds have the goodput %v", got)
	}
}

func TestASystemHasRecoveredWithTheFirstOfManyQuickOrders(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	quick, slow := &trial{took: 200 * time.Millisecond, done: true}, &trial{took: time.Second, done: true}
	row := slices.Repeat([]*trial{quick}, probes)
	for name, test := range map[string]struct {
		all  []*trial
		want int
	}{
		"none":                   {nil, -1},
		"too few":                {row[1:], -1},
		"at once":                {row, 0},
		"later":                  {append([]*trial{slow, slow}, row...), 2},
		"one slow among them":    {slices.Concat(row[5:], []*trial{slow}, row), probes - 5 + 1},
		"one that has not ended": {append(slices.Clone(row[1:]), &trial{}), -1},
		"one that failed":        {append(slices.Clone(row[1:]), &trial{done: true, err: errors.New("lost")}), -1},
	} {
		if got := recovered(test.all, limit); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
