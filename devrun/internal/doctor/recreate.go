package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"waybill/contracts"
)

// Recreatable reports whether Recreate can repair the difference.
func (f Finding) Recreatable() bool {
	return f.Code == CodeSagaWithoutOrder || f.Code == CodeOrderNotPending
}

// Recreate places orders again, under the same ids, that a report says orders lost, with what the stores of the folder have of
// them. It calls done with the result of each. An order that exists with the same content is only added to the pending set.
func Recreate(ctx context.Context, state string, client *http.Client, orders string, r *Report, done func(id string, err error)) error {
	f, err := openFolder(ctx, state)
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // it was read
	s := &folderSource{folder: f}
	if err := s.prepare(ctx, false); err != nil {
		return err
	}
	placed := map[string]bool{}
	for _, found := range r.Differences {
		if !found.Recreatable() || placed[found.Order] {
			continue
		}
		placed[found.Order] = true
		o, err := s.look(ctx, found.Order)
		if err != nil {
			return err
		}
		var content contracts.Order
		switch {
		case o.order != nil:
			content = o.order.Content
		case o.saga != nil && o.saga.started():
			content = o.saga.Order
		default:
			continue // it is gone meanwhile
		}
		done(found.Order, place(ctx, client, orders, content))
	}
	return nil
}

func place(ctx context.Context, client *http.Client, orders string, content contracts.Order) error {
	target, err := url.JoinPath(orders, "v1", "orders")
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	body, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 2000))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("place order: status %d: %s", resp.StatusCode, answer)
	}
	return nil
}
