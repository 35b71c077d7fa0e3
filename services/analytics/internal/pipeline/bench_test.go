package pipeline_test

import (
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/pipeline"
)

// appendEvent writes the JSON of the i-th event of an endless stream: 10,000 events a second of event time in the mix
// 80/15/5, over 10,000 products, ten to a session.
func appendEvent(b []byte, i int) []byte {
	b = append(b, `{"event_id":"EVT-`...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, `","user_id":"CUST-123","session_id":"SESSION-`...)
	b = strconv.AppendInt(b, int64(i/10), 10)
	b = append(b, `","timestamp":"`...)
	b = nine.Add(time.Duration(i)*100*time.Microsecond).AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","properties":{"device":"desktop","source":"search"}`...)
	kind := i * 37 % 100
	if kind >= 95 {
		return append(b, `,"event_type":"analytics.recommendation_generated","algorithm":"knn","confidence_scores":[0.91,0.83,0.62]}`...)
	}
	b = append(b, `,"product_id":"PROD-`...)
	b = strconv.AppendInt(b, int64(i)*7919%10_007%10_000, 10)
	if kind < 80 {
		return append(b, `","event_type":"analytics.product_viewed"}`...)
	}
	b = append(b, `","event_type":"analytics.product_purchased","value":`...)
	b = strconv.AppendInt(b, int64(10+i%500), 10)
	return append(b, `.99}`...)
}

// warm is how many events fill every table before anything is measured.
const warm = 200_000

// stopwatch counts the processor time of this process, garbage collection included: on a machine that does other things too
// it says more than the time on the wall.
type stopwatch struct{ total, begun time.Duration }

func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (s *stopwatch) start() { s.begun = processorTime() }
func (s *stopwatch) stop()  { s.total += processorTime() - s.begun }

func (s *stopwatch) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(b.N)/s.total.Seconds(), "events/cpu-s")
}

// BenchmarkPipeline measures the whole way of an event without I/O: decode, check, drop duplicates, windows, detectors.
func BenchmarkPipeline(b *testing.B) {
	p := newPipeline(b, pipeline.DefaultConfig())
	var found []anomaly.Anomaly
	next := 0
	one := func(text []byte) {
		e, err := event.Decode(text, event.Rules{})
		if err != nil {
			b.Fatal(err)
		}
		_, found = p.Add(&e, found[:0])
	}
	buf := make([]byte, 0, 512)
	for ; next < warm; next++ {
		buf = appendEvent(buf[:0], next)
		one(buf)
	}
	texts := make([][]byte, 50_000)
	var watch stopwatch
	b.ReportAllocs()
	b.ResetTimer()
	watch.start()
	for i := range b.N {
		if i%len(texts) == 0 {
			watch.stop()
			b.StopTimer()
			for j := range texts {
				texts[j] = appendEvent(texts[j][:0], next)
				next++
			}
			b.StartTimer()
			watch.start()
		}
		one(texts[i%len(texts)])
	}
	watch.stop()
	watch.report(b)
}

// BenchmarkAdd measures the same without decoding.
func BenchmarkAdd(b *testing.B) {
	p := newPipeline(b, pipeline.DefaultConfig())
	var found []anomaly.Anomaly
	next := 0
	events := make([]event.Event, 50_000)
	fill := func() {
		for j := range events {
			e, err := event.Decode(appendEvent(nil, next), event.Rules{})
			if err != nil {
				b.Fatal(err)
			}
			events[j] = e
			next++
		}
	}
	for next < warm {
		fill()
		for j := range events {
			_, found = p.Add(&events[j], found[:0])
		}
	}
	var watch stopwatch
	b.ReportAllocs()
	b.ResetTimer()
	watch.start()
	for i := range b.N {
		if i%len(events) == 0 {
			watch.stop()
			b.StopTimer()
			fill()
			b.StartTimer()
			watch.start()
		}
		_, found = p.Add(&events[i%len(events)], found[:0])
	}
	watch.stop()
	watch.report(b)
}

// TestMemoryStaysFlat feeds 10 million events of a million sessions and looks at the heap on the way.
func TestMemoryStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const events, step = 10_000_000, 1_000_000
	config := pipeline.DefaultConfig()
	p := newPipeline(t, config)
	var found []anomaly.Anomaly
	buf := make([]byte, 0, 512)
	var settled uint64
	for i := range events {
		buf = appendEvent(buf[:0], i)
		e, err := event.Decode(buf, event.Rules{})
		if err != nil {
			t.Fatal(err)
		}
		_, found = p.Add(&e, found[:0])
		if i%step == step-1 {
			heap := heapNow()
			t.Logf("after %d million events: %d MiB, %+v", (i+1)/step, heap>>20, p.Stats())
			// The panes of five minutes and of the lateness fill first, those of the hour's minutes as they come.
			if i+1 == 4*step {
				settled = heap
			}
			if settled > 0 && heap > settled+settled/4 {
				t.Fatalf("the heap grew from %d to %d MiB", settled>>20, heap>>20)
			}
		}
	}
	if s := p.Stats(); s.EvictedSessions < 800_000 || s.Views+s.Purchases+s.Recommendations != events {
		t.Errorf("%+v", s)
	}
}

func heapNow() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
