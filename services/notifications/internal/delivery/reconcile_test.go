package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/reconcile/reconciletest"
	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

// The reconciler of messages passes the suite for reconcilers. The channel asks for a pause at every call, so no message ends by
// itself. Another process ends messages.
func TestReconcilerOfMessages(t *testing.T) {
	t.Parallel()
	reconciletest.RunReconciler(t, func(t *testing.T, docs state.Store, process string) reconciletest.Service {
		t.Helper()
		w := newWorld(t)
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error {
			return &message.Later{Text: "The channel asked for a pause.", After: time.Minute, Untried: true}
		}
		c := w.processWith(docs, reconcile.NewPending(docs, "notifications", process))
		go c.Run(t.Context()) // owned: the bubble waits for it
		messages := store.NewMessages(docs)
		return reconciletest.Service{
			Loop: c.MessagesLoop(), Set: "notifications",
			Begin: func(ctx context.Context, n int) (string, error) {
				m, _, err := message.Stock(fmt.Sprint("PROD-001:stock:", n), contracts.StockChanged{ProductID: "PROD-001", PreviousStock: 10, CurrentStock: 9}, time.Now())
				if err != nil {
					return "", err
				}
				return m.ID, c.Accept(ctx, m)
			},
			End: func(ctx context.Context, id string) error {
				_, err := messages.Update(ctx, id, func(m *message.Message) bool { return m.Accept(time.Now()) })
				return err
			},
			Key: messages.Place,
			// A paused message is read again after the pause, and its outcome is left to its process for the grace period.
			Interval: 10 * time.Second, SettlesIn: 4 * time.Minute,
		}
	})
}
