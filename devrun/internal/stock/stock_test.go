package stock

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestLoadLeavesKnownProductsAlone(t *testing.T) {
	t.Parallel()
	put := map[string]int{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/inventory/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "KNOWN" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("PUT /v1/inventory/{id}", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			OnHand int `json:"on_hand"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		put[r.PathValue("id")] = body.OnHand
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	added, err := Load(t.Context(), server.Client(), server.URL, []Item{{ProductID: "KNOWN", OnHand: 1}, {ProductID: "NEW", OnHand: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if added != 1 || len(put) != 1 || put["NEW"] != 7 {
		t.Errorf("added %d: %v", added, put)
	}
}

func TestLoadReportsARefusal(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	if _, err := Load(t.Context(), server.Client(), server.URL, []Item{{ProductID: "X", OnHand: 1}}); err == nil {
		t.Error("no error")
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	items, err := Sample()
	if err != nil {
		t.Fatal(err)
	}
	if len(items) == 0 || items[0].ProductID != "PROD-001" || items[0].OnHand != 1000 {
		t.Errorf("sample begins with %+v", items)
	}
}
