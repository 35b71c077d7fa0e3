// Package fakedapr is a Dapr sidecar's gRPC API in the test's own process: a state store and a broker that remember what
// they were given, and that fail when the test says so. What it answers follows what daprd 1.18 was seen to answer.
package fakedapr

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Server is the fake. The zero value works.
type Server struct {
	runtimev1.UnimplementedDaprServer

	mu        sync.Mutex
	fail      func(ctx context.Context, call Call) error
	calls     []Call
	published []Published
	docs      map[string]document
	next      int
}

// Call is one request that arrived.
type Call struct {
	// Method is the gRPC method's last part, such as PublishEvent; Target the topic or the state key.
	Method, Target string
	Metadata       metadata.MD
	// Number counts the calls of this method and target from 1.
	Number int
}

// Published is one event that the broker took.
type Published struct {
	Component, Topic, ContentType string
	Metadata                      map[string]string
	Data                          []byte
	// Bulk is the number, from 1, of the bulk request that brought the event, 0 for a single one.
	Bulk int
}

type document struct {
	value   []byte
	etag    string
	expires time.Time
}

// Fail makes every call ask f first; its error is the answer. It may block, as a sidecar that hangs does.
func (s *Server) Fail(f func(ctx context.Context, call Call) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Published is what the broker has taken so far.
func (s *Server) Published() []Published {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Published(nil), s.published...)
}

// Calls are the requests of a method so far, failed ones included.
func (s *Server) Calls(method string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []Call
	for _, call := range s.calls {
		if call.Method == method {
			calls = append(calls, call)
		}
	}
	return calls
}

// Client starts the server, until the test ends, and returns Dapr's client on it.
func (s *Server) Client(t *testing.T) dapr.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := s.GRPC()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // owned: the cleanup below waits for it
	conn, err := grpc.NewClient("passthrough:///fakedapr", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return dapr.NewClientWithConnection(conn)
}

// GRPC is a gRPC server of the fake, for a test that serves it itself.
func (s *Server) GRPC() *grpc.Server {
	server := grpc.NewServer()
	runtimev1.RegisterDaprServer(server, s)
	return server
}

func (s *Server) called(ctx context.Context, method, target string) error {
	s.mu.Lock()
	md, _ := metadata.FromIncomingContext(ctx)
	call := Call{Method: method, Target: target, Metadata: md, Number: 1}
	for _, earlier := range s.calls {
		if earlier.Method == method && earlier.Target == target {
			call.Number++
		}
	}
	s.calls = append(s.calls, call)
	fail := s.fail
	s.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(ctx, call)
}

// PublishEvent remembers the event, unless the test makes it fail.
func (s *Server) PublishEvent(ctx context.Context, r *runtimev1.PublishEventRequest) (*emptypb.Empty, error) {
	if err := s.called(ctx, "PublishEvent", r.GetTopic()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = append(s.published, Published{
		Component: r.GetPubsubName(), Topic: r.GetTopic(), ContentType: r.GetDataContentType(), Metadata: r.GetMetadata(), Data: r.GetData(),
	})
	return &emptypb.Empty{}, nil
}

// BulkPublishEvent remembers the events of one request under one number; all of them arrive or none does.
func (s *Server) BulkPublishEvent(ctx context.Context, r *runtimev1.BulkPublishRequest) (*runtimev1.BulkPublishResponse, error) {
	if err := s.called(ctx, "BulkPublishEvent", r.GetTopic()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bulk := 1
	if n := len(s.published); n > 0 {
		bulk = s.published[n-1].Bulk + 1
	}
	for _, entry := range r.GetEntries() {
		s.published = append(s.published, Published{
			Component: r.GetPubsubName(), Topic: r.GetTopic(), ContentType: entry.GetContentType(), Metadata: entry.GetMetadata(),
			Data: entry.GetEvent(), Bulk: bulk,
		})
	}
	return &runtimev1.BulkPublishResponse{}, nil
}

// GetState answers a missing document with an empty one, as daprd does.
func (s *Server) GetState(ctx context.Context, r *runtimev1.GetStateRequest) (*runtimev1.GetStateResponse, error) {
	if err := s.called(ctx, "GetState", r.GetKey()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.live(r.GetStoreName(), r.GetKey())
	return &runtimev1.GetStateResponse{Data: d.value, Etag: d.etag}, nil
}

// GetBulkState answers every key that was asked for, a missing document with an empty one.
func (s *Server) GetBulkState(ctx context.Context, r *runtimev1.GetBulkStateRequest) (*runtimev1.GetBulkStateResponse, error) {
	if err := s.called(ctx, "GetBulkState", fmt.Sprint(r.GetKeys())); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &runtimev1.GetBulkStateResponse{}
	for _, key := range r.GetKeys() {
		d := s.live(r.GetStoreName(), key)
		resp.Items = append(resp.Items, &runtimev1.BulkStateItem{Key: key, Data: d.value, Etag: d.etag})
	}
	return resp, nil
}

// SaveState answers Aborted when an ETag, or first-write without one, does not fit what is there.
func (s *Server) SaveState(ctx context.Context, r *runtimev1.SaveStateRequest) (*emptypb.Empty, error) {
	for _, item := range r.GetStates() {
		if err := s.called(ctx, "SaveState", item.GetKey()); err != nil {
			return nil, err
		}
		if err := s.save(r.GetStoreName(), item); err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, nil
}

func (s *Server) save(store string, item *commonv1.StateItem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	firstWrite := item.GetOptions().GetConcurrency() == commonv1.StateOptions_CONCURRENCY_FIRST_WRITE
	etag, old := item.GetEtag().GetValue(), s.live(store, item.GetKey())
	if etag != "" && etag != old.etag || etag == "" && firstWrite && old.etag != "" {
		return status.Error(codes.Aborted, "failed saving state: possible etag mismatch")
	}
	s.next++
	d := document{value: item.GetValue(), etag: strconv.Itoa(s.next)}
	if ttl, ok := item.GetMetadata()["ttlInSeconds"]; ok {
		seconds, err := strconv.Atoi(ttl)
		if err != nil {
			return status.Error(codes.Internal, "failed saving state: error parsing TTL")
		}
		d.expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	if s.docs == nil {
		s.docs = map[string]document{}
	}
	s.docs[store+"||"+item.GetKey()] = d
	return nil
}

// live is the document under key, empty when there is none or its time is over; s.mu is held.
func (s *Server) live(store, key string) document {
	d := s.docs[store+"||"+key]
	if !d.expires.IsZero() && !time.Now().Before(d.expires) {
		return document{}
	}
	return d
}
