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

// Config says where a sidecar listens. The variables have the names that Dapr itself uses.
type Config struct {
	// Host, GRPCPort and HTTPPort are the address of the sidecar.
	Host     string `env:"DAPR_HOST" envDefault:"127.0.0.1"`
	GRPCPort Port   `env:"DAPR_GRPC_PORT" envDefault:"50001"`
	HTTPPort Port   `env:"DAPR_HTTP_PORT" envDefault:"3500"`
	// APIToken, if set, is sent with every call to the sidecar.
	APIToken Secret `env:"DAPR_API_TOKEN"`
}

// Port is a port that a process listens on, so not 0.
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

// GoString covers %#v, which does not call String.
func (Secret) GoString() string { return "***" }

// MarshalText covers JSON and structured logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// maxReconnectDelay bounds how long a service needs to reconnect to a restarted sidecar.
const maxReconnectDelay = time.Second

// maxAnswer bounds one answer of the sidecar, in bytes. gRPC's default of 4 MiB is too little for a read of many documents.
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

// Dial prepares the connection and returns at once: the sidecar may start later, and restart. Every call carries its trace
// context.
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
		http:   http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}, // without a proxy
	}, nil
}

func withToken(ctx context.Context, token Secret) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "dapr-api-token", string(token))
}

// Healthy returns an error while the sidecar's own APIs (state, publishing) cannot be used. It does not ask whether the sidecar
// finds this app healthy: then each would wait for the other.
func (s *Sidecar) Healthy(ctx context.Context) error {
	resp, err := s.get(ctx, "/healthz/outbound")
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("ask the sidecar for its health: %w", err)
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("sidecar not ready: it answered %s", resp.Status)
	}
	return nil
}

// ConnectedWorkers returns how many workflow workers are connected to the sidecar's engine.
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

// Shutdown ends the sidecar. Its supervisor starts it again.
func (s *Sidecar) Shutdown(ctx context.Context) error {
	return s.Client.Shutdown(ctx)
}

// get calls the sidecar's HTTP API, without a span, because its callers poll.
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
		return nil, fmt.Errorf("sidecar unavailable: %w", err)
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
	// firstLog is how long a wait for the sidecar lasts before it is logged, and nextLog the time between two further logs.
	firstLog = 3 * time.Second
	nextLog  = 30 * time.Second
)

// LogWait waits until the sidecar is healthy or ctx ends, and logs that it waits when it takes more than three seconds.
func (s *Sidecar) LogWait(ctx context.Context, logger *slog.Logger) {
	begun := time.Now()
	for untilLog := firstLog; ; untilLog = nextLog {
		waiting, cancel := context.WithTimeout(ctx, untilLog)
		err := s.WaitHealthy(waiting)
		cancel()
		waited := time.Since(begun).Round(time.Second)
		switch {
		case err == nil && waited >= firstLog:
			logger.InfoContext(ctx, "sidecar available", slog.Duration("waited", waited))
			return
		case err == nil, ctx.Err() != nil:
			return
		}
		logger.WarnContext(ctx, "waiting for the sidecar; not ready until it answers",
			slog.Duration("waited", waited), slog.String("sidecar", s.api), slog.Any("error", err))
	}
}

// Close ends the connection.
func (s *Sidecar) Close() error {
	s.http.CloseIdleConnections()
	return s.Conn.Close()
}
