package admission

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Status is the state of a Gate, for the response of /readyz.
type Status struct {
	// State is open, closed, or starting: the orders that were accepted before are not counted yet. Cause says what closed it. A
	// closed Gate refuses every new order over REST.
	State string `json:"state"`
	Cause Cause  `json:"cause,omitempty"`
	// Open counts the orders in fulfilment, InFlight the slots of requests and deliveries. Limit bounds the sum; 0 is no bound.
	Open     int `json:"open"`
	InFlight int `json:"in_flight"`
	Limit    int `json:"limit"`
	// Waiting counts the orders that wait for a person.
	Waiting      int `json:"waiting"`
	WaitingLimit int `json:"waiting_limit"`
	// OldestAge is the age of the oldest open order.
	OldestAge float64 `json:"oldest_age_seconds"`
	// BusHeld: orders on the bus wait for admission.
	BusHeld bool `json:"bus_held"`
	// Since is when the state last changed.
	Since time.Time `json:"since"`
}

// Status returns the Gate's state.
func (g *Gate) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.scan(now)
	g.judge(now)
	s := Status{
		State: "open", Cause: g.cause(), Open: len(g.open), InFlight: g.inFlight, Limit: g.limits.Open,
		Waiting: len(g.waiting), WaitingLimit: g.limits.Waiting, BusHeld: g.busHeld(now), Since: g.since.UTC().Truncate(time.Millisecond),
	}
	switch s.Cause {
	case "":
	case Starting:
		s.State, s.Cause = string(Starting), ""
	default:
		s.State = "closed"
	}
	if !g.oldest.IsZero() {
		s.OldestAge = now.Sub(g.oldest).Round(100 * time.Millisecond).Seconds()
	}
	return s
}

func (g *Gate) measure(meter metric.Meter) (err error) {
	if g.refusals, err = meter.Int64Counter("waybill.orders.admission.refused",
		metric.WithDescription("Orders that admission refused, by cause: open, age, waiting, customer, starting. Orders from the bus wait there; each check of a delivery counts.")); err != nil {
		return fmt.Errorf("measure admission: %w", err)
	}
	for _, gauge := range []struct {
		name, says string
		of         func(Status) float64
	}{
		{"waybill.orders.admission.open", "Orders in fulfilment.", func(s Status) float64 { return float64(s.Open) }},
		{"waybill.orders.admission.open_limit", "The limit of the orders in fulfilment; 0 means no limit.", func(s Status) float64 { return float64(s.Limit) }},
		{"waybill.orders.admission.in_flight", "Requests and deliveries that have a slot.", func(s Status) float64 { return float64(s.InFlight) }},
		{"waybill.orders.admission.waiting", "Orders that wait for a person.", func(s Status) float64 { return float64(s.Waiting) }},
		{"waybill.orders.admission.oldest_age", "The age of the oldest order in fulfilment, in seconds.", func(s Status) float64 { return s.OldestAge }},
		{"waybill.orders.admission.closed", "1 while every new order over REST is refused, otherwise 0.", func(s Status) float64 {
			if s.State == "open" {
				return 0
			}
			return 1
		}},
	} {
		if _, err = meter.Float64ObservableGauge(gauge.name, metric.WithDescription(gauge.says),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error { o.Observe(gauge.of(g.Status())); return nil })); err != nil {
			return fmt.Errorf("measure admission: %w", err)
		}
	}
	return nil
}

func (g *Gate) count(ctx context.Context, cause Cause) {
	g.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("cause", string(cause))))
}

// rate counts events for each second of the window.
type rate struct {
	began   time.Time
	seconds [window]struct {
		second int64
		n      int
	}
}

func (r *rate) add(now time.Time) {
	second := now.Unix()
	slot := &r.seconds[second%window]
	if slot.second != second {
		slot.second, slot.n = second, 0
	}
	slot.n++
}

// perSecond returns the events per second in the window, or since the beginning if that is shorter.
func (r *rate) perSecond(now time.Time) float64 {
	total := 0
	for _, slot := range r.seconds {
		if now.Unix()-slot.second < window {
			total += slot.n
		}
	}
	return float64(total) / max(1, min(window, now.Sub(r.began).Seconds()))
}
