package pipeline_test

import (
	"flag"
	"runtime"
	"runtime/debug"
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

// delivery is how many events come together, as usual under load.
const delivery = 500

// moreTexts makes the texts of the stream's next events as they come: parts of the text of a batch that has just been read.
func moreTexts(texts []string, next *int) {
	batch := make([]byte, 0, 512*len(texts))
	ends := make([]int, len(texts))
	for i := range ends {
		batch = appendEvent(batch, *next, busy)
		ends[i] = len(batch)
		*next++
	}
	whole, from := string(batch), 0
	for i, to := range ends {
		texts[i], from = whole[from:to], to
	}
}

func decodeAll(tb testing.TB, texts []string, events []event.Event) {
	tb.Helper()
	for i, text := range texts {
		var err error
		if events[i], err = event.Decode(text, event.Rules{Source: event.SourceClients}); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkPipeline measures the whole way of an event without I/O: decode its JSON, check it, drop duplicates, windows,
// detectors. The batch around it is read by platform/eventing, which has a benchmark of its own.
func BenchmarkPipeline(b *testing.B) { benchmark(b, true) }

// BenchmarkAdd measures the same without decoding.
func BenchmarkAdd(b *testing.B) { benchmark(b, false) }

func benchmark(b *testing.B, decoding bool) {
	b.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the services are run
	p := newPipeline(b, pipeline.DefaultConfig())
	var found []anomaly.Anomaly
	texts, events := make([]string, 20*delivery), make([]event.Event, 20*delivery)
	next := 0
	for next < warm {
		moreTexts(texts, &next)
		decodeAll(b, texts, events)
		found = p.AddAll(events, found[:0])
	}
	var watch stopwatch
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(texts) {
		b.StopTimer()
		moreTexts(texts, &next)
		if !decoding {
			decodeAll(b, texts, events)
		}
		b.StartTimer()
		watch.start()
		for from := 0; from < min(left, len(texts)); from += delivery {
			to := min(from+delivery, left)
			if decoding {
				decodeAll(b, texts[from:to], events[:to-from])
				found = p.AddAll(events[:to-from], found[:0])
			} else {
				found = p.AddAll(events[from:to], found[:0])
			}
		}
		watch.stop()
	}
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
		e, err := event.Decode(buf, event.Rules{Source: event.SourceClients})
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
