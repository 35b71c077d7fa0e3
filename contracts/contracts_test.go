package contracts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
)

func TestStockChangedTypes(t *testing.T) {
	t.Parallel()
	for stock, want := range map[int]string{
		100: contracts.TypeInventoryUpdated, 10: contracts.TypeInventoryUpdated, 9: contracts.TypeInventoryLowStock,
		1: contracts.TypeInventoryLowStock, 0: contracts.TypeInventoryDepleted, -1: contracts.TypeInventoryDepleted,
	} {
		if got := (contracts.StockChanged{CurrentStock: stock}).EventType(); got != want {
			t.Errorf("a stock of %d is announced as %s, want %s", stock, got, want)
		}
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	for bus, want := range map[string][]string{
		contracts.OrderBus: {
			"fulfillment", "fulfillment.notifications.dead", "fulfillment.orders.dead",
			"inventory", "inventory.notifications.dead",
			"notification-outcomes", "notifications", "notifications.notifications.dead",
			"orders", "orders.analytics.dead", "orders.fulfillment.dead", "orders.orders.dead",
		},
		contracts.TelemetryBus: {"alerts", "analytics-events", "analytics-events.analytics.dead"},
	} {
		got := contracts.TopicsOf(bus)
		if !slices.Equal(got, want) {
			t.Errorf("topics of %s are %q, want %q", bus, got, want)
		}
		for _, topic := range got {
			if !slices.Contains(contracts.Topics(), topic) {
				t.Errorf("%s is not among all topics", topic)
			}
		}
	}
	for _, topic := range contracts.EventTopics() {
		if contracts.Owner(topic) == "" {
			t.Errorf("topic %s has no owner", topic)
		}
	}
	if owner := contracts.Owner("elsewhere"); owner != "" {
		t.Errorf("an unknown topic is owned by %s", owner)
	}
	for _, s := range contracts.Subscriptions() {
		if !slices.Contains(contracts.EventTopics(), s.Topic) {
			t.Errorf("%s reads %s, which is no topic", s.App, s.Topic)
		}
	}
}

// TestCatalogueIsComplete reads the constants from the source, so that it checks all of them.
func TestCatalogueIsComplete(t *testing.T) {
	t.Parallel()
	types, topics, steps := constants(t, "Type"), constants(t, "Topic"), constants(t, "Step")
	if len(types) == 0 || len(topics) == 0 || len(steps) == 0 {
		t.Fatalf("found %d types, %d topics and %d steps in the source", len(types), len(topics), len(steps))
	}
	count := map[string]int{}
	for _, e := range contracts.Catalogue() {
		count[e.Type]++
		if !slices.Contains(contracts.EventTopics(), e.Topic) {
			t.Errorf("%s is on %q, which is no topic", e.Type, e.Topic)
		}
		if got := e.Sample.EventType(); got != e.Type {
			t.Errorf("the sample of %s is a %s", e.Type, got)
		}
		if e.Doc == "" {
			t.Errorf("%s has no description", e.Type)
		}
	}
	for _, eventType := range types {
		if count[eventType] != 1 {
			t.Errorf("%s is %d times in the catalogue, and so on as many topics; want once", eventType, count[eventType])
		}
	}
	if len(count) != len(types) {
		t.Errorf("the catalogue has %d types, the source names %d", len(count), len(types))
	}
	if got := slices.Sorted(slices.Values(contracts.EventTopics())); !slices.Equal(got, topics) {
		t.Errorf("the topics are %q, the source names %q", got, topics)
	}
	e, _ := contracts.Lookup(contracts.TypeStepCompleted)
	if got := slices.Sorted(slices.Values(e.Enums["step"])); !slices.Equal(got, steps) {
		t.Errorf("the schema allows the steps %q, the source names %q", got, steps)
	}
}

// constants returns the values of the package's string constants whose names begin with prefix, sorted.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				if literal, ok := spec.Values[i].(*ast.BasicLit); ok && literal.Kind == token.STRING && strings.HasPrefix(name.Name, prefix) {
					values = append(values, constant.StringVal(constant.MakeFromLiteral(literal.Value, token.STRING, 0)))
				}
			}
			return true
		})
	}
	slices.Sort(values)
	return values
}

// envelope has the CloudEvent attributes that these tests check.
type envelope struct {
	Type        string          `json:"type"`
	Subject     string          `json:"subject"`
	DataVersion string          `json:"dataversion"`
	Data        json.RawMessage `json:"data"`
}

func TestSamples(t *testing.T) {
	t.Parallel()
	for _, e := range contracts.Catalogue() {
		t.Run(e.Type, func(t *testing.T) {
			t.Parallel()
			var sample envelope
			if err := json.Unmarshal(contracts.Sample(e.Type), &sample); err != nil {
				t.Fatal(err)
			}
			if sample.Type != e.Type || sample.Subject != e.Sample.Subject() || sample.DataVersion != contracts.Version {
				t.Errorf("the sample says %s, %s, %s", sample.Type, sample.Subject, sample.DataVersion)
			}
			reencodes(t, e, sample.Data)
			for _, fault := range validate(t, e.Type, sample.Data) {
				t.Error(fault)
			}
			var data map[string]any
			if err := json.Unmarshal(sample.Data, &data); err != nil {
				t.Fatal(err)
			}
			if got := data[e.KeyField]; got != e.Sample.Key() {
				t.Errorf("the field %s is %v, the ordering key %q", e.KeyField, got, e.Sample.Key())
			}
			// A sample shows every field, so that the guard against breaking changes sees every field.
			unset(t, reflect.ValueOf(e.Sample), e.Type)
		})
	}
}

func unset(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	for i := range v.NumField() {
		f, name := v.Field(i), path+"."+v.Type().Field(i).Name
		switch {
		case f.Type() == reflect.TypeFor[int](): // zero is a stock like any other
		case f.IsZero():
			t.Errorf("%s is not set in the sample", name)
		case f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[time.Time]():
			unset(t, f, name)
		}
	}
}

// reencodes decodes data into the payload struct of e, strictly, and compares what that encodes to.
func reencodes(t *testing.T, e contracts.Event, data []byte) {
	t.Helper()
	payload := reflect.New(reflect.TypeOf(e.Sample))
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(payload.Interface()); err != nil {
		t.Fatalf("the data cannot be decoded: %v", err)
	}
	again, err := json.Marshal(payload.Interface())
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, want.Bytes()) {
		t.Errorf("decoded and encoded again the data is\n%s\nwant\n%s", again, want.Bytes())
	}
	if got := payload.Elem().Interface().(contracts.Payload).EventType(); got != e.Type {
		t.Errorf("the decoded payload is a %s", got)
	}
}

// TestReleasedSamplesStillDecode protects events of earlier releases: on the bus, in dead-letter topics and in other programs. A file
// in testdata/<version> is a released sample. Add files, and never change one.
func TestReleasedSamplesStillDecode(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/1.0/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no released samples: %v", err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var released envelope
		if err := json.Unmarshal(content, &released); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, ok := contracts.Lookup(released.Type)
		if !ok {
			t.Errorf("%s: the event type does not exist any more", name)
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			// A field that was removed or renamed fails here, one that is newly required in the schema.
			reencodes(t, e, released.Data)
			for _, fault := range validate(t, e.Type, released.Data) {
				t.Error(fault)
			}
		})
	}
}

func TestConsumersIgnoreUnknownFields(t *testing.T) {
	t.Parallel()
	data := []byte(`{"order_id":"ORD-1001","customer_id":"CUST-123","status":"confirmed","previous_status":"received",` +
		`"updated_at":"2026-03-14T09:26:53Z","added_later":{"by":"another release"}}`)
	var e contracts.OrderUpdated
	if err := json.Unmarshal(data, &e); err != nil || e.Status != "confirmed" {
		t.Errorf("decoded %+v, %v", e, err)
	}
	if faults := validate(t, contracts.TypeOrderUpdated, data); len(faults) != 0 {
		t.Errorf("the schema refuses a field that was added later: %q", faults)
	}
}

func TestNothingUndoneIsAnEmptyList(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(contracts.FulfillmentFailed{OrderID: "ORD-1001", CustomerID: "CUST-123"})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range validate(t, contracts.TypeFulfillmentFailed, data) {
		t.Error(fault)
	}
}

func TestSchemasRejectInvalidData(t *testing.T) {
	t.Parallel()
	sample := string(contracts.Sample(contracts.TypeStepCompleted))
	for change, want := range map[[2]string]string{
		{`"ProcessShipment"`, `"Guess"`}:        "step",
		{`12.50`, `12.50001`}:                   "amount",
		{`"2026-03-14T09:26:56Z"`, `"at noon"`}: "completed_at",
		{`"CUST-123"`, `123`}:                   "customer_id",
		{`"order_id"`, `"OrderID"`}:             "order_id",
	} {
		changed := strings.ReplaceAll(sample, change[0], change[1])
		if changed == sample {
			t.Fatalf("the sample has no %s", change[0])
		}
		var e envelope
		if err := json.Unmarshal([]byte(changed), &e); err != nil {
			t.Fatal(err)
		}
		faults := validate(t, contracts.TypeStepCompleted, e.Data)
		if len(faults) != 1 || !strings.Contains(faults[0], want) {
			t.Errorf("%s instead of %s: the schema says %q", change[1], change[0], faults)
		}
	}
}

func TestUnknownTypesHaveNoSchema(t *testing.T) {
	t.Parallel()
	for _, eventType := range []string{"", "Order.Unknown", "../schemas/Order.Created"} {
		if contracts.Schema(eventType) != nil || contracts.Sample(eventType) != nil {
			t.Errorf("there is a schema or a sample of %q", eventType)
		}
	}
}

// schema is the part of JSON Schema that the generated ones use.
type schema struct {
	Type       string            `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	Enum       []string          `json:"enum"`
	Format     string            `json:"format"`
	MultipleOf float64           `json:"multipleOf"`
}

func validate(t *testing.T, eventType string, data []byte) []string {
	t.Helper()
	var s schema
	if err := json.Unmarshal(contracts.Schema(eventType), &s); err != nil {
		t.Fatalf("the schema of %s: %v", eventType, err)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return s.faults("", value)
}

func (s schema) faults(path string, value any) []string {
	var found []string
	switch v := value.(type) {
	case map[string]any:
		if s.Type != "object" {
			return []string{path + " is an object"}
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				found = append(found, path+" lacks "+name)
			}
		}
		for name, property := range s.Properties {
			if inner, ok := v[name]; ok {
				found = append(found, property.faults(path+"."+name, inner)...)
			}
		}
	case []any:
		if s.Type != "array" {
			return []string{path + " is a list"}
		}
		for i, item := range v {
			found = append(found, s.Items.faults(fmt.Sprintf("%s[%d]", path, i), item)...)
		}
	case string:
		_, err := time.Parse(time.RFC3339, v)
		if s.Type != "string" || s.Enum != nil && !slices.Contains(s.Enum, v) || s.Format == "date-time" && err != nil {
			found = append(found, fmt.Sprintf("%s is %q", path, v))
		}
	case float64:
		whole, exact := v == math.Trunc(v), math.Abs(v*1e4-math.Round(v*1e4)) < 1e-6
		if s.Type != "number" && (s.Type != "integer" || !whole) || s.MultipleOf == 0.0001 && !exact {
			found = append(found, fmt.Sprintf("%s is %v", path, v))
		}
	case bool:
		if s.Type != "boolean" {
			found = append(found, fmt.Sprintf("%s is %v", path, v))
		}
	default:
		found = append(found, fmt.Sprintf("%s is %v", path, v))
	}
	return found
}
