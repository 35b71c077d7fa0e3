package metric

import "time"

// Statistics describe one metric in one window. All numbers are finite.
type Statistics struct {
	Name   string
	Window Window
	// From is included in the window, To is not.
	From, To time.Time
	Count    int64
	Sum      float64
	Mean     float64
	Median   float64
	// StdDev is the standard deviation of all values, not an estimate from a sample.
	StdDev   float64
	Min, Max float64
	P95, P99 float64
}

// constant is the statistics of n equal values.
func constant(n int64, sum, value float64) Statistics {
	return Statistics{Count: n, Sum: sum, Mean: value, Median: value, Min: value, Max: value, P95: value, P99: value}
}

// Rate is the share of part in n as statistics of the window: the mean and every quantile are part divided by n; ok is false if n
// is 0.
func Rate(part, n int64) (rate Statistics, ok bool) {
	if n == 0 {
		return Statistics{}, false
	}
	return constant(n, float64(part), float64(part)/float64(n)), true
}
