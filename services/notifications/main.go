// Command notifications tells customers and operators what happened, by email, text message and Web Push, and announces
// what came of each message. This file only puts the parts together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/platform/deadletter"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/service"
	"waybill/platform/state"
	"waybill/services/notifications/internal/api"
	"waybill/services/notifications/internal/channel"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/store"
	"waybill/services/notifications/internal/vapid"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Environ(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "notifications:", err)
		os.Exit(1)
	}
}

const (
	// source is the CloudEvents source of what this service publishes.
	source = "/waybill/notifications"
	// statePatience is how long a call waits for a sidecar or a store that is away for a moment.
	statePatience = 4 * time.Second
)

// run is the service from its start until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	svc, err := service.Start(ctx, contracts.AppNotifications, c.Service, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Stop(ctx)) }()
	dapr, logger := svc.Sidecar, svc.Logger
	publisher, err := eventing.NewPublisher(dapr.Client, contracts.OrderBus)
	if err != nil {
		return err
	}

	stateStore := state.NewDapr(dapr.Client, contracts.StateStore)
	documents := state.WithRetry(state.WithConcurrencyLimit(stateStore, int(c.StateCalls)), statePatience)
	messages, contacts := store.NewMessages(documents).KeepFor(time.Duration(c.MessageRetention)), store.NewContacts(documents)
	keys := vapid.NewRing(c.keys(documents, logger))
	push := channel.NewPush(keys, c.VAPIDSubject, c.AllowLoopbackPush)
	defer push.Close()
	courier, err := delivery.New(delivery.Options{
		Messages: messages, Contacts: contacts,
		Backlog:  state.NewBacklog(documents, "notifications", ulid.Make().String()),
		Expiries: state.NewBacklog(documents, "address-waits", ulid.Make().String()),
		Arrivals: state.NewBacklog(documents, "address-arrivals", ulid.Make().String()),
		Channels: map[string]delivery.Channel{
			contracts.ChannelEmail: channel.NewEmail(dapr.Client, contracts.Email),
			contracts.ChannelSMS:   channel.NewSMS(dapr.Client, contracts.SMS),
			contracts.ChannelPush:  push,
		},
		Announce:  announce(publisher),
		Operators: contracts.Contact{Email: string(c.OperatorsEmail)}, Policy: c.policy(),
		SendTimeout: time.Duration(c.SendTimeout), AddressWait: time.Duration(c.AddressWait), Logger: logger,
	})
	if err != nil {
		return err
	}

	edge := api.API{
		Courier: courier, Messages: messages, Contacts: contacts, PushKey: publicKey(keys), Loopback: c.AllowLoopbackPush, Logger: logger,
	}
	letters := deadletter.New(documents, logger, "email", "phone", "push", "payment_token").KeepFor(time.Duration(c.DeadLetterRetention))
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppNotifications, Token: string(c.APIToken), Publisher: publisher, Logger: logger,
		BrokerRetries: c.EventRetries == config.BrokerRetries,
	}, letters.Watch(edge.Subscriptions()...)...)
	if err != nil {
		return err
	}
	router, restAPI := rest.New(api.Info(), logger, c.CORSOrigins...)
	edge.Mount(restAPI)
	letters.Register(restAPI, receiver)
	receiver.Mount(router)
	svc.Server.MountHealth(router, service.SidecarCheck(dapr), service.StateCheck(stateStore))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return svc.Server.Run(ctx, router) })
	group.Go(func() error { courier.Run(ctx); return nil })
	return group.Wait()
}

// announce publishes outcomes.
func announce(publisher *eventing.Publisher) delivery.Announce {
	return func(ctx context.Context, id string, at time.Time, payload contracts.Payload) error {
		e, err := eventing.New(id, source, contracts.Version, at, payload)
		if err != nil {
			return err
		}
		return publisher.Publish(ctx, contracts.TopicNotificationOutcomes, e)
	}
}

func publicKey(keys *vapid.Ring) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		k, err := keys.Keys(ctx)
		return k.Public, err
	}
}

// keys loads the VAPID keys: those of the configuration, or else those in the store, where the first start keeps a new pair.
func (c Config) keys(documents state.Store, logger *slog.Logger) func(context.Context) (vapid.Keys, error) {
	return func(ctx context.Context) (vapid.Keys, error) {
		if c.VAPIDPublicKey != "" {
			return vapid.Parse(c.VAPIDPublicKey, string(c.VAPIDPrivateKey))
		}
		return store.Keys(ctx, documents, func() (vapid.Keys, error) {
			logger.InfoContext(ctx, "no VAPID keys are configured: a new pair is kept in the state store")
			return vapid.Generate()
		})
	}
}
