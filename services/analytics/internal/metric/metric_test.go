package metric_test

import (
	"math"
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"pgregory.net/rapid"

	"waybill/services/analytics/internal/metric"
)

var nine = time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)

func TestWindows(t *testing.T) {
	t.Parallel()
	for _, w := range metric.Windows() {
		if again, err := metric.ParseWindow(w.String()); err != nil || again != w {
			t.Errorf("%s is %s, %v", w, again, err)
		}
		from, to := w.Bounds(nine.Add(7 * time.Second))
		if to.Sub(from) != w.Length() || !to.After(nine.Add(7*time.Second)) || to.Sub(nine.Add(7*time.Second)) > w.Pane() {
			t.Errorf("window %s is from %s to %s", w, from, to)
		}
	}
	if _, err := metric.ParseWindow("1d"); err == nil {
		t.Error("there is a window of a day")
	}
}

// TestAWindowSlides looks at one event from later and later.
func TestAWindowSlides(t *testing.T) {
	t.Parallel()
	var c metric.Counter
	c.Add(nine.Add(2*time.Second), metric.NewHorizon(nine, 0))
	for after, want := range map[time.Duration]int64{-time.Second: 0, 0: 1, 59 * time.Second: 1, 60 * time.Second: 0} {
		if got := c.Count(metric.Minute, nine.Add(after)); got != want {
			t.Errorf("after %s the minute holds %d, want %d", after, got, want)
		}
	}
}

// TestQuantilesAreTheLibrarys holds the sketches kept in panes against the library's own.
func TestQuantilesAreTheLibrarys(t *testing.T) {
	t.Parallel()
	sketch := metric.NewSketch()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 100), rapid.Int64Range(0, 999_999_999_999)), 1, 200).Draw(t, "values")
		library, err := ddsketch.NewDefaultDDSketch(metric.Accuracy)
		if err != nil {
			t.Fatal(err)
		}
		var d metric.Distribution
		least, greatest := values[0], values[0]
		for _, v := range values {
			at := nine.Add(time.Duration(rapid.IntRange(0, 59).Draw(t, "second")) * time.Second)
			d.Add(v, at, metric.NewHorizon(nine, 0), sketch)
			if err := library.Add(float64(v)); err != nil {
				t.Fatal(err)
			}
			least, greatest = min(least, v), max(greatest, v)
		}
		s, ok := d.Statistics(metric.Minute, nine.Add(59*time.Second), 1, sketch)
		if !ok || s.Count != int64(len(values)) {
			t.Fatalf("%+v, %v", s, ok)
		}
		for q, got := range map[float64]float64{0.5: s.Median, 0.95: s.P95, 0.99: s.P99} {
			want, err := library.GetValueAtQuantile(q)
			if err != nil {
				t.Fatal(err)
			}
			if want = min(max(want, float64(least)), float64(greatest)); math.Abs(got-want) > 1e-9*want {
				t.Fatalf("quantile %v is %v, the library says %v", q, got, want)
			}
		}
	})
}
