package doctor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// BenchmarkManyOldOrders examines a hundred thousand orders that ended, each with everything that belongs to one, and reports the
// largest memory of this process on Linux. What it needs besides grows by eight bytes for each order.
func BenchmarkManyOldOrders(b *testing.B) {
	const orders = 100_000
	w := healthy(b)
	w.many(orders - 5)
	b.ResetTimer()
	for b.Loop() {
		r, err := Folder(b.Context(), w.folder, Options{Grace: time.Minute, Kept: Kept{Messages: 2160 * time.Hour}})
		if err != nil || !r.Healthy() || r.Counts["orders"] != orders {
			b.Fatalf("%v %+v", err, r)
		}
	}
	b.ReportMetric(float64(peak(b))/1024, "peak-MiB")
}

// peak is the largest resident memory of this process in KiB, 0 where that is not known.
func peak(b *testing.B) (kib int) {
	b.Helper()
	text, _ := os.ReadFile("/proc/self/status") // there is none elsewhere
	for line := range strings.Lines(string(text)) {
		if n, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 && err == nil {
			return kib
		}
	}
	return 0
}
