package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
)

// BenchmarkAppend stores batches of new events with random ids, as clients make them, into a file that grows.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1_000, 5_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "analytics.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			random := rand.New(rand.NewPCG(1, 2))
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			events := make([]store.Event, size)
			n := 0
			for b.Loop() {
				for i := range events {
					n++
					now = now.Add(time.Millisecond)
					events[i] = store.Event{
						ID: fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()), Type: contracts.TypeProductViewed,
						Timestamp: now, ProcessedAt: now, UserID: fmt.Sprintf("CUST-%03d", n%500), SessionID: fmt.Sprintf("S-%d", n/20),
						ProductID: fmt.Sprintf("PROD-%03d", n%300), Value: 1, Properties: []byte(`{"page":"home","position":3}`),
					}
				}
				if _, err := s.Append(b.Context(), events); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
