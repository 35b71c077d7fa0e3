package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"waybill/platform/strictjson"
)

// notStrict are events that JSON decoders decode differently, and what the reason must contain for each.
var notStrict = map[string]struct{ event, place, rule string }{
	"a duplicate attribute":         {`{"id":"bad","type":"T","source":"/s","source":"/other","data":{}}`, "source", "must appear once"},
	"a duplicate id":                {`{"id":"bad","id":"bad","type":"T","data":{}}`, "id", "must appear once"},
	"a duplicate unknown attribute": {`{"id":"bad","type":"T","x":"","x":"","data":{}}`, "x", "must appear once"},
	"a duplicate in the data":       {`{"id":"bad","type":"T","data":{"items":[{"price":1,"price":2}]}}`, "data.items[0].price", "must appear once"},
	"a duplicate by escapes":        {`{"id":"bad","type":"T","data":{"price":1,"pr\u0069ce":2}}`, "data.price", "must appear once"},
	"data that is not UTF-8":        {"{\"id\":\"bad\",\"type\":\"T\",\"data\":{\"street\":\"Stra\xdfe\"}}", "data.street", "valid UTF-8"},
	"a subject that is not UTF-8":   {"{\"id\":\"bad\",\"type\":\"T\",\"subject\":\"Stra\xdfe\",\"data\":{}}", "subject", "valid UTF-8"},
	"half a surrogate pair":         {`{"id":"bad","type":"T","data":{"street":"\ud83d"}}`, "data.street", "surrogate"},
	"deep nesting":                  {`{"id":"bad","type":"T","data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "", "nested more than 100 deep"},
}

func TestAnEventThatIsNotStrictJSONIsDeadLettered(t *testing.T) {
	t.Parallel()
	for name, c := range notStrict {
		for _, bulk := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", bulk ", bulk), func(t *testing.T) {
				t.Parallel()
				var handled []string
				s := handling(func(_ context.Context, e Event) error { handled = append(handled, e.ID); return nil })
				if bulk {
					s = bulkOf(func(_ context.Context, events []Event) []error {
						for _, e := range events {
							handled = append(handled, e.ID)
						}
						return make([]error, len(events))
					})
				}
				x := receive(t, "", s)
				x.receiver.brokerRetries = true
				if bulk {
					if got := x.statuses(t, batchOf(cloudEventOf("e1"), c.event, cloudEventOf("e2"))); slices.Contains(got, "RETRY") || len(got) != 3 {
						t.Errorf("answered %q", got)
					}
				} else {
					for _, event := range []string{cloudEventOf("e1"), c.event, cloudEventOf("e2")} {
						x.deliver(t, "/events/orders", undecoded(event))
					}
				}
				if want := []string{"e1", "e2"}; !slices.Equal(handled, want) {
					t.Errorf("handled %q, want %q", handled, want)
				}
				dead := x.dead(t)
				if len(dead) != 1 {
					t.Fatalf("dead-lettered %v", dead)
				}
				reason := fmt.Sprint(dead[0]["parkedreason"])
				if dead[0]["id"] != "bad" || dead[0]["type"] != "T" || !strings.Contains(reason, c.place) || !strings.Contains(reason, c.rule) {
					t.Errorf("dead-lettered %v", dead[0])
				}
				if text, ok := dead[0]["data"].(string); !ok || !strings.Contains(text, `"id":"bad"`) || strings.Contains(c.event, "\xdf") != strings.Contains(text, `Stra\xdfe`) {
					t.Errorf("its data is %v", dead[0]["data"])
				}
			})
		}
	}
}

func TestDataIsDecodedByExactNames(t *testing.T) {
	t.Parallel()
	var got struct {
		Approved bool   `json:"approved"`
		Approver string `json:"approver"`
	}
	if err := (Event{Data: json.RawMessage(`{"approved":false,"approver":"x","Approved":true,"APPROVER":""}`)}).Decode(&got); err != nil || got.Approved || got.Approver != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	err := Event{Data: json.RawMessage(`{"approved":false,"approved":true}`)}.Decode(&got)
	if refused, ok := errors.AsType[*strictjson.Error](err); !ok || !Rejected(err) || refused.Path != "approved" {
		t.Errorf("%v", err)
	}
	var e Event
	if err := json.Unmarshal([]byte(`{"id":"e1","ID":"e2","type":"T","Data":{"a":1},"data":{"b":2}}`), &e); err != nil || e.ID != "e1" || string(e.Data) != `{"b":2}` {
		t.Errorf("%+v, %v", e, err)
	}
}
