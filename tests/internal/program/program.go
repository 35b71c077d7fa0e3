// Package program has what the programs that load the whole system share: lifetime, data folder, and the kept output of a
// process.
package program

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Main runs a program until it ends, or Ctrl-C or SIGTERM ends its context. It exits with 2 for wrong flags and with 1 for an error.
func Main(name string, run func(ctx context.Context, args []string, out, progress io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// InFolder creates a temporary folder, calls do, and removes the folder. It keeps the folder and prints its path if keep is set
// or do failed.
func InFolder(ctx context.Context, name string, keep bool, progress io.Writer, do func(work string) error) error {
	work, err := os.MkdirTemp("", "waybill-"+name+"-")
	if err != nil {
		return err
	}
	err = do(work)
	interrupted := ctx.Err() != nil
	if interrupted {
		err = errors.New("interrupted; everything was stopped")
	}
	if keep || err != nil && !interrupted {
		_, _ = fmt.Fprintf(progress, "logs and data are kept in %s\n", work)
		return err
	}
	return errors.Join(err, os.RemoveAll(work))
}

// Tail is a writer that keeps the end of its input. It is safe for concurrent use.
type Tail struct {
	mu   sync.Mutex
	tail bytes.Buffer
}

const keptOutput = 64 << 10

func (o *Tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.Write(p)
	if over := o.tail.Len() - keptOutput; over > 0 {
		o.tail.Next(over)
	}
	return len(p), nil
}

func (o *Tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.String()
}
