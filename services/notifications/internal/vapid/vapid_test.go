package vapid_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"waybill/services/notifications/internal/vapid"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	k, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := vapid.Parse(k.Public+"=", k.Private); err != nil || again != k {
		t.Errorf("%v, %v", again, err)
	}
	other, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]string{
		"two pairs": {other.Public, k.Private}, "no private key": {k.Public, ""}, "no public key": {"", k.Private}, "text": {k.Public, "not base64!"},
	} {
		if _, err := vapid.Parse(pair[0], pair[1]); err == nil {
			t.Errorf("%s: accepted as a pair", name)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(text, k.Private) {
		t.Error("printed keys show the private one")
	}
}

func TestRingLoadsOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	ring := vapid.NewRing(func(context.Context) (vapid.Keys, error) {
		if calls++; calls == 1 {
			return vapid.Keys{}, errors.New("away")
		}
		return vapid.Keys{Public: "p", Private: "s"}, nil
	})
	if _, err := ring.Keys(t.Context()); err == nil {
		t.Error("no error")
	}
	for range 3 {
		if k, err := ring.Keys(t.Context()); err != nil || k.Public != "p" {
			t.Error(k, err)
		}
	}
	if calls != 2 {
		t.Errorf("loaded %d times", calls)
	}
}
