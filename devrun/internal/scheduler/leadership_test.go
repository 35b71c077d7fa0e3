package scheduler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

// etcd is what Check needs of one: a leadership, perhaps, and a term.
type etcd struct {
	lease, term int
	revoked     []string
}

func (e *etcd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v3/kv/range":
		if e.lease == 0 {
			fmt.Fprintf(w, `{"header":{"raft_term":"%d"}}`, e.term)
			return
		}
		fmt.Fprintf(w, `{"header":{"raft_term":"%d"},"kvs":[{"lease":"%d"}]}`, e.term, e.lease)
	case "/v3/lease/revoke":
		var body struct{ ID string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		e.revoked = append(e.revoked, body.ID)
		e.lease = 0
		fmt.Fprint(w, "{}")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestALeftoverLeadershipIsEnded(t *testing.T) {
	t.Parallel()
	e := &etcd{term: 2}
	server := httptest.NewServer(e)
	defer server.Close()
	l := &Leadership{Etcd: server.URL, File: filepath.Join(t.TempDir(), "leadership.json"), Client: server.Client()}
	ctx := t.Context()

	if err := l.Check(ctx); err == nil {
		t.Error("nobody leads, and that was fine")
	}
	e.lease = 11
	for range 2 { // asked again in the same life, its own leadership is left alone
		if err := l.Check(ctx); err != nil || len(e.revoked) != 0 {
			t.Fatalf("own leadership: %v, revoked %v", err, e.revoked)
		}
	}

	// Killed and started again: the term is new, the leadership is still the old one's.
	e.term = 3
	if err := l.Check(ctx); err == nil || len(e.revoked) != 1 || e.revoked[0] != "11" {
		t.Fatalf("leftover leadership: %v, revoked %v", err, e.revoked)
	}
	e.lease = 12
	if err := l.Check(ctx); err != nil || len(e.revoked) != 1 {
		t.Fatalf("new leadership: %v, revoked %v", err, e.revoked)
	}
}
