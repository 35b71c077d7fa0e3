package service

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"waybill/platform/health"
)

const (
	// checkTimeout is less than the two seconds that the local runner waits for the answer.
	checkTimeout = 1500 * time.Millisecond
	// startGrace is how long after the start a failing check is not logged: the sidecar starts beside the service.
	startGrace = 5 * time.Second
)

// Check is one thing that a service needs for its work.
type Check struct {
	// Name never changes: alerts and people search for it (sidecar, state_store).
	Name string
	// Ask returns an error that says why the thing cannot be used now. It returns when its context ends. health.Reason decides
	// what of the error a caller of /readyz reads.
	Ask func(ctx context.Context) error
}

// readiness answers /healthz and /readyz.
type readiness struct {
	stopping atomic.Bool
	checks   []Check
	mounted  time.Time
	failing  []atomic.Bool // for each check, whether its failure was logged
	reports  map[string]func() any
	logger   *slog.Logger
}

// mountHealth adds /healthz, which answers while the process runs, and /readyz, which answers 200 when every check passes,
// and 503 while one fails or the service stops. The body of /readyz names each check and why it failed, and has the reports
// as further members.
func (r *readiness) mountHealth(router chi.Router, reports map[string]func() any, checks ...Check) {
	r.reports, r.checks, r.failing, r.mounted = reports, checks, make([]atomic.Bool, len(checks)), time.Now()
	router.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	router.Get("/readyz", r.ready)
}

// answer is one check in the body of /readyz.
type answer struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, failed
	Reason string `json:"reason,omitempty"`
}

func (r *readiness) ready(w http.ResponseWriter, req *http.Request) {
	body := map[string]any{}
	for name, value := range r.reports {
		body[name] = value()
	}
	code := http.StatusOK
	body["status"], body["checks"] = "ready", []answer{}
	switch {
	case r.stopping.Load():
		code, body["status"] = http.StatusServiceUnavailable, "stopping"
	default:
		answers, ready := r.ask(req.Context())
		body["checks"] = answers
		if !ready {
			code, body["status"] = http.StatusServiceUnavailable, "not_ready"
		}
	}
	text, err := json.Marshal(body)
	if err != nil { // a report that cannot be JSON: a mistake in the code
		r.logger.ErrorContext(req.Context(), "readiness answer not encoded; answered 500", slog.Any("error", err))
		http.Error(w, "the answer could not be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A prober that left before the answer does not need it.
	_, _ = w.Write(append(text, '\n'))
}

// ask asks all checks at the same time, so that one that hangs does not use up the time of the others.
func (r *readiness) ask(ctx context.Context) (answers []answer, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	answers = make([]answer, len(r.checks))
	var asking sync.WaitGroup
	for i, check := range r.checks {
		asking.Go(func() {
			err := check.Ask(ctx)
			answers[i] = answer{Name: check.Name, Status: "ok"}
			if err != nil {
				answers[i].Status, answers[i].Reason = "failed", health.Reason(err)
			}
			r.note(ctx, i, err)
		})
	}
	asking.Wait()
	ready = !slices.ContainsFunc(answers, func(a answer) bool { return a.Status != "ok" })
	return answers, ready
}

// note logs a check that begins to fail, or passes again.
func (r *readiness) note(ctx context.Context, i int, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the prober left
	}
	if err != nil && time.Since(r.mounted) < startGrace {
		return
	}
	name := slog.String("check", r.checks[i].Name)
	switch was := r.failing[i].Swap(err != nil); {
	case err != nil && !was:
		r.logger.WarnContext(ctx, "readiness check failed; not ready until it passes", name, slog.Any("error", err))
	case err == nil && was:
		r.logger.InfoContext(ctx, "readiness check passes again", name)
	}
}
