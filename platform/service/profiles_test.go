package service

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestProfilesAreServedToThisMachineOnly(t *testing.T) {
	t.Parallel()
	d, err := startProfiles(t.Context(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if at := d.listener.Addr().(*net.TCPAddr); !at.IP.IsLoopback() {
		t.Errorf("listens on %s, want the loopback interface only", at)
	}
	resp, err := http.Get("http://" + d.listener.Addr().String() + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "goroutine profile") {
		t.Errorf("%s %v %.100s, want the goroutines", resp.Status, err, body)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", d.listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("still listens after stop")
	}
}

func TestABusyPortIsAnError(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if d, err := startProfiles(t.Context(), uint16(taken.Addr().(*net.TCPAddr).Port), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a second listener on one port", d.stop())
	}
}
