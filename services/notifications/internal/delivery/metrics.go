package delivery

import (
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

const instrumentation = "waybill/services/notifications"

type metrics struct {
	attempts, outcomes, waits, resends metric.Int64Counter
}

func newMetrics() (m metrics, err error) {
	meter := otel.Meter(instrumentation)
	count := func(counter *metric.Int64Counter, name, description string) {
		c, failed := meter.Int64Counter(name, metric.WithDescription(description))
		*counter, err = c, errors.Join(err, failed)
	}
	count(&m.attempts, "waybill.notifications.attempts", "Calls of a channel, by channel and result: accepted, refused, failed.")
	count(&m.outcomes, "waybill.notifications.outcomes", "Messages with an outcome, by channel, outcome and code.")
	count(&m.waits, "waybill.notifications.waits", "Messages that began to wait for an address, by channel.")
	count(&m.resends, "waybill.notifications.resends", "Messages that operators sent again, by channel.")
	return m, err
}
