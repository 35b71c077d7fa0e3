// Package inbox receives on this machine what notifications sends to customers, so that a person can read it: real SMTP, the calls
// of the local SMS component, and Web Push, where it is the push service and the browser. It stores every message before it
// accepts it. It listens on the loopback interface unless another address is configured, as in a container.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Inbox is a running receiver.
type Inbox struct {
	journal  *journal
	mails    *smtp.Server
	listener net.Listener // of mails
	calls    *http.Server
	smtpAddr string
	httpAddr string
	serving  sync.WaitGroup
	// closing is closed when the inbox stops, for what would answer never.
	closing chan struct{}
	// fault receives the error with which one of the two servers ended by itself.
	fault chan error
}

// Start opens the inbox in the folder dir and listens on the two ports of host (0 is any free port). What it cannot do is
// written to faults.
func Start(dir, host string, smtpPort, httpPort int, faults io.Writer) (_ *Inbox, err error) {
	push := filepath.Join(dir, "push")
	if err := os.MkdirAll(push, 0o750); err != nil {
		return nil, fmt.Errorf("open the inbox: %w", err)
	}
	kept, err := openJournal(File(dir))
	if err != nil {
		return nil, err
	}
	var open []io.Closer
	defer func() {
		if err != nil {
			for _, c := range open {
				err = errors.Join(err, c.Close())
			}
			err = errors.Join(err, kept.close())
		}
	}()
	listen := func(port int, purpose string) (net.Listener, error) {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("listen for %s: %w", purpose, err)
		}
		open = append(open, l)
		return l, nil
	}
	mailListener, err := listen(smtpPort, "mail")
	if err != nil {
		return nil, err
	}
	callListener, err := listen(httpPort, "SMS and push")
	if err != nil {
		return nil, err
	}

	logger := log.New(faults, "", 0)
	take := func(m Message) error {
		m.ReceivedAt = time.Now().UTC()
		err := kept.keep(m)
		if err != nil {
			logger.Println(err)
		}
		return err
	}
	in := &Inbox{
		journal:  kept,
		listener: mailListener,
		smtpAddr: mailListener.Addr().String(),
		httpAddr: callListener.Addr().String(),
		fault:    make(chan error, 2),
		closing:  make(chan struct{}),
	}
	in.mails = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &mailSession{take: take, closing: in.closing}, nil
	}))
	in.mails.Domain = "localhost"
	in.mails.MaxMessageBytes = largest
	in.mails.MaxRecipients = 50
	in.mails.ReadTimeout, in.mails.WriteTimeout = time.Minute, time.Minute
	in.mails.ErrorLog = logger
	in.calls = &http.Server{
		Handler: (&handler{
			take:          take,
			subscriptions: &subscriptions{dir: push},
			base:          "http://" + in.httpAddr,
			closing:       in.closing,
		}).routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		ErrorLog:          logger,
	}
	in.serving.Go(func() {
		if err := in.mails.Serve(mailListener); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			in.fault <- fmt.Errorf("receive mail: %w", err)
		}
	})
	in.serving.Go(func() {
		if err := in.calls.Serve(callListener); !errors.Is(err, http.ErrServerClosed) {
			in.fault <- fmt.Errorf("receive SMS and push: %w", err)
		}
	})
	return in, nil
}

// SMTP is the host:port for mail.
func (in *Inbox) SMTP() string { return in.smtpAddr }

// HTTP is the host:port for SMS, push and push subscriptions.
func (in *Inbox) HTTP() string { return in.httpAddr }

// Wait returns nil when ctx ends, or why the inbox no longer receives. It does not close the inbox.
func (in *Inbox) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-in.fault:
		return err
	}
}

// Close stops. What is being received finishes, for two seconds at most; a mail whose sender has not heard that it was
// taken is sent again.
func (in *Inbox) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	close(in.closing)
	// The SMTP server's own Shutdown waits for idle connections too, and cannot be hurried afterwards.
	errs := []error{in.mails.Close()}
	if err := in.listener.Close(); !errors.Is(err, net.ErrClosed) { // the server had not got hold of it yet
		errs = append(errs, err)
	}
	err := in.calls.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = in.calls.Close()
	}
	errs = append(errs, err)
	in.serving.Wait()
	return errors.Join(append(errs, in.journal.close())...)
}

// Check asks the inbox whose two ports are given whether it receives.
func Check(ctx context.Context, client *http.Client, smtpAddr, httpURL string) error {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", smtpAddr)
	if err != nil {
		return fmt.Errorf("not receiving mail yet: %w", err)
	}
	if err := greet(conn); err != nil {
		return fmt.Errorf("ask the inbox for mail: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, httpURL+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("not receiving SMS and push yet: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("ask the inbox for SMS and push: status %d", resp.StatusCode)
	}
	return nil
}

// greet says hello and goodbye, and closes conn.
func greet(conn net.Conn) error {
	client := smtp.NewClient(conn)
	client.CommandTimeout = time.Second
	defer func() { _ = client.Close() }()
	if err := client.Hello("localhost"); err != nil {
		return err
	}
	return client.Quit()
}

// Loopback is the host that an inbox for this machine alone listens on.
const Loopback = "127.0.0.1"

// Address is the host:port an inbox on port listens on, on this machine.
func Address(port int) string { return net.JoinHostPort(Loopback, strconv.Itoa(port)) }
