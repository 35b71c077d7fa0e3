// Package retryable decides whether a failed operation is worth a retry. It is the one place that knows: event handling,
// the state store, publishing, the workflow engine and the REST answers all ask it. It knows no package that fails; an error
// can say itself what it is, by a method Retryable.
package retryable

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Verdict is what is known of an error.
type Verdict int

const (
	// Unknown says that nothing is known: the error may be a mistake in the code, in the data, or anything else.
	Unknown Verdict = iota
	// Yes says that the same operation can succeed later, with nothing changed in it.
	Yes
	// No says that the same operation fails each time.
	No
)

// Marker is an error that says itself whether it is retryable. The outermost one in a chain of errors decides.
type Marker interface {
	error
	Retryable() bool
}

// Is reports whether err is known to be retryable. An error about which nothing is known is not: an event that fails with
// it is dead-lettered after the usual attempts, and a request is answered with 500.
func Is(err error) bool {
	verdict, _ := Decide(err)
	return verdict == Yes
}

// IsPermanent reports whether err is known to fail each time. An adapter asks this when an unknown failure of what it calls
// says nothing about the request.
func IsPermanent(err error) bool {
	verdict, _ := Decide(err)
	return verdict == No
}

// Decide returns the verdict on err and the error in its chain that decided, or Unknown and nil. It reads the chain from the
// outside in, and the branches of a joined error in their order; a Marker decides before a context, gRPC or network error that
// is further outside.
func Decide(err error) (verdict Verdict, because error) {
	walk(err, func(e error) bool {
		marker, ok := e.(Marker) //nolint:errorlint // walk visits every wrapped error
		if !ok {
			return true
		}
		because, verdict = e, No
		if marker.Retryable() {
			verdict = Yes
		}
		return false
	})
	if verdict != Unknown {
		return verdict, because
	}
	walk(err, func(e error) bool {
		if verdict = known(e); verdict != Unknown {
			because = e
		}
		return verdict == Unknown
	})
	return verdict, because
}

// walk calls visit for err and every error that it wraps, outermost first, until visit returns false.
func walk(err error, visit func(error) bool) bool {
	if err == nil {
		return true
	}
	if !visit(err) {
		return false
	}
	switch e := err.(type) { //nolint:errorlint // this walks the chain itself
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walk(inner, visit) {
				return false
			}
		}
	}
	return true
}

// known judges one error by its own value or type, not by what it wraps.
func known(err error) Verdict {
	switch err { //nolint:errorlint // walk visits every wrapped error
	case context.Canceled, context.DeadlineExceeded, net.ErrClosed, io.ErrClosedPipe,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		return Yes
	}
	switch e := err.(type) { //nolint:errorlint // walk visits every wrapped error
	case *net.OpError, *net.DNSError:
		return Yes
	case *url.Error:
		// The server closed the connection without an answer.
		if errors.Is(e.Err, io.EOF) || errors.Is(e.Err, io.ErrUnexpectedEOF) || e.Timeout() {
			return Yes
		}
	case interface{ GRPCStatus() *status.Status }:
		return ofStatus(e.GRPCStatus())
	case net.Error:
		if e.Timeout() {
			return Yes
		}
	}
	if tooLarge(err.Error()) && !wraps(err) {
		return No
	}
	return Unknown
}

func wraps(err error) bool {
	switch err.(type) { //nolint:errorlint // only whether there is something inside
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		return true
	default:
		return false
	}
}

// ofStatus judges a gRPC answer, of a sidecar or of another server.
func ofStatus(s *status.Status) Verdict {
	switch s.Code() {
	case codes.OK:
		return Unknown
	case codes.ResourceExhausted:
		// gRPC uses one code for an overloaded server and for a message above its limit.
		if tooLarge(s.Message()) {
			return No
		}
		return Yes
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		return Yes
	case codes.Unauthenticated, codes.FailedPrecondition:
		// A wrong API token, or a component that is not configured: every request fails until the configuration is right, so
		// this says nothing about the request.
		return Yes
	case codes.InvalidArgument:
		// Dapr uses one code for a faulty request and for a component that it does not have (yet).
		if strings.HasSuffix(s.Message(), "is not found") {
			return Yes
		}
		return No
	case codes.PermissionDenied, codes.Unimplemented, codes.OutOfRange:
		return No
	default:
		if tooLarge(s.Message()) {
			return No
		}
		return Unknown
	}
}

// tooLarge recognises the texts by which gRPC, Kafka clients and Kafka brokers, Event Hubs and Service Bus refuse a message for
// its size. A sidecar passes them on as Internal.
func tooLarge(text string) bool {
	for _, known := range []string{
		"message larger than max", "after decompression larger than max", // gRPC
		"message larger than configured Producer.MaxMessageBytes", "Message was too large", "MESSAGE_TOO_LARGE", // Kafka
		"message-size-exceeded", // AMQP
	} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}

// New returns a base error, such as "the state store is unavailable", that is retryable wherever it is wrapped.
func New(text string) error { return &marked{errors.New(text), true} }

// NewPermanent returns a base error, such as "the state store cannot keep this", that is not.
func NewPermanent(text string) error { return &marked{errors.New(text), false} }

// Mark returns err, now retryable, with its text and its chain. Nil stays nil.
func Mark(err error) error { return mark(err, true) }

// Permanent returns err, now not retryable, with its text and its chain. Nil stays nil.
func Permanent(err error) error { return mark(err, false) }

func mark(err error, retryable bool) error {
	if err == nil {
		return nil
	}
	return &marked{err, retryable}
}

// marked is an error with a verdict. It is compared by its address, so each base error is itself alone.
type marked struct {
	error

	retryable bool
}

// Retryable makes it a Marker.
func (m *marked) Retryable() bool { return m.retryable }

func (m *marked) Unwrap() error { return m.error }
