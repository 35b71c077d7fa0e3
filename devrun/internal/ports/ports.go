// Package ports decides which port everything listens on: the usual ones, all checked before anything starts, or free ones.
package ports

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// Need is a port somebody wants.
type Need struct {
	For   string // what it is for, as a person would say it
	Usual int    // 0: any
	Known bool   // somebody outside knows the number, so it must be the usual one
}

// BusyError lists every known port that is taken.
type BusyError []Busy

// Busy is a port that is taken.
type Busy struct {
	Need   Need
	Holder string // the process that holds it, as far as it can be told
}

func (e BusyError) Error() string {
	var b strings.Builder
	if len(e) == 1 {
		b.WriteString("a port is busy:\n")
	} else {
		fmt.Fprintf(&b, "%d ports are busy:\n", len(e))
	}
	for _, busy := range e {
		fmt.Fprintf(&b, "  port %d, for %s, is held by %s\n", busy.Need.Usual, busy.Need.For, busy.Holder)
	}
	b.WriteString("Stop what holds them (another `make up`, perhaps), or run beside it: .waybill/bin/devrun up --free-ports --data <another folder>")
	return b.String()
}

// Choose returns a port for every need, in order. Known ports that are taken are reported together in a BusyError; for any
// other a free one is found. The ports are free when Choose returns, and nothing keeps them free.
func Choose(needs []Need) ([]int, error) {
	var busy BusyError
	chosen := make([]int, len(needs))
	taken := map[int]bool{}
	for i, need := range needs {
		if need.Usual == 0 {
			continue
		}
		switch {
		case !taken[need.Usual] && Free(need.Usual):
			chosen[i] = need.Usual
			taken[need.Usual] = true
		case need.Known:
			busy = append(busy, Busy{Need: need, Holder: holder(need.Usual)})
		}
	}
	if len(busy) > 0 {
		return nil, busy
	}
	next := 0
	for i := range needs {
		for ; chosen[i] == 0; next++ {
			if next == highest-lowest {
				return nil, fmt.Errorf("no free port for %s between %d and %d", needs[i].For, lowest, highest)
			}
			port := lowest + (os.Getpid()+next)%(highest-lowest)
			if !taken[port] && Free(port) {
				chosen[i] = port
				taken[port] = true
			}
		}
	}
	return chosen, nil
}

// Free ports are taken from below the range that systems give to outgoing connections, lest one of these takes a port
// between the choice and its use. Each runner begins to look at a place of its own.
const (
	lowest  = 20000
	highest = 32000
	block   = 64
)

// Block is a range of free ports that no other caller of Reserve on this machine gets until it is closed.
type Block struct {
	guard net.Listener
	ports []int
}

// Reserve finds n free ports, at most 63, and keeps other runners away from them: the first port of each block is held
// open as the sign that the block is somebody's.
func Reserve(n int) (*Block, error) {
	if n >= block {
		return nil, fmt.Errorf("reserve %d ports: at most %d", n, block-1)
	}
	const blocks = (highest - lowest) / block
	for i := range blocks {
		base := lowest + (os.Getpid()+i)%blocks*block
		guard, err := listen(local(base))
		if err != nil {
			continue
		}
		var free []int
		for port := base + 1; port < base+block && len(free) < n; port++ {
			if Free(port) {
				free = append(free, port)
			}
		}
		if len(free) == n {
			return &Block{guard: guard, ports: free}, nil
		}
		if err := guard.Close(); err != nil {
			return nil, fmt.Errorf("give back port %d: %w", base, err)
		}
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, lowest, highest)
}

// Ports lists the block's ports.
func (b *Block) Ports() []int { return b.ports }

// Close gives the block back.
func (b *Block) Close() error { return b.guard.Close() }

// Free reports whether a process could listen on the port, on the loopback interface and on every interface: some systems
// allow the first although somebody does the second.
func Free(port int) bool {
	for _, address := range []string{local(port), ":" + strconv.Itoa(port)} {
		l, err := listen(address)
		if err != nil || l.Close() != nil {
			return false
		}
	}
	return true
}

// listen has no context: to bind to an address of this machine does not take time.
func listen(address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
