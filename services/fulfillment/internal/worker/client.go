package worker

import (
	"fmt"
	"log/slog"

	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc"
)

// NewClient returns a client of the workflow engine in the sidecar that conn leads to.
func NewClient(conn grpc.ClientConnInterface, logger *slog.Logger) *workflow.Client {
	return workflow.NewClientWithLogger(conn, clientLog{logger})
}

// clientLog writes the log lines of the workflow client to slog. What the client logs as information only helps to debug the
// client itself. After an error that it logs, it reconnects, or the engine schedules the task again.
type clientLog struct{ logger *slog.Logger }

// Debug logs at level debug.
func (l clientLog) Debug(v ...any) {
	l.logger.Debug("workflow client log", slog.String("text", fmt.Sprint(v...)))
}

// Debugf logs at level debug.
func (l clientLog) Debugf(f string, v ...any) { l.Debug(fmt.Sprintf(f, v...)) }

// Info logs at level debug.
func (l clientLog) Info(v ...any) { l.Debug(v...) }

// Infof logs at level debug.
func (l clientLog) Infof(f string, v ...any) { l.Debugf(f, v...) }

// Warn logs at level warning.
func (l clientLog) Warn(v ...any) {
	l.logger.Warn("workflow client warning; unfinished work runs again", slog.String("text", fmt.Sprint(v...)))
}

// Warnf logs at level warning.
func (l clientLog) Warnf(f string, v ...any) { l.Warn(fmt.Sprintf(f, v...)) }

// Error logs at level warning.
func (l clientLog) Error(v ...any) { l.Warn(v...) }

// Errorf logs at level warning.
func (l clientLog) Errorf(f string, v ...any) { l.Warnf(f, v...) }
