package eventing

import (
	"context"
	"errors"

	"waybill/platform/retryable"
)

// Handler processes one event. It must be idempotent: an event can arrive again even after it was acknowledged. A nil error
// acknowledges the event. An error made by Reject dead-letters it at once. An error made by Retry has it delivered again until
// it is processed. Retryable decides about any other error: a retryable one is retried without a limit, any other one a few
// times before the event is dead-lettered.
type Handler func(ctx context.Context, e Event) error

// Reject says that the event can never be processed. The error's text becomes the reason of the dead letter.
func Reject(err error) error { return &handlerVerdict{err, false} }

// Retry says that the event must be retried until it is processed, even if err is not retryable by itself.
func Retry(err error) error { return &handlerVerdict{err, true} }

// handlerVerdict is an error with what the handler decided about its event.
type handlerVerdict struct {
	error

	retry bool
}

func (v *handlerVerdict) Unwrap() error { return v.error }

// Retryable makes it a retryable.Marker.
func (v *handlerVerdict) Retryable() bool { return v.retry }

// Rejected reports whether the handler decided by Reject.
func Rejected(err error) bool {
	var v *handlerVerdict
	return errors.As(err, &v) && !v.retry
}

// Retryable reports whether an event whose handler failed with err is retried without a limit. The handler's own decision, by
// Reject or Retry, counts first. Otherwise package retryable decides, as for every error of the platform.
func Retryable(err error) bool {
	if v, ok := errors.AsType[*handlerVerdict](err); ok {
		return v.retry
	}
	return retryable.Is(err)
}
