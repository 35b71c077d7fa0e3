package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// What one client can cost, in time and memory.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	// writeTimeout is longer than the longest event handler.
	writeTimeout   = 3 * time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// shutdownTimeout is how long requests in flight may take once the service is to stop.
const shutdownTimeout = 10 * time.Second

// server is one HTTP server. It listens before it serves, so that an address in use is known before anything else starts.
type server struct {
	readiness

	listener net.Listener
	logger   *slog.Logger
}

// listen listens on the address (host:port). Connections wait until run serves them.
func listen(ctx context.Context, address string, logger *slog.Logger) (*server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &server{listener: listener, logger: logger, readiness: readiness{logger: logger}}, nil
}

// address is where the server listens.
func (s *server) address() string { return s.listener.Addr().String() }

// close stops listening. After run it does nothing.
func (s *server) close() error {
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// run serves until ctx ends or serving fails, then stops: it is no longer ready, closes the listener, and waits up to
// shutdownTimeout for the requests in flight. It returns nil after a clean stop.
func (s *server) run(ctx context.Context, handler http.Handler) error {
	h := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(s.listener) }() // owned: both ways out below wait for it
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := h.Shutdown(shutdown)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for requests in flight: %w", err), h.Close())
	}
	if serveErr := <-failed; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return err
}
