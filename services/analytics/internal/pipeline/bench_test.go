package pipeline_test

import (
	"flag"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/pipeline"
)

// appendEvent writes the JSON of the i-th event of an endless stream, one after each gap, in the mix 80/15/5, over 10,000
// products, ten to a session.
func appendEvent(b []byte, i int, gap time.Duration) []byte {
	b = append(b, `{"event_id":"EVT-`...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, `","user_id":"CUST-123","session_id":"SESSION-`...)
	b = strconv.AppendInt(b, int64(i/10), 10)
	b = append(b, `","timestamp":"`...)
	b = nine.Add(time.Duration(i)*gap).AppendFormat(b, time.RFC3339Nano)
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

// busy is the gap between two of 10,000 events a second.
const busy = 100 * time.Microsecond

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

// BenchmarkPipeline measures the whole way of an event without I/O: decode its JSON, check it, drop duplicates, windows,
// detectors. The batch around it is read by platform/eventing, which has a benchmark of its own.
func BenchmarkPipeline(b *testing.B) {
	p := newPipeline(b, pipeline.DefaultConfig())
	var found []anomaly.Anomaly
	next := 0
	one := func(text string) {
		e, err := event.Decode(text, event.Rules{})
		if err != nil {
			b.Fatal(err)
		}
		_, found = p.Add(&e, found[:0])
	}
	buf := make([]byte, 0, 512)
	for ; next < warm; next++ {
		buf = appendEvent(buf[:0], next, busy)
		one(string(buf))
	}
	texts := make([]string, 5000) // as they come: parts of the text of a batch that has just been read
	ends := make([]int, len(texts))
	var watch stopwatch
	b.ReportAllocs()
	b.ResetTimer()
	watch.start()
	for i := range b.N {
		if i%len(texts) == 0 {
			watch.stop()
			b.StopTimer()
			buf = buf[:0]
			for j := range ends {
				buf = appendEvent(buf, next, busy)
				ends[j] = len(buf)
				next++
			}
			batch, from := string(buf), 0
			for j, to := range ends {
				texts[j], from = batch[from:to], to
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
			e, err := event.Decode(appendEvent(nil, next, busy), event.Rules{})
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

var millions = flag.Int("millions", 2, "how many million events TestMemoryStaysFlat feeds")

// TestMemoryStaysFlat feeds millions of events, each tenth of a new session, and looks at the heap on the way. They take
// nearly three hours of event time, so that the longest window is full after two fifths of them, and what lanes keep beyond
// it after three.
func TestMemoryStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds for each million events")
	}
	events := *millions * 1_000_000
	gap := 10_000 * time.Second / time.Duration(events)
	p := newPipeline(t, pipeline.DefaultConfig())
	var found []anomaly.Anomaly
	buf := make([]byte, 0, 512)
	var settled uint64
	for i := range events {
		buf = appendEvent(buf[:0], i, gap)
		e, err := event.Decode(buf, event.Rules{})
		if err != nil {
			t.Fatal(err)
		}
		_, found = p.Add(&e, found[:0])
		tenth := (i + 1) * 10 / events
		if (i+1)*10%events != 0 {
			continue
		}
		heap, s := heapNow(), p.Stats()
		t.Logf("after %d events: %d MiB, %d sessions kept, %d evicted", i+1, heap>>20, s.Sessions, s.EvictedSessions)
		if tenth == 6 {
			settled = heap
		}
		if tenth > 6 && heap > settled+settled/10 {
			t.Fatalf("the heap grew from %d to %d MiB", settled>>20, heap>>20)
		}
	}
	s := p.Stats()
	if sessions := uint64(s.Sessions) + s.EvictedSessions; sessions < uint64(events)/10 || s.Views+s.Purchases+s.Recommendations != uint64(events) {
		t.Errorf("%+v", s)
	}
}

func heapNow() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
