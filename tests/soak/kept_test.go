package main

import (
	"strings"
	"testing"
	"time"

	"waybill/tests/internal/stored"
)

func TestLeft(t *testing.T) {
	t.Parallel()
	begin := map[string]stored.Records{"fulfillment.statestore/stock": {Rows: 10}}
	for name, test := range map[string]struct {
		kind string
		rows int64
		want string
	}{
		"nothing of what goes":               {kind: "orders.statestore/order"},
		"an order":                           {kind: "orders.statestore/order", rows: 1, want: "not removed"},
		"a job":                              {kind: stored.Jobs, rows: 1, want: "not removed"},
		"a journal's entry of each order":    {kind: "fulfillment.statestore/saga", rows: 1000},
		"two of each order":                  {kind: "fulfillment.statestore/saga", rows: 2000, want: "expected are 1 an order"},
		"customers":                          {kind: "orders.statestore/customer", rows: 200},
		"as many customers as orders":        {kind: "orders.statestore/customer", rows: 1000, want: "does not follow"},
		"what was there":                     {kind: "fulfillment.statestore/stock", rows: 10},
		"something that nobody thought of":   {kind: "orders.statestore/invoice", rows: 1, want: "nothing says how long"},
		"a dead letter, which must not come": {kind: "orders.statestore/deadletter", rows: 1, want: "nothing says how long"},
	} {
		faults := left(begin, map[string]stored.Records{test.kind: {Rows: test.rows}}, 1000)
		if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0].Error(), test.want)) {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

func TestPlateau(t *testing.T) {
	t.Parallel()
	const length, window = 12 * time.Minute, 3 * time.Minute
	looks := func(rows, bytes func(second int64) int64) (all []look) {
		for at := time.Duration(0); at < length; at += 18 * time.Second {
			second := int64(at / time.Second)
			all = append(all, look{at, map[string]stored.Records{stored.Jobs: {Rows: rows(second)}}, map[string]int64{"broker": bytes(second)}})
		}
		return all
	}
	const minute = 60
	flat := func(int64) int64 { return 100 << 20 }
	for name, test := range map[string]struct {
		rows, bytes func(int64) int64
		want        int
	}{
		"rows of the last minute":     {rows: func(n int64) int64 { return 9 * min(n, minute) }, bytes: flat},
		"a cleanup every ten seconds": {rows: func(n int64) int64 { return 20000 + 9*25*(n%10) }, bytes: flat},
		"rows that stay":              {rows: func(n int64) int64 { return 9 * n }, bytes: flat, want: 1},
		"disk that grows":             {rows: flat, bytes: func(n int64) int64 { return n << 20 }, want: 1},
		"a file that is filled":       {rows: flat, bytes: func(n int64) int64 { return min(n, 5*minute) << 20 }},
	} {
		if got := plateau(looks(test.rows, test.bytes), length, window); len(got) != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if len(plateau(nil, length, window)) == 0 {
		t.Error("a run without looks is fine")
	}
}

func TestRetentionsFitIntoAWindow(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{time.Minute, 4 * time.Minute, 12 * time.Minute, 20 * time.Minute, time.Hour} {
		p := planFor(length, 9, 90)
		r := p.retentions
		if r.cleanup < 2*time.Second || r.ended%time.Second != 0 || p.judgesStores() && r.ended+r.address+2*r.cleanup > p.window {
			t.Errorf("%s have windows of %s and %+v", length, p.window, r)
		}
	}
}
