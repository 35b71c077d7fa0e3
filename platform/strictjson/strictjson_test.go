package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"waybill/platform/strictjson"
)

type thing struct {
	Name  string          `json:"name"`
	Count int             `json:"count"`
	Items []thing         `json:"items"`
	Rest  json.RawMessage `json:"rest"`
	Any   any             `json:"any"`
}

func TestUnmarshalRejectsAndReportsThePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text, path, rule string
		offset                 int64
		mistyped               bool
	}{
		{"a duplicate name", `{"name":"a","name":"b"}`, "name", "must appear once", 12, false},
		{"a duplicate name by escapes", `{"name":"a","n\u0061me":"b"}`, "name", "must appear once", 12, false},
		{"a duplicate unknown name", `{"x":1,"x":2}`, "x", "must appear once", 7, false},
		{"a duplicate name in a nested object", `{"items":[{},{"name":"a","name":"b"}]}`, "items[1].name", "must appear once", 25, false},
		{"a duplicate name in raw text", `{"rest":{"a":1,"a":2}}`, "rest.a", "must appear once", 15, false},
		{"a duplicate name in an any", `{"any":{"a":1,"a":2}}`, "any.a", "must appear once", 14, false},
		{"a duplicate name in an ignored member", `{"other":{"a":1,"a":2}}`, "other.a", "must appear once", 16, false},
		{"bytes that are not UTF-8", "{\"name\":\"Stra\xdfe\"}", "name", "valid UTF-8", 13, false},
		{"a name that is not UTF-8", "{\"Stra\xdfe\":1}", "", "valid UTF-8", 6, false},
		{"a surrogate in UTF-8", "{\"name\":\"\xed\xa0\xbd\"}", "name", "valid UTF-8", 9, false},
		{"half a surrogate pair", `{"name":"\ud83d"}`, "name", "surrogate", 9, false},
		{"the other half", `{"items":[{"name":"\ude42"}]}`, "items[0].name", "surrogate", 19, false},
		{"an extra comma", `{"name":"a",}`, "", "not valid JSON", 11, false},
		{"text after the value", `{} {}`, "", "not valid JSON", 3, false},
		{"no value", ``, "", "not valid JSON", 0, false},
		{"an incomplete value", `{"name":`, "name", "not valid JSON", 8, false},
		{"a number out of range", `{"count":1e999}`, "count", "must not be a JSON number", 0, true},
		{"a large integer", `{"count":99999999999999999999}`, "count", "out of range", 0, true},
		{"a number out of range in an any", `{"any":[1e999]}`, "any[0]", "out of range", 0, true},
		{"a wrong type", `{"count":"1"}`, "count", "must not be a JSON string", 0, true},
		{"deep nesting", strings.Repeat("[", 1_000_000), "", "nested more than 100 deep", 100, false},
	} {
		var v thing
		err := strictjson.Unmarshal([]byte(c.text), &v)
		refused, ok := errors.AsType[*strictjson.Error](err)
		if !ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if refused.Path != c.path || !strings.Contains(refused.Rule, c.rule) || refused.WrongType != c.mistyped || !c.mistyped && refused.Offset != c.offset {
			t.Errorf("%s: %+v", c.name, refused)
		}
		if strings.Contains(refused.Error(), "thing") || strings.Contains(refused.Error(), "Go ") {
			t.Errorf("%s: %q names a type", c.name, refused)
		}
		if err := strictjson.Check([]byte(c.text)); c.mistyped != (err == nil) {
			t.Errorf("%s: Check returned %v", c.name, err)
		}
	}
}

func TestNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	v := thing{}
	if err := strictjson.Unmarshal([]byte(`{"count":9,"COUNT":7,"Name":"x","itemſ":[{}]}`), &v); err != nil || v.Count != 9 || v.Name != "" || v.Items != nil {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestValidTextIsUnchanged(t *testing.T) {
	t.Parallel()
	v := thing{}
	text := ` {"name":"Straße \ud83d\ude42 \u0000","count":-0,"items":null,"any":{"a":[1,"�"]}} `
	if err := strictjson.Unmarshal([]byte(text), &v); err != nil || v.Name != "Straße 🙂 \x00" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := strictjson.Check([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); err != nil {
		t.Error(err)
	}
}

// Values that Unmarshal accepts decode as with encoding/json.
func FuzzUnmarshalAgreesWithEncodingJSON(f *testing.F) {
	for _, seed := range []string{`{"name":"a","count":1,"items":[{"any":[1,"2",null]}],"rest":{}}`, `{"name":"a","name":"b"}`, "\"\xff\"", `{"Name":1}`, `[{}]`, `"\ud83d"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var strict, lenient any
		if strictjson.Unmarshal(data, &strict) != nil {
			return
		}
		if err := json.Unmarshal(data, &lenient); err != nil {
			t.Fatalf("Unmarshal accepts %q, but encoding/json returns %v", data, err)
		}
		a, errA := json.Marshal(strict)
		b, errB := json.Marshal(lenient)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Fatalf("%q: %s and %s", data, a, b)
		}
	})
}
