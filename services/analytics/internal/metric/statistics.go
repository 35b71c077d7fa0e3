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
	// StdDev is the standard deviation of all the values, not an estimate from a sample.
	StdDev   float64
	Min, Max float64
	P95, P99 float64
}

// constant describes n values that are all alike.
func constant(n int64, sum, value float64) Statistics {
	return Statistics{Count: n, Sum: sum, Mean: value, Median: value, Min: value, Max: value, P95: value, P99: value}
}

// Rate describes how many of n are part, as one number of the whole window: its mean is part divided by n, and so are the
// quantiles; ok is false when n is 0.
func Rate(part, n int64) (rate Statistics, ok bool) {
	if n == 0 {
		return Statistics{}, false
	}
	return constant(n, float64(part), float64(part)/float64(n)), true
}
