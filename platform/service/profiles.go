package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // registers with the default mux too, which nothing here serves
	"strconv"
	"sync"
	"time"
)

// profiles serves Go's profiles to this machine only, below /debug/pprof/.
type profiles struct {
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup
}

// startProfiles listens on the port of the loopback interface, 0 being any free one. A profile shows what the process does
// and costs time to take, so other machines cannot ask for one.
func startProfiles(ctx context.Context, port uint16, logger *slog.Logger) (*profiles, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("DEBUG_PORT is %d: a free port of this machine is expected: %w", port, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	p := &profiles{listener: listener, http: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
	p.serving.Go(func() {
		if err := p.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.WarnContext(ctx, "profiles server failed; no profiles until the next start", slog.Any("error", err))
		}
	})
	logger.InfoContext(ctx, "serving profiles", slog.String("address", "http://"+listener.Addr().String()+"/debug/pprof/"))
	return p, nil
}

// stop ends it at once, also while someone reads a profile.
func (p *profiles) stop() error {
	err := p.http.Close()
	p.serving.Wait()
	return err
}
