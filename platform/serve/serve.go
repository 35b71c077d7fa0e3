// Package serve runs a service's HTTP server: it listens before anything else, limits what a client can cost, says when
// the service is alive and ready, and stops without cutting off a request.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"waybill/platform/health"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	// writeTimeout leaves room for the longest event handler.
	writeTimeout   = 3 * time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// checkTimeout is less than the two seconds that the local runner waits for the answer.
	checkTimeout = 1500 * time.Millisecond
	// startGrace is how long after the start a check may fail before that is logged: the sidecar starts beside the service.
	startGrace = 5 * time.Second
)

// StopTimeout is how long requests in flight may take to end once a stop was asked for.
const StopTimeout = 10 * time.Second

// Check is one thing that a service needs for its work.
type Check struct {
	// Name stays the same, for it is what alerts and people look for: sidecar, state_store.
	Name string
	// Ask reports, as an error, why the thing cannot be used now. It ends with its context. Of its error health.Reason decides
	// what a caller of /readyz reads.
	Ask func(ctx context.Context) error
}

// Server is one listening HTTP server.
type Server struct {
	listener net.Listener
	http     *http.Server
	stopping atomic.Bool
	checks   []Check
	mounted  time.Time
	failing  []atomic.Bool // by check: what was logged last
	reports  map[string]func() any
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

// Report adds a member to the body of /readyz, which is ready or not whatever it says. It is called before Run.
func (s *Server) Report(name string, value func() any) {
	if s.reports == nil {
		s.reports = map[string]func() any{}
	}
	s.reports[name] = value
}

// MountHealth adds /healthz, which answers as long as the process does, and /readyz, which answers 200 when every check
// passes and 503 while one fails or the server is stopping. The body of /readyz names each check and why it failed.
func (s *Server) MountHealth(router chi.Router, checks ...Check) {
	s.checks, s.failing, s.mounted = checks, make([]atomic.Bool, len(checks)), time.Now()
	router.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	router.Get("/readyz", s.ready)
}

// answer is one check in the body of /readyz.
type answer struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, failed
	Reason string `json:"reason,omitempty"`
}

func (s *Server) ready(w http.ResponseWriter, req *http.Request) {
	body := map[string]any{}
	for name, value := range s.reports {
		body[name] = value()
	}
	code := http.StatusOK
	body["status"], body["checks"] = "ready", []answer{}
	switch {
	case s.stopping.Load():
		code, body["status"] = http.StatusServiceUnavailable, "stopping"
	default:
		answers, ready := s.ask(req.Context())
		body["checks"] = answers
		if !ready {
			code, body["status"] = http.StatusServiceUnavailable, "not_ready"
		}
	}
	text, err := json.Marshal(body)
	if err != nil { // a report that is no JSON: a mistake in the code
		s.logger.ErrorContext(req.Context(), "the readiness answer could not be encoded", slog.Any("error", err))
		http.Error(w, "the answer could not be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A prober that left before the answer has no use for it.
	_, _ = w.Write(append(text, '\n'))
}

// ask asks every check at the same time, so that one that hangs takes no time from the others.
func (s *Server) ask(ctx context.Context) (answers []answer, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	answers = make([]answer, len(s.checks))
	var asking sync.WaitGroup
	for i, check := range s.checks {
		asking.Go(func() {
			err := check.Ask(ctx)
			answers[i] = answer{Name: check.Name, Status: "ok"}
			if err != nil {
				answers[i].Status, answers[i].Reason = "failed", health.Reason(err)
			}
			s.note(ctx, i, err)
		})
	}
	asking.Wait()
	ready = !slices.ContainsFunc(answers, func(a answer) bool { return a.Status != "ok" })
	return answers, ready
}

// note logs a check that begins to fail, or passes again.
func (s *Server) note(ctx context.Context, i int, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the prober left
	}
	if err != nil && time.Since(s.mounted) < startGrace {
		return
	}
	name := slog.String("check", s.checks[i].Name)
	switch was := s.failing[i].Swap(err != nil); {
	case err != nil && !was:
		s.logger.WarnContext(ctx, "readiness check failed; not ready until it passes", name, slog.Any("error", err))
	case err == nil && was:
		s.logger.InfoContext(ctx, "readiness check passes again", name)
	}
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
