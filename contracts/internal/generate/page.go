package main

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

const pageHead = `<!-- Generated from contracts by go generate; do not edit. -->
# Events

Every event is a [CloudEvent 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md) in
structured JSON. Its ` + "`id`" + ` is derived from the fact, so a retry has the same id, and consumers can ignore an id that they have
seen. ` + "`subject`" + ` says what the event is about, and ` + "`dataversion`" + ` is the version of its data.

A version may get new fields, so ignore unknown ones. Any other change is a new version beside the old one.
Money is a decimal number with two to four decimal places in every currency: 705 JPY is written 705.00. Times are RFC 3339.
The JSON Schema of each type's data is in
[contracts/schemas](../contracts/schemas), the samples below are in [contracts/samples](../contracts/samples).

Only the owner of a topic publishes to it. Events with the same ordering key arrive in the order in which they were published. The key
is sent as ` + "`partitionKey`" + ` (Kafka, Event Hubs) and ` + "`SessionId`" + ` (Service Bus, where two events of a key
may still overtake each other). On Service Bus every event needs a ` + "`SessionId`" + `, and its ` + "`MessageId`" + ` is the event's id. An event
that a subscriber can never process is dead-lettered: it goes to the subscription's dead-letter topic, with the reason in its attributes ` + "`parkedby`" + `,
` + "`parkedreason`" + ` and ` + "`parkedat`" + `.
`

// eventsPage returns docs/events.md.
func eventsPage(c comments) ([]byte, error) {
	var page bytes.Buffer
	page.WriteString(pageHead)

	page.WriteString("\n## Topics\n\n| topic | component | owner | subscribers | dead-letter topics | ordering key |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, topic := range contracts.EventTopics() {
		var subscribers, deadLetters, keys []string
		for _, s := range contracts.Subscriptions() {
			if s.Topic == topic {
				subscribers, deadLetters = append(subscribers, s.App), append(deadLetters, code(s.DeadLetter()))
			}
		}
		for _, e := range on(topic) {
			if key := code(e.KeyField); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		fmt.Fprintf(&page, "| %s | %s | %s | %s | %s | %s |\n", code(topic), code(contracts.Bus(topic)), contracts.Owner(topic),
			orNone(subscribers), orNone(deadLetters), strings.Join(keys, ", "))
	}

	for _, topic := range contracts.EventTopics() {
		fmt.Fprintf(&page, "\n## On %s\n", code(topic))
		for _, e := range on(topic) {
			sample, err := indented(sampleOf(e))
			if err != nil {
				return nil, fmt.Errorf("sample of %s: %w", e.Type, err)
			}
			fmt.Fprintf(&page, "\n### %s\n\n%s Subject %s, ordered by %s.\n\n", e.Type, e.Doc, code(e.Sample.Subject()), code(e.KeyField))
			page.WriteString("| field | type | required | |\n| --- | --- | --- | --- |\n")
			table(&page, "", reflect.TypeOf(e.Sample), e.Enums, c)
			fmt.Fprintf(&page, "\n```json\n%s```\n", sample)
		}
	}
	return page.Bytes(), nil
}

func on(topic string) []contracts.Event {
	return slices.DeleteFunc(contracts.Catalogue(), func(e contracts.Event) bool { return e.Topic != topic })
}

func code(s string) string { return "`" + s + "`" }

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// table writes one row for each field, with the fields of nested structs below their parent.
func table(page *bytes.Buffer, prefix string, t reflect.Type, enums map[string][]string, c comments) {
	for _, f := range fields(t, c) {
		required := ""
		if f.required {
			required = "yes"
		}
		remark := f.comment
		if values := enums[f.name]; values != nil {
			quoted := make([]string, len(values))
			for i, value := range values {
				quoted[i] = code(value)
			}
			remark = strings.TrimSpace(remark + " One of " + strings.Join(quoted, ", ") + ".")
		}
		fmt.Fprintf(page, "| %s | %s | %s | %s |\n", code(prefix+f.name), typeName(f.typ), required, remark)
		switch inner, path := f.typ, prefix+f.name; {
		case inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct:
			table(page, path+"[].", inner.Elem(), nil, c)
		case inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]():
			table(page, path+".", inner, nil, c)
		}
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[contracts.Amount]():
		return "amount"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Int:
		return "integer"
	case t.Kind() == reflect.Float64:
		return "number"
	default:
		return t.Kind().String()
	}
}
