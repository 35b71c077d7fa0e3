package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/retryable"
)

// Dapr is a Store in a Dapr state store component.
type Dapr struct {
	client    dapr.Client
	component string
}

// NewDapr returns the Store of the named component.
func NewDapr(client dapr.Client, component string) *Dapr {
	return &Dapr{client: client, component: component}
}

// bulkParallelism is how many keys of one GetMany the sidecar reads at a time where its store has no bulk get.
const bulkParallelism = 16

// firstWrite makes a write without an ETag create-only and one with an ETag conditional.
var firstWrite = dapr.StateOptions{Concurrency: dapr.StateConcurrencyFirstWrite, Consistency: dapr.StateConsistencyStrong}

// Get takes an answer without a value for a missing document: Dapr has no other way to say it.
func (s *Dapr) Get(ctx context.Context, key string, doc any) (ETag, error) {
	if err := checkKey("read", key); err != nil {
		return "", err
	}
	item, err := s.client.GetState(ctx, s.component, key, nil)
	if err != nil {
		return "", failed("read", key, err)
	}
	if len(item.Value) == 0 {
		return "", fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	if err := json.Unmarshal(item.Value, doc); err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return ETag(item.Etag), nil
}

// GetMany is one request to the sidecar, and fails when one of the documents could not be read.
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
		return nil, failed("read", strconv.Itoa(len(keys))+" documents", err)
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

// Create saves without an ETag, which with first-write means: only when nothing is there.
func (s *Dapr) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return s.save(ctx, "create", key, doc, nil, options)
}

// Replace saves under the ETag, which with first-write is the condition of the write.
func (s *Dapr) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	if etag == "" {
		// Dapr would take it for a write without a condition.
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
		return failed(verb, key, err)
	}
	return nil
}

// Reachable reports, as an error, why the store cannot be read now.
func (s *Dapr) Reachable(ctx context.Context) error {
	var ignored json.RawMessage
	if _, err := s.Get(ctx, "reachable", &ignored); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// failed names what was tried and tells a conflict from a request that the store will never take and from a store that
// cannot be asked, which is also the meaning of an answer that says nothing of the request. Dapr answers a conflict of one key with Aborted, and some stores with the text of its ETag error under
// another code.
func failed(verb, key string, err error) error {
	switch {
	case status.Code(err) == codes.Aborted, strings.Contains(err.Error(), "possible etag mismatch"), strings.Contains(err.Error(), "invalid etag value"):
		return fmt.Errorf("%s %s: %w", verb, key, ErrConflict)
	case retryable.IsPermanent(err):
		return fmt.Errorf("%s %s: %w: %w", verb, key, ErrInvalid, err)
	default:
		return fmt.Errorf("%s %s: %w: %w", verb, key, ErrUnavailable, err)
	}
}
