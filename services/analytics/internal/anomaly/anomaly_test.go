package anomaly

import (
	"math/rand/v2"
	"testing"
	"time"

	"waybill/services/analytics/internal/metric"
)

// TestAMinuteThatIsNotCountedHasNoSpike holds a detector that counts the minute only when it may be a spike against one that
// counts it at each view, on views of changing rates of which some come late.
func TestAMinuteThatIsNotCountedHasNoSpike(t *testing.T) {
	t.Parallel()
	const lateness = 2 * time.Minute
	rule := SpikeRule{Floor: 20, WarmUp: 2 * time.Minute}
	spikes, uncounted := 0, 0
	for seed := range uint64(50) {
		dice := rand.New(rand.NewPCG(seed, 1))
		begin := time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)
		now, rate := begin, 1.0
		var views metric.Counter
		var quick, always Spike
		for i := range 3000 {
			if i%100 == 0 {
				rate = []float64{0.1, 0.3, 1, 10}[dice.IntN(4)]
			}
			now = now.Add(time.Duration(dice.ExpFloat64() / rate * float64(time.Second)))
			at := now
			if dice.IntN(5) == 0 {
				at = at.Add(-time.Duration(dice.Int64N(int64(lateness))))
			}
			if at.Before(begin) {
				continue
			}
			views.Add(at, metric.NewHorizon(now, lateness))
			v := View{EventID: "EVT-1", Product: "PROD-001", At: at}
			if quick.room > 0 {
				uncounted++
			}
			always.room = 0
			got, unusual := quick.Add(rule, v, &views, begin)
			want, wanted := always.Add(rule, v, &views, begin)
			if got != want || unusual != wanted {
				t.Fatalf("seed %d, view %d: %v %+v, want %v %+v", seed, i, unusual, got, wanted, want)
			}
			if unusual {
				spikes++
			}
		}
	}
	if spikes < 50 || uncounted < 10_000 {
		t.Errorf("only %d spikes and %d views that were not counted: the test shows nothing", spikes, uncounted)
	}
}
