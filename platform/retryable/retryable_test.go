package retryable_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/retryable"
)

var (
	errAway    = retryable.New("the store is unavailable")
	errRefused = retryable.NewPermanent("the store cannot keep this")
	errPlain   = errors.New("odd")
)

func TestDecide(t *testing.T) {
	t.Parallel()
	const yes, no, unknown = retryable.Yes, retryable.No, retryable.Unknown
	for name, c := range map[string]struct {
		err  error
		want retryable.Verdict
	}{
		"no error":         {nil, unknown},
		"a plain error":    {errPlain, unknown},
		"a document":       {json.Unmarshal([]byte("{"), &struct{}{}), unknown},
		"canceled":         {context.Canceled, yes},
		"deadline":         {fmt.Errorf("ask: %w", context.DeadlineExceeded), yes},
		"base error":       {fmt.Errorf("read: %w: %w", errAway, errPlain), yes},
		"permanent":        {fmt.Errorf("write: %w", errRefused), no},
		"joined":           {errors.Join(errPlain, errAway), yes},
		"outermost marker": {fmt.Errorf("a: %w", retryable.Permanent(fmt.Errorf("b: %w", errAway))), no},
		"marked again":     {retryable.Mark(errRefused), yes},
		"the first branch": {fmt.Errorf("%w: %w", errRefused, errAway), no},
		// What a package says of its error counts more than the code that it got.
		"marker within a status's wrapper": {fmt.Errorf("%w: %w", status.Error(codes.Unavailable, "away"), errRefused), no},
		"dial":                             {&net.OpError{Op: "dial", Err: errPlain}, yes},
		"name":                             {&url.Error{Op: "Get", URL: "http://x", Err: &net.DNSError{Err: "no such host"}}, yes},
		"reset":                            {fmt.Errorf("read: %w", syscall.ECONNRESET), yes},
		"closed without an answer":         {&url.Error{Op: "Post", URL: "http://x", Err: io.EOF}, yes},
		"a wrong URL":                      {&url.Error{Op: "Get", URL: "x://", Err: errPlain}, unknown},
		"end of a document":                {io.ErrUnexpectedEOF, unknown},

		"unavailable":       {status.Error(codes.Unavailable, "connection refused"), yes},
		"grpc deadline":     {fmt.Errorf("call: %w", status.Error(codes.DeadlineExceeded, "")), yes},
		"grpc canceled":     {status.Error(codes.Canceled, ""), yes},
		"aborted":           {status.Error(codes.Aborted, "etag mismatch"), yes},
		"overload":          {status.Error(codes.ResourceExhausted, "too many requests"), yes},
		"unauthenticated":   {status.Error(codes.Unauthenticated, "token"), yes},
		"not configured":    {status.Error(codes.FailedPrecondition, "pubsub is not configured"), yes},
		"unknown component": {status.Error(codes.InvalidArgument, "pubsub orderbus is not found"), yes},
		"unknown store":     {status.Error(codes.InvalidArgument, "state store statestore is not found"), yes},
		"invalid":           {status.Error(codes.InvalidArgument, "topic is empty in pubsub orderbus"), no},
		"denied":            {status.Error(codes.PermissionDenied, "topic orders is not allowed for app id a"), no},
		"unimplemented":     {status.Error(codes.Unimplemented, ""), no},
		"internal":          {status.Error(codes.Internal, "failed saving state"), unknown},
		"grpc unknown":      {status.Error(codes.Unknown, ""), unknown},

		"sent too large":     {status.Error(codes.ResourceExhausted, "trying to send message larger than max (5 vs. 4)"), no},
		"received too large": {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), no},
		"unpacked too large": {status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 4"), no},
		"producer's limit": {status.Error(codes.Internal, "error when publishing to topic orders in pubsub orderbus: kafka: invalid configuration "+
			"(Attempt to produce message larger than configured Producer.MaxMessageBytes: 2 > 1)"), no},
		"broker's limit": {status.Error(codes.Internal, "error when publishing to topic orders in pubsub orderbus: kafka server: "+
			"Message was too large, server rejected it to avoid allocation error"), no},
		"a broker's limit in bulk": {fmt.Errorf("publish: %w", errors.New("kafka server: Message was too large, server rejected it to avoid allocation error")), no},
	} {
		got, because := retryable.Decide(c.err)
		if got != c.want || retryable.Is(c.err) != (c.want == yes) || retryable.IsPermanent(c.err) != (c.want == no) {
			t.Errorf("%s: %v is %v, want %v", name, c.err, got, c.want)
		}
		if (because == nil) != (got == unknown) || because != nil && !errors.Is(c.err, because) {
			t.Errorf("%s: decided by %v", name, because)
		}
	}
}

// TestRealNetwork checks the errors of a real client, whose types are not part of its documentation.
func TestRealNetwork(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}))
	get := func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			err = errors.Join(response.Body.Close(), errors.New("it answered"))
		}
		return err
	}
	if err := get(t.Context()); !retryable.Is(err) {
		t.Errorf("closed without an answer: %v is not retryable", err)
	}
	server.Close()
	if err := get(t.Context()); !retryable.Is(err) {
		t.Errorf("nothing listens: %v is not retryable", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := get(ended); !retryable.Is(err) {
		t.Errorf("given up: %v is not retryable", err)
	}
}

func TestMarksKeepTheError(t *testing.T) {
	t.Parallel()
	for _, mark := range []func(error) error{retryable.Mark, retryable.Permanent} {
		if err := mark(errPlain); !errors.Is(err, errPlain) || err.Error() != errPlain.Error() {
			t.Errorf("marked as %v", err)
		}
		if err := mark(nil); err != nil {
			t.Errorf("nil became %v", err)
		}
	}
	if errors.Is(retryable.New("a"), retryable.New("a")) {
		t.Error("two base errors with one text are the same")
	}
}
