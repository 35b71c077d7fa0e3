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

// debugServer shows Go's profiles to this machine only, below /debug/pprof/.
type debugServer struct {
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup
}

// startDebug listens on the port, 0 being any free one, of the loopback interface: profiles show what a process is doing and
// cost time to take, so nobody else may ask for them.
func startDebug(ctx context.Context, port uint16, logger *slog.Logger) (*debugServer, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("listen for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	d := &debugServer{listener: listener, http: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
	d.serving.Go(func() {
		if err := d.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.WarnContext(ctx, "profiles are not shown any more", slog.Any("error", err))
		}
	})
	logger.InfoContext(ctx, "profiles are shown", slog.String("at", "http://"+listener.Addr().String()+"/debug/pprof/"))
	return d, nil
}

// stop ends it at once, whoever is still reading.
func (d *debugServer) stop() error {
	err := d.http.Close()
	d.serving.Wait()
	return err
}
