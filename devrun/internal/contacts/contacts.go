// Package contacts gives the sample customer addresses at the inbox, through the API of notifications.
package contacts

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

// Customer is the sample customer.
const Customer = "CUST-123"

// sample is the contact of the sample customer without the push subscription, which the inbox creates.
func sample() contracts.Contact {
	return contracts.Contact{
		Name:        "Test Customer",
		Email:       "cust-123@example.com",
		Phone:       "+12065550123",
		Preferences: &contracts.Preferences{Email: true, SMS: true, Push: true},
	}
}

// Load sets the contact of the sample customer at the notifications service at base (http://host:port), unless it has one: a
// contact that a person changed stays. Only a push subscription of this inbox (http://host:port) is updated, because its address
// contains the inbox's port, which can differ in each run. If inbox is empty, the contact has no push subscription. Load reports
// whether it changed anything.
func Load(ctx context.Context, client *http.Client, base, inbox string) (changed bool, err error) {
	var push *contracts.PushAddress
	if inbox != "" {
		subscription, err := url.JoinPath(inbox, "subscriptions", Customer)
		if err != nil {
			return false, fmt.Errorf("address of the inbox: %w", err)
		}
		push = &contracts.PushAddress{}
		if code, err := call(ctx, client, http.MethodPut, subscription, nil, push); err != nil || code/100 != 2 {
			return false, failed("make a push subscription for "+Customer, code, err)
		}
	}
	target, err := url.JoinPath(base, "v1", "customers", Customer, "contact")
	if err != nil {
		return false, fmt.Errorf("address of notifications: %w", err)
	}
	var known contracts.Contact
	code, err := call(ctx, client, http.MethodGet, target, nil, &known)
	switch {
	case err == nil && code == http.StatusNotFound:
		known = sample()
		known.Preferences.Push = push != nil
	case err != nil || code != http.StatusOK:
		return false, failed("look up the contact of "+Customer, code, err)
	case push == nil || known.Push == nil || *known.Push == *push || !ours(known.Push.Endpoint):
		return false, nil
	}
	known.Push = push
	if code, err = call(ctx, client, http.MethodPut, target, known, nil); err != nil || code/100 != 2 {
		return false, failed("tell the contact of "+Customer, code, err)
	}
	return true, nil
}

// ours reports whether a push address is this machine's inbox, on any port.
func ours(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Scheme == "http" && u.Hostname() == "127.0.0.1" && u.Path == "/push/"+Customer
}

func failed(doing string, code int, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: status %d", doing, code)
}

// call sends body as JSON, unless it is nil, and reads an answer of 200 or 201 into answer, unless that is nil.
func call(ctx context.Context, client *http.Client, method, target string, body, answer any) (int, error) {
	var text io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		text = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, text)
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
	if answer != nil && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated) {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			return resp.StatusCode, err
		}
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}
