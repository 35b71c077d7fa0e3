// Package sidecar connects a service to its Dapr sidecar.
package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Config is where a sidecar listens, by the names that Dapr itself gives these variables.
type Config struct {
	Host     string `env:"DAPR_HOST" envDefault:"127.0.0.1"`
	GRPCPort Port   `env:"DAPR_GRPC_PORT" envDefault:"50001"`
	HTTPPort Port   `env:"DAPR_HTTP_PORT" envDefault:"3500"`
	// APIToken goes with every call to the sidecar when it is set.
	APIToken Secret `env:"DAPR_API_TOKEN"`
}

// Port is a port that somebody listens on.
type Port int

// UnmarshalText reads a port.
func (p *Port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return errors.New("the sidecar's port is a number from 1 to 65535")
	}
	*p = Port(n)
	return nil
}

// Secret is a value that prints as ***.
type Secret string

func (Secret) String() string { return "***" }

// GoString covers %#v, which does not ask String.
func (Secret) GoString() string { return "***" }

// MarshalText covers JSON and structured logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// maxReconnectDelay bounds how long a service goes on believing that a restarted sidecar is away.
const maxReconnectDelay = time.Second

// maxAnswer bounds one answer of the sidecar, in bytes. gRPC's own 4 MiB are too few for a read of many documents.
const maxAnswer = 64 << 20

// Sidecar is a connection to a Dapr sidecar. It may be used by many goroutines.
type Sidecar struct {
	// Conn is the gRPC connection itself, for the workflow client.
	Conn *grpc.ClientConn
	// Client is Dapr's own client on Conn.
	Client dapr.Client
	api    string
	token  Secret
	http   http.Client
}

// Dial prepares the connection and returns at once: the sidecar may come up later, go away and come back. Trace context
// goes with every call.
func Dial(c Config) (*Sidecar, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: maxReconnectDelay,
		}),
	}
	if c.APIToken != "" {
		options = append(options, grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(withToken(ctx, c.APIToken), method, req, reply, cc, opts...)
		}), grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(withToken(ctx, c.APIToken), desc, cc, method, opts...)
		}))
	}
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(c.Host, strconv.Itoa(int(c.GRPCPort))), options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the sidecar: %w", err)
	}
	return &Sidecar{
		Conn:   conn,
		Client: dapr.NewClientWithConnection(conn),
		api:    "http://" + net.JoinHostPort(c.Host, strconv.Itoa(int(c.HTTPPort))) + "/v1.0",
		token:  c.APIToken,
		http:   http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}, // no proxy stands between a service and its sidecar
	}, nil
}

func withToken(ctx context.Context, token Secret) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "dapr-api-token", string(token))
}

// Healthy reports, as an error, whether the sidecar's own APIs (state, publishing) can be used. It does not ask whether
// the sidecar sees this app as healthy, for then each would wait for the other.
func (s *Sidecar) Healthy(ctx context.Context) error {
	resp, err := s.get(ctx, "/healthz/outbound")
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("ask the sidecar for its health: %w", err)
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the sidecar is not ready: %s", resp.Status)
	}
	return nil
}

// ConnectedWorkers is how many workflow workers the sidecar's engine works with.
func (s *Sidecar) ConnectedWorkers(ctx context.Context) (workers int, err error) {
	resp, err := s.get(ctx, "/metadata")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("ask the sidecar for its metadata: %s", resp.Status)
	}
	var metadata struct {
		Workflows struct {
			ConnectedWorkers int `json:"connectedWorkers"`
		} `json:"workflows"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil {
		return 0, fmt.Errorf("ask the sidecar for its metadata: %w", err)
	}
	return metadata.Workflows.ConnectedWorkers, nil
}

// Shutdown makes the sidecar end, for whoever started it to start it again.
func (s *Sidecar) Shutdown(ctx context.Context) error {
	return s.Client.Shutdown(ctx)
}

// get asks the sidecar's HTTP API, which leaves no span behind: what asks there asks all the time.
func (s *Sidecar) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.api+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the sidecar: %w", err)
	}
	if s.token != "" {
		req.Header.Set("Dapr-Api-Token", string(s.token))
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the sidecar does not answer: %w", err)
	}
	return resp, nil
}

// WaitHealthy returns when the sidecar is healthy or ctx ends.
func (s *Sidecar) WaitHealthy(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the sidecar: %w", err)
		case <-tick.C:
		}
	}
}

const (
	// quiet is how long a wait for the sidecar needs no word, speakAgain when the next one follows.
	quiet      = 3 * time.Second
	speakAgain = 30 * time.Second
)

// LogWait waits until the sidecar is healthy or ctx ends, and logs that it waits when it takes more than three seconds.
func (s *Sidecar) LogWait(ctx context.Context, logger *slog.Logger) {
	begun := time.Now()
	for speak := quiet; ; speak = speakAgain {
		patience, cancel := context.WithTimeout(ctx, speak)
		err := s.WaitHealthy(patience)
		cancel()
		waited := time.Since(begun).Round(time.Second)
		switch {
		case err == nil && waited >= quiet:
			logger.InfoContext(ctx, "the sidecar is there", slog.Duration("waited", waited))
			return
		case err == nil, ctx.Err() != nil:
			return
		}
		logger.WarnContext(ctx, "waiting for the sidecar; the service is not ready until it is there, however long that takes",
			slog.Duration("waited", waited), slog.String("sidecar", s.api), slog.Any("error", err))
	}
}

// Close ends the connection.
func (s *Sidecar) Close() error {
	s.http.CloseIdleConnections()
	return s.Conn.Close()
}
