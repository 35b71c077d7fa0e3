// Package service starts what every service stands on, in the order in which it must start, and stops it in the order in
// which it must stop.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"waybill/platform/config"
	"waybill/platform/serve"
	"waybill/platform/sidecar"
	"waybill/platform/telemetry"
)

// Service is a started service that serves nothing yet.
type Service struct {
	Logger    *slog.Logger
	Server    *serve.Server
	Sidecar   *sidecar.Sidecar
	telemetry *telemetry.Telemetry
	debug     *debugServer // nil unless asked for
	waiting   sync.WaitGroup
	stopWait  context.CancelFunc
}

// Start starts telemetry, takes the service's address, and prepares the connection to the sidecar. It does not wait for
// the sidecar: until that is there the service is alive and not ready.
func Start(ctx context.Context, name string, c config.Service, stdout io.Writer) (*Service, error) {
	tel, err := telemetry.Start(ctx, telemetry.Options{Service: name, Log: stdout, Format: string(c.LogFormat), Level: c.LogLevel})
	if err != nil {
		return nil, err
	}
	s := &Service{Logger: tel.Logger, telemetry: tel}
	if s.Server, err = serve.Listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), s.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("APP_HOST and APP_PORT, %s and %d: an address of this machine is expected that nobody listens on: %w", c.Host, c.Port, err), s.Stop(ctx))
	}
	if s.Sidecar, err = sidecar.Dial(c.Sidecar); err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	if c.DebugPort != nil {
		if s.debug, err = startDebug(ctx, uint16(*c.DebugPort), s.Logger); err != nil {
			return nil, errors.Join(err, s.Stop(ctx))
		}
	}
	s.Logger.InfoContext(ctx, "listening", slog.String("address", s.Server.Address()))
	var waiting context.Context
	waiting, s.stopWait = context.WithCancel(ctx)
	s.waiting.Go(func() { s.Sidecar.LogWait(waiting, s.Logger) })
	return s, nil
}

// stopTimeout bounds what is left to do after the last request.
const stopTimeout = 5 * time.Second

// Stop ends what Start began, after the server has stopped serving. It goes on when ctx is over, for at most five seconds.
func (s *Service) Stop(ctx context.Context) error {
	if s.stopWait != nil {
		s.stopWait()
		s.waiting.Wait()
	}
	var err error
	if s.debug != nil {
		err = s.debug.stop()
	}
	if s.Sidecar != nil {
		err = errors.Join(err, s.Sidecar.Close())
	}
	s.Logger.InfoContext(ctx, "stopped")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.telemetry.Stop(ctx))
}
