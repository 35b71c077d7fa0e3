package store_test

import (
	"log/slog"
	"testing"

	"waybill/platform/state"
	"waybill/services/notifications/internal/store"
	"waybill/services/notifications/internal/vapid"
)

func TestGeneratedKeysAreStored(t *testing.T) {
	t.Parallel()
	documents, logger := state.NewMemory(), slog.New(slog.DiscardHandler)
	first, err := store.Keys(documents, "", "", logger)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := store.Keys(documents, "", "", logger)(t.Context()); err != nil || second != first || first.Private == "" {
		t.Errorf("%v, then %v, %v", first, second, err)
	}
}

func TestConfiguredKeysAreUsed(t *testing.T) {
	t.Parallel()
	keys, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.Keys(state.NewMemory(), keys.Public, keys.Private, slog.New(slog.DiscardHandler))(t.Context()); err != nil || got != keys {
		t.Errorf("got %v, %v", got, err)
	}
}
