// Command notifications tells customers and operators what happened, by email, SMS and Web Push, and announces the outcome of each
// message.
package main

import (
	"context"
	"io"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/service"
	"waybill/services/notifications/internal/api"
	"waybill/services/notifications/internal/channel"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/events"
	"waybill/services/notifications/internal/store"
	"waybill/services/notifications/internal/vapid"
)

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
	keys := vapid.NewRing(store.Keys(s.Documents, c.VAPIDPublicKey, string(c.VAPIDPrivateKey), s.Logger))
	push := channel.NewPush(keys, c.VAPIDSubject, c.AllowLoopbackPush)
	s.OnStop(func() error { push.Close(); return nil })
	courier, err := delivery.New(delivery.Options{
		Messages: messages, Contacts: contacts,
		Pending:  reconcile.NewPending(s.Documents, "notifications", s.ProcessID),
		Waits:    reconcile.NewPending(s.Documents, "address-waits", s.ProcessID),
		Arrivals: reconcile.NewPending(s.Documents, "address-arrivals", s.ProcessID),
		Channels: map[string]delivery.Channel{
			contracts.ChannelEmail: channel.NewEmail(s.Sidecar.Client, contracts.Email),
			contracts.ChannelSMS:   channel.NewSMS(s.Sidecar.Client, contracts.SMS),
			contracts.ChannelPush:  push,
		},
		Announce:  events.Announcer(s.Publisher),
		Operators: contracts.Contact{Email: string(c.OperatorsEmail)}, Policy: c.policy(),
		SendTimeout: time.Duration(c.SendTimeout), AddressWait: time.Duration(c.AddressWait), Logger: s.Logger,
	})
	if err != nil {
		return service.Parts{}, err
	}
	edge := api.API{
		Courier: courier, Messages: messages, Contacts: contacts, PushKey: keys.PublicKey, Loopback: c.AllowLoopbackPush, Logger: s.Logger,
	}
	return service.Parts{
		API:   api.Info(),
		Mount: func(_ chi.Router, surface huma.API) { edge.Mount(surface) },

		Subscriptions: events.Handlers{Courier: courier, Loopback: c.AllowLoopbackPush}.Subscriptions(),
		Secret:        []string{"email", "phone", "push", "payment_token"},

		Background: []service.Task{courier.Run},
	}, nil
}
