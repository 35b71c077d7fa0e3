// Package stock gives an empty warehouse something to sell: sample products, put there through fulfilment's own API.
package stock

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

//go:embed sample.json
var sample []byte

// Item is the stock of one product.
type Item struct {
	ProductID string `json:"product_id"`
	OnHand    int    `json:"on_hand"`
}

// Sample lists the sample products.
func Sample() ([]Item, error) {
	var items []Item
	if err := json.Unmarshal(sample, &items); err != nil {
		return nil, fmt.Errorf("read sample stock: %w", err)
	}
	return items, nil
}

// Load puts items into the warehouse behind base (http://host:port), except those it already knows, whose stock has a
// history by now. It returns how many were new.
func Load(ctx context.Context, client *http.Client, base string, items []Item) (added int, err error) {
	for _, item := range items {
		target, err := url.JoinPath(base, "v1", "inventory", item.ProductID)
		if err != nil {
			return added, fmt.Errorf("load stock of %s: %w", item.ProductID, err)
		}
		code, err := call(ctx, client, http.MethodGet, target, nil)
		if err != nil {
			return added, fmt.Errorf("look up stock of %s: %w", item.ProductID, err)
		}
		switch code {
		case http.StatusOK:
			continue
		case http.StatusNotFound:
		default:
			return added, fmt.Errorf("look up stock of %s: status %d", item.ProductID, code)
		}
		body, err := json.Marshal(map[string]int{"on_hand": item.OnHand})
		if err != nil {
			return added, fmt.Errorf("load stock of %s: %w", item.ProductID, err)
		}
		code, err = call(ctx, client, http.MethodPut, target, body)
		if err != nil {
			return added, fmt.Errorf("load stock of %s: %w", item.ProductID, err)
		}
		if code/100 != 2 {
			return added, fmt.Errorf("load stock of %s: status %d", item.ProductID, code)
		}
		added++
	}
	return added, nil
}

func call(ctx context.Context, client *http.Client, method, target string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}
