package main

import (
	"testing"
	"time"
)

const mebibyte = 1 << 20

// series is one sample a second of a run of twenty minutes.
func series(of func(second int) int64) []sample {
	all := make([]sample, 0, 1200)
	for n := range 1200 {
		all = append(all, sample{at: time.Duration(n) * time.Second, rss: of(n)})
	}
	return all
}

func TestMemory(t *testing.T) {
	t.Parallel()
	// A garbage collection every 20 seconds lets memory rise by half and fall again.
	saw := func(base int64) func(int) int64 {
		return func(n int) int64 { return base + base/2*int64(n%20)/20 }
	}
	tests := map[string]struct {
		of    func(second int) int64
		grows bool
	}{
		"flat":                                 {of: func(int) int64 { return 200 * mebibyte }},
		"flat with garbage":                    {of: saw(200 * mebibyte)},
		"grown in the first five minutes":      {of: func(n int) int64 { return 200*mebibyte + int64(min(n, 300))*mebibyte }},
		"grows by 85 MB a minute":              {of: func(n int) int64 { return 280*mebibyte + int64(n)*85*mebibyte/60 }, grows: true},
		"grows by 85 MB a minute with garbage": {of: func(n int) int64 { return saw(280*mebibyte)(n) + int64(n)*85*mebibyte/60 }, grows: true},
		"grows by a tenth in five minutes":     {of: func(n int) int64 { return 200*mebibyte + int64(n)*21*mebibyte/300 }},
		"grows by a quarter in five minutes":   {of: func(n int) int64 { return 200*mebibyte + int64(n)*85*mebibyte/300 }, grows: true},
		"small, and grows by less than it can": {of: func(n int) int64 { return 15*mebibyte + int64(n)*3*mebibyte/300 }},
		"small, and doubles":                   {of: func(n int) int64 { return 15*mebibyte + int64(n)*15*mebibyte/300 }, grows: true},
		"steps up in the last window":          {of: func(n int) int64 { return 200*mebibyte + int64(n/900)*100*mebibyte }, grows: true},
		"keeps 24 KB of every order":           {of: func(n int) int64 { return 100*mebibyte + int64(n)*9*24<<10 }, grows: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := compare(series(test.of), 20*time.Minute, 5*time.Minute)
			if m.grows() != test.grows {
				t.Errorf("grows is %v, want %v: %s MB, then %s MB, allowed %s MB", m.grows(), test.grows, mb(m.before), mb(m.last), mb(m.allowed))
			}
		})
	}
}

func TestAProcessWithoutSamplesHoldsNothing(t *testing.T) {
	t.Parallel()
	if m := compare(nil, 20*time.Minute, 5*time.Minute); m.grows() || m.last != 0 {
		t.Errorf("got %+v", m)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		first, last time.Duration
		slow        bool
	}{
		{100 * time.Millisecond, 100 * time.Millisecond, false},
		{100 * time.Millisecond, 600 * time.Millisecond, false},
		{100 * time.Millisecond, 800 * time.Millisecond, true},
		{2 * time.Second, 4 * time.Second, false},
		{2 * time.Second, 5 * time.Second, true},
	} {
		if got := tooSlow(test.first, test.last); got != test.slow {
			t.Errorf("from %s to %s: too slow is %v, want %v", test.first, test.last, got, test.slow)
		}
	}
}

func TestShortRunsHaveShortWindowsAndDoNotJudgeMemory(t *testing.T) {
	t.Parallel()
	for length, want := range map[time.Duration]plan{
		20 * time.Minute: {window: 5 * time.Minute, interval: time.Minute},
		40 * time.Minute: {window: 5 * time.Minute, interval: time.Minute},
		12 * time.Minute: {window: 3 * time.Minute, interval: time.Minute},
		2 * time.Minute:  {window: 30 * time.Second, interval: 30 * time.Second},
	} {
		p := planFor(length, 9, 90)
		if p.window != want.window || p.interval != want.interval || p.judgesMemory() != (length >= 12*time.Minute) {
			t.Errorf("%s: windows of %s, intervals of %s, judges memory %v; want %s and %s", length, p.window, p.interval, p.judgesMemory(), want.window, want.interval)
		}
	}
}
