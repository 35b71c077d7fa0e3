package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

// Sources of events. An id is unique among the events of one source, so the pair of source and id identifies an event.
const (
	// SourceClients is the source of what clients send to this service's API. They choose ids, never sources.
	SourceClients = "/waybill/analytics/events"
	// SourceOrders is the source of the purchases that this service makes from orders.
	SourceOrders = "/waybill/analytics/orders"

	// sourceBoth was the source of both in release 1.0.
	sourceBoth = "/waybill/analytics"
	// sourceUnknown is the source of an event on the bus without a source.
	sourceUnknown = "unknown"
)

// orderPrefix begins the ids of purchases of orders.
const orderPrefix = "order:"

// separator is between id and source in a key. Ids and sources have printable characters only, so neither contains it.
const separator = "\x1f"

// maxSource is the longest source, in bytes, that is part of a key unchanged.
const maxSource = 100

// keyOf is the key of a source and an id: the id alone if its prefix shows the source, otherwise both. Release 1.0 had no
// sources; the keys of events of clients and orders are the same as then, so its rows are still known.
func keyOf(source, id string) string {
	if source == SourceClients && !strings.HasPrefix(id, orderPrefix) || source == SourceOrders && strings.HasPrefix(id, orderPrefix) {
		return id
	}
	return id + separator + source
}

// pairOf is the source and the id of a stored event.
func pairOf(key string, kind Type) (source, id string) {
	if id, source, ok := strings.Cut(key, separator); ok {
		return source, id
	}
	return sourceOf(sourceBoth, key, kind), key
}

// sourceOf is the source that is used for an event with this source attribute.
func sourceOf(named, id string, kind Type) string {
	switch named {
	case SourceClients, SourceOrders:
		return named
	case sourceBoth:
		if kind == Purchased && strings.HasPrefix(id, orderPrefix) {
			return SourceOrders
		}
		return SourceClients
	case "":
		return sourceUnknown
	}
	if len(named) > maxSource || strings.ContainsFunc(named, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		sum := sha256.Sum256([]byte(named))
		return "sha256:" + hex.EncodeToString(sum[:16])
	}
	return named
}
