package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/health"
	"waybill/platform/retryable"
)

// Dapr is a Store on a Dapr state store component.
type Dapr struct {
	client    dapr.Client
	component string
	writes    *health.Probe
	failures  metric.Int64Counter
}

// NewDapr returns the Store of the named component.
func NewDapr(client dapr.Client, component string) *Dapr {
	s := &Dapr{client: client, component: component}
	s.writes = health.NewProbe(s.tryWrite)
	var err error
	if s.failures, err = otel.Meter("waybill/platform/state").Int64Counter("waybill.state.failures",
		metric.WithDescription("Calls of the state store that failed, by operation (read, write) and cause (disk_full, read_only, disk_error, timeout, unreachable, other).")); err != nil {
		otel.Handle(err) // the counter does nothing then
	}
	return s
}

// bulkParallelism is how many keys of one GetMany the sidecar reads concurrently if its store has no bulk get.
const bulkParallelism = 16

// firstWrite makes a write without an ETag create-only and one with an ETag conditional.
var firstWrite = dapr.StateOptions{Concurrency: dapr.StateConcurrencyFirstWrite, Consistency: dapr.StateConsistencyStrong}

// Get treats a response without a value as a missing document: Dapr does not distinguish them.
func (s *Dapr) Get(ctx context.Context, key string, doc any) (ETag, error) {
	if err := checkKey("read", key); err != nil {
		return "", err
	}
	item, err := s.client.GetState(ctx, s.component, key, nil)
	if err != nil {
		return "", s.failed(ctx, "read", key, err)
	}
	if len(item.Value) == 0 {
		return "", fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	if err := Decode(key, item.Value, doc); err != nil {
		return "", err
	}
	return ETag(item.Etag), nil
}

// GetMany sends one request to the sidecar. It fails if one of the documents could not be read.
func (s *Dapr) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	docs := make(map[string][]byte, len(keys))
	if len(keys) == 0 {
		return docs, nil
	}
	for _, key := range keys {
		if err := checkKey("read", key); err != nil {
			return nil, err
		}
	}
	items, err := s.client.GetBulkState(ctx, s.component, keys, nil, bulkParallelism)
	if err != nil {
		return nil, s.failed(ctx, "read", strconv.Itoa(len(keys))+" documents", err)
	}
	for _, item := range items {
		if item.Error != "" {
			return nil, fmt.Errorf("read %s: %s: %w", item.Key, item.Error, ErrUnavailable)
		}
		if len(item.Value) > 0 {
			docs[item.Key] = item.Value
		}
	}
	return docs, nil
}

// Create saves without an ETag. With first-write, that succeeds only if there is no document.
func (s *Dapr) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return s.save(ctx, "create", key, doc, nil, options)
}

// Replace saves with the ETag. With first-write, that succeeds only if the document still has it.
func (s *Dapr) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	if etag == "" {
		// To Dapr, this would be a write without a condition.
		return fmt.Errorf("replace %s: %w", key, ErrConflict)
	}
	return s.save(ctx, "replace", key, doc, &dapr.ETag{Value: string(etag)}, options)
}

func (s *Dapr) save(ctx context.Context, verb, key string, doc any, etag *dapr.ETag, options []Option) error {
	value, err := encode(verb, key, doc)
	if err != nil {
		return err
	}
	item := &dapr.SetStateItem{Key: key, Value: value, Etag: etag, Options: &firstWrite}
	// The content type makes Cosmos DB store a document instead of base64 text.
	item.Metadata = map[string]string{"contentType": "application/json"}
	if w := applied(options); w.ttl > 0 {
		item.Metadata["ttlInSeconds"] = strconv.FormatInt(w.ttlSeconds(), 10)
	}
	if err := s.client.SaveBulkState(ctx, s.component, item); err != nil {
		err = s.failed(ctx, verb, key, err)
		// Neither a conflict nor a caller that gave up says whether the store accepts writes.
		if errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			s.writes.Used(err)
		}
		return err
	}
	s.writes.Used(nil)
	return nil
}

// Writable returns an error that says why the store does not accept writes, or nil. The result of the service's last write is
// valid for ten seconds; after that, Writable writes a probe document. So on an idle service it writes every ten seconds.
func (s *Dapr) Writable(ctx context.Context) error { return s.writes.Check(ctx) }

// probeKey is the key of the document that tryWrite writes. It is as large as an order, because a full disk may still have room for a
// small document.
const probeKey = "readiness"

var probeValue = []byte(`{"purpose":"readiness","filler":"` + strings.Repeat("-", 8<<10) + `"}`)

// tryWrite writes without a condition, so replicas do not conflict.
func (s *Dapr) tryWrite(ctx context.Context) error {
	item := &dapr.SetStateItem{
		Key: probeKey, Value: probeValue, Options: &dapr.StateOptions{Concurrency: dapr.StateConcurrencyLastWrite},
		Metadata: map[string]string{"contentType": "application/json"},
	}
	if err := s.client.SaveBulkState(ctx, s.component, item); err != nil {
		return s.failed(ctx, "write", probeKey, err)
	}
	return nil
}

// failed wraps the error with what was attempted, and classifies it as ErrConflict, ErrInvalid or ErrUnavailable. An error that says
// nothing about the request counts as ErrUnavailable. For a conflict, Dapr returns Aborted; with some stores it returns another code
// and the text of its ETag error.
func (s *Dapr) failed(ctx context.Context, verb, key string, err error) error {
	switch {
	case status.Code(err) == codes.Aborted, strings.Contains(err.Error(), "possible etag mismatch"), strings.Contains(err.Error(), "invalid etag value"):
		return fmt.Errorf("%s %s: %w", verb, key, ErrConflict)
	case retryable.IsPermanent(err):
		return fmt.Errorf("%s %s: %w: %w", verb, key, ErrInvalid, err)
	default:
		operation := "write"
		if verb == "read" {
			operation = verb
		}
		s.failures.Add(ctx, 1, metric.WithAttributes(attribute.String("operation", operation), attribute.String("cause", health.Cause(err))))
		return fmt.Errorf("%s %s: %w: %w", verb, key, ErrUnavailable, err)
	}
}
