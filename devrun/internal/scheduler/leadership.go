// Package scheduler knows one thing about Dapr's scheduler: the leadership it takes in its embedded etcd. A scheduler that
// was killed leaves a leadership behind whose lease etcd renews at the next start, so the new one would wait 20 seconds for
// nobody. Here there is never more than one scheduler, so a leadership of an earlier life can be ended at once.
package scheduler

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
)

// Leadership watches over the leadership of the one scheduler of a data folder.
type Leadership struct {
	// Etcd is the base URL of the scheduler's etcd.
	Etcd string
	// File remembers the last leadership seen, over the runner's own lives.
	File string
	// Client asks etcd.
	Client *http.Client
}

// seen is one life's leadership. A term of etcd's raft is one life of the process: its only member elects itself once.
type seen struct {
	Lease int64 `json:"lease"`
	Term  int64 `json:"term"`
}

// errNone is what Check answers until the running scheduler has its leadership.
var errNone = errors.New("the scheduler does not lead yet")

// Check answers nil when the running scheduler has taken its leadership, and so does its work. On the way it ends one that
// an earlier life left behind. It is not safe for concurrent use.
func (l *Leadership) Check(ctx context.Context) error {
	var answer struct {
		Header struct {
			Term number `json:"raft_term"`
		} `json:"header"`
		Keys []struct {
			Lease number `json:"lease"`
		} `json:"kvs"`
	}
	err := l.call(ctx, "/v3/kv/range", map[string]string{
		"key":       base64.StdEncoding.EncodeToString([]byte("dapr/leadership/")),
		"range_end": base64.StdEncoding.EncodeToString([]byte("dapr/leadership0")),
	}, &answer)
	if err != nil {
		return fmt.Errorf("look up the scheduler's leadership: %w", err)
	}
	if len(answer.Keys) == 0 {
		return errNone
	}
	now := seen{Lease: int64(answer.Keys[0].Lease), Term: int64(answer.Header.Term)}
	before, err := l.remembered()
	if err != nil {
		return err
	}
	switch {
	case now == before:
		return nil
	case now.Lease == before.Lease && now.Term > before.Term:
		lease := map[string]string{"ID": strconv.FormatInt(now.Lease, 10)}
		if err := l.call(ctx, "/v3/lease/revoke", lease, &struct{}{}); err != nil {
			return fmt.Errorf("end the leadership of an earlier scheduler: %w", err)
		}
		return errNone
	default:
		return l.remember(now)
	}
}

func (l *Leadership) remembered() (seen, error) {
	text, err := os.ReadFile(l.File)
	if errors.Is(err, fs.ErrNotExist) {
		return seen{}, nil
	}
	if err != nil {
		return seen{}, fmt.Errorf("read the last leadership: %w", err)
	}
	var s seen
	// Half a file, from a crash, leaves s as it is: as good as none.
	_ = json.Unmarshal(text, &s)
	return s, nil
}

func (l *Leadership) remember(s seen) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("remember the leadership: %w", err)
	}
	if err := os.WriteFile(l.File, text, 0o600); err != nil {
		return fmt.Errorf("remember the leadership: %w", err)
	}
	return nil
}

func (l *Leadership) call(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.Etcd+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// number is an int64 as etcd writes it in JSON: in quotes.
type number int64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(string(bytes.Trim(text, `"`)), 10, 64)
	*n = number(v)
	return err
}
