package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
)

// BenchmarkAppend stores batches of new events with random ids, as clients make them, into a file that grows. rows/s is what
// a clock shows; rows/cpu-s counts only the time that this process had a processor, so it holds on a busy machine.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "analytics.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			batches := batchesOf(size)
			n := 0
			var clock, cpu time.Duration
			for b.Loop() {
				batch := batches()
				began, used := time.Now(), processor(b)
				if _, err := s.Append(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				clock += time.Since(began)
				cpu += processor(b) - used
				n += size
			}
			b.ReportMetric(float64(n)/clock.Seconds(), "rows/s")
			b.ReportMetric(float64(n)/cpu.Seconds(), "rows/cpu-s")
		})
	}
}

func processor(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkTopProducts asks for the best of 300 products among 200,000 events of an hour.
func BenchmarkTopProducts(b *testing.B) {
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "analytics.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	batches := batchesOf(20_000)
	for range 10 {
		if _, err := s.Append(b.Context(), batches()); err != nil {
			b.Fatal(err)
		}
	}
	q := store.TopQuery{From: time.Unix(0, 0), To: time.Now().AddDate(100, 0, 0), By: store.ByViews, Limit: 10}
	for b.Loop() {
		top, err := s.TopProducts(b.Context(), q)
		if err != nil || len(top) != 10 {
			b.Fatal(len(top), err)
		}
	}
}

// batchesOf returns a source of batches of new events.
func batchesOf(size int) func() []store.Event {
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	events := make([]store.Event, size)
	n := 0
	return func() []store.Event {
		for i := range events {
			n++
			now = now.Add(18 * time.Millisecond)
			events[i] = store.Event{
				ID: fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()), Type: contracts.TypeProductViewed,
				Timestamp: now, ProcessedAt: now, UserID: fmt.Sprintf("CUST-%03d", n%500), SessionID: fmt.Sprintf("S-%d", n/20),
				ProductID: fmt.Sprintf("PROD-%03d", n%300), Value: 1, Properties: []byte(`{"page":"home","position":3}`),
			}
		}
		return events
	}
}
