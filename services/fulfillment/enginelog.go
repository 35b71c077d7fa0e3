package main

import (
	"fmt"
	"log/slog"
)

// engineLog gives the workflow client's log lines to slog. Its information is only of use to who debugs the client.
type engineLog struct{ logger *slog.Logger }

func (l engineLog) Debug(v ...any) {
	l.logger.Debug("workflow client", slog.String("says", fmt.Sprint(v...)))
}
func (l engineLog) Debugf(f string, v ...any) { l.Debug(fmt.Sprintf(f, v...)) }
func (l engineLog) Info(v ...any)             { l.Debug(v...) }
func (l engineLog) Infof(f string, v ...any)  { l.Debugf(f, v...) }
func (l engineLog) Warn(v ...any) {
	l.logger.Warn("workflow client", slog.String("says", fmt.Sprint(v...)))
}
func (l engineLog) Warnf(f string, v ...any)  { l.Warn(fmt.Sprintf(f, v...)) }
func (l engineLog) Error(v ...any)            { l.Warn(v...) }
func (l engineLog) Errorf(f string, v ...any) { l.Warnf(f, v...) }
