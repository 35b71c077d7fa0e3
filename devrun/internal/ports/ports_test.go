package ports

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

func occupy(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestBusyPortsAreReportedTogether(t *testing.T) {
	t.Parallel()
	a, b := occupy(t), occupy(t)
	_, err := Choose([]Need{
		{For: "the API of orders", Usual: a, Known: true},
		{For: "the embedded broker", Usual: b, Known: true},
	})
	var busy BusyError
	if !errors.As(err, &busy) || len(busy) != 2 {
		t.Fatalf("error is %v, want both ports", err)
	}
	for _, want := range []string{"2 ports are busy", "for the API of orders", "for the embedded broker", "--free-ports"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := os.Stat("/proc/net/tcp"); err == nil {
		if !strings.Contains(busy[0].Holder, "ports.test") {
			t.Errorf("holder is %q, want this test program", busy[0].Holder)
		}
	}
}

func TestAnUnknownPortMoves(t *testing.T) {
	t.Parallel()
	taken := occupy(t)
	chosen, err := Choose([]Need{{For: "metrics", Usual: taken}, {For: "health"}})
	if err != nil {
		t.Fatal(err)
	}
	if chosen[0] == taken || chosen[0] == 0 || chosen[1] == 0 || chosen[0] == chosen[1] {
		t.Errorf("chose %v with %d taken", chosen, taken)
	}
}

func TestReservationsDoNotMeet(t *testing.T) {
	t.Parallel()
	const runners, each = 5, 30
	all := make([]int, 0, runners*each)
	for range runners {
		block, err := Reserve(each)
		if err != nil {
			t.Fatal(err)
		}
		defer block.Close()
		all = append(all, block.Ports()...)
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != runners*each {
		t.Error("two reservations share a port")
	}
	if _, err := Reserve(64); err == nil {
		t.Error("reserved more than a block holds")
	}
}
