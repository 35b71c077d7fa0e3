// Package serve runs a service's HTTP server: it listens before anything else, limits what a client can cost, says when
// the service is alive and ready, and stops without cutting off a request.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	// writeTimeout leaves room for the longest event handler.
	writeTimeout   = 3 * time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	checkTimeout   = 2 * time.Second
)

// StopTimeout is how long requests in flight may take to end once a stop was asked for.
const StopTimeout = 10 * time.Second

// Check reports, as an error, why the service cannot do its work now.
type Check func(ctx context.Context) error

// Server is one listening HTTP server.
type Server struct {
	listener net.Listener
	http     *http.Server
	stopping atomic.Bool
	checks   []Check
	logger   *slog.Logger
}

// Listen takes the address (host:port) and answers nothing yet. An address in use is an error here, before the service
// has begun anything.
func Listen(ctx context.Context, address string, logger *slog.Logger) (*Server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &Server{listener: listener, logger: logger}, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// MountHealth adds /healthz, which answers as long as the process does, and /readyz, which answers 200 when every check
// passes and 503 with the reason while one fails or the server is stopping.
func (s *Server) MountHealth(router chi.Router, checks ...Check) {
	s.checks = checks
	router.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	router.Get("/readyz", s.ready)
}

func (s *Server) ready(w http.ResponseWriter, req *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), checkTimeout)
	defer cancel()
	for _, check := range s.checks {
		if err := check(ctx); err != nil {
			s.logger.DebugContext(ctx, "not ready", slog.Any("error", err))
			http.Error(w, "not ready: a part this service needs does not answer", http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// Run serves until ctx ends or serving fails, then stops: readiness off, no new connections, requests in flight up to
// StopTimeout. It returns nil after a clean stop.
func (s *Server) Run(ctx context.Context, handler http.Handler) error {
	s.http = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }() // owned: both ways out below wait for it
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout)
	defer cancel()
	err := s.http.Shutdown(stop)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop serving: %w", err), s.http.Close())
	}
	if serveErr := <-failed; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return err
}
