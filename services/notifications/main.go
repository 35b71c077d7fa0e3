// Command notifications tells customers and operators what happened, by email, text message and Web Push, and announces the
// outcome of each message.
package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/service"
	"waybill/platform/state"
	"waybill/services/notifications/internal/api"
	"waybill/services/notifications/internal/channel"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/store"
	"waybill/services/notifications/internal/vapid"
)

// source is the CloudEvents source of what this service publishes.
const source = "/waybill/notifications"

func main() { service.Main(contracts.AppNotifications, run) }

// run runs the service until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) error {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	return service.Run(ctx, service.Options{
		Name: contracts.AppNotifications, Config: c.Service, PubSub: contracts.OrderBus, StateStore: contracts.StateStore, Log: stdout,
	}, c.build)
}

// build makes the parts of this service.
func (c Config) build(_ context.Context, s *service.Service) (service.Parts, error) {
	messages, contacts := store.NewMessages(s.Documents).KeepFor(time.Duration(c.MessageRetention)), store.NewContacts(s.Documents)
	keys := vapid.NewRing(c.keys(s.Documents, s.Logger))
	push := channel.NewPush(keys, c.VAPIDSubject, c.AllowLoopbackPush)
	s.OnStop(func() error { push.Close(); return nil })
	courier, err := delivery.New(delivery.Options{
		Messages: messages, Contacts: contacts,
		Backlog:  state.NewBacklog(s.Documents, "notifications", s.ProcessID),
		Expiries: state.NewBacklog(s.Documents, "address-waits", s.ProcessID),
		Arrivals: state.NewBacklog(s.Documents, "address-arrivals", s.ProcessID),
		Channels: map[string]delivery.Channel{
			contracts.ChannelEmail: channel.NewEmail(s.Sidecar.Client, contracts.Email),
			contracts.ChannelSMS:   channel.NewSMS(s.Sidecar.Client, contracts.SMS),
			contracts.ChannelPush:  push,
		},
		Announce:  announce(s.Publisher),
		Operators: contracts.Contact{Email: string(c.OperatorsEmail)}, Policy: c.policy(),
		SendTimeout: time.Duration(c.SendTimeout), AddressWait: time.Duration(c.AddressWait), Logger: s.Logger,
	})
	if err != nil {
		return service.Parts{}, err
	}
	edge := api.API{
		Courier: courier, Messages: messages, Contacts: contacts, PushKey: publicKey(keys), Loopback: c.AllowLoopbackPush, Logger: s.Logger,
	}
	return service.Parts{
		API:   api.Info(),
		Mount: func(_ chi.Router, surface huma.API) { edge.Mount(surface) },

		Subscriptions: edge.Subscriptions(),
		Secret:        []string{"email", "phone", "push", "payment_token"},

		Background: []service.Task{courier.Run},
	}, nil
}

// announce publishes the outcomes of messages.
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
			logger.InfoContext(ctx, "no VAPID keys configured; a new pair is generated and stored")
			return vapid.Generate()
		})
	}
}
