package store

import (
	"context"
	"log/slog"

	"waybill/platform/state"
	"waybill/services/notifications/internal/vapid"
)

const keysKey = "vapid-keys"

// Keys returns a function that loads the VAPID keys: the configured pair, or without a public key the stored one. If none is stored,
// it generates a pair and stores it.
func Keys(s state.Store, public, private string, logger *slog.Logger) func(context.Context) (vapid.Keys, error) {
	return func(ctx context.Context) (vapid.Keys, error) {
		if public != "" {
			return vapid.Parse(public, private)
		}
		return state.Update(ctx, s, keysKey, func(k *vapid.Keys, exists bool) (err error) {
			if exists {
				return state.ErrUnchanged
			}
			logger.InfoContext(ctx, "no VAPID keys configured; a new pair is generated and stored")
			*k, err = vapid.Generate()
			return err
		})
	}
}
