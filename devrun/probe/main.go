// Command probe asks one URL and ends with 0 when the answer is a success: the health check of images that hold no shell
// and no curl. It speaks plain HTTP by hand: a container engine starts it every few seconds, so it should be small and quick.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// timeout is for the whole question. A container engine's own limit is longer, so that this one gives the reason.
const timeout = 3 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// run asks the URL in args, in which $NAME stands for a variable of the environment.
func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: probe http://host:port/path")
	}
	target, err := url.Parse(os.ExpandEnv(args[0]))
	if err != nil {
		return err
	}
	if target.Scheme != "http" || target.Port() == "" {
		return fmt.Errorf("%s is no http://host:port/path", target)
	}
	status, err := ask(ctx, target)
	if err != nil {
		return fmt.Errorf("ask %s: %w", target, err)
	}
	if status/100 != 2 {
		return fmt.Errorf("%s answers %d", target, status)
	}
	return nil
}

// ask sends a GET and returns the status of the answer.
func ask(ctx context.Context, target *url.URL) (status int, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: waybill-probe\r\n\r\n", target.RequestURI(), target.Host); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	version, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(rest, " ")
	if status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(version, "HTTP/") {
		return 0, fmt.Errorf("the answer is not HTTP: %q", line)
	}
	return status, nil
}
