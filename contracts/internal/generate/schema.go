package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			buf.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		buf.Write(name)
		buf.WriteByte(':')
		buf.Write(value)
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

// schemaOf returns the JSON Schema of an event's data. The schema allows unknown properties, because a payload may get new ones.
func schemaOf(e contracts.Event, c comments) object {
	return slices.Concat(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", "urn:waybill:event:" + e.Type + ":" + contracts.Version},
		{"title", e.Type},
		{"description", e.Doc},
	}, structSchema(reflect.TypeOf(e.Sample), e.Enums, c))
}

// field is one property of a payload.
type field struct {
	name, comment string
	required      bool
	typ           reflect.Type
}

// fields lists a struct's properties in the order of its JSON, with those of embedded structs in place.
func fields(t reflect.Type, c comments) []field {
	var found []field
	for f := range t.Fields() {
		if f.Anonymous {
			found = append(found, fields(f.Type, c)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		found = append(found, field{name: name, comment: c[t.Name()+"."+f.Name], required: !optional, typ: f.Type})
	}
	return found
}

func structSchema(t reflect.Type, enums map[string][]string, c comments) object {
	all := fields(t, c)
	properties, required := make(object, 0, len(all)), []string{}
	for _, f := range all {
		schema := typeSchema(f.typ, enums[f.name], c)
		if f.comment != "" {
			schema = append(schema, member{"description", f.comment})
		}
		properties = append(properties, member{f.name, schema})
		if f.required {
			required = append(required, f.name)
		}
	}
	return object{{"type", "object"}, {"properties", properties}, {"required", required}}
}

func typeSchema(t reflect.Type, enum []string, c comments) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{{"type", "string"}, {"format", "date-time"}}
	case t == reflect.TypeFor[contracts.Amount]():
		return object{{"type", "number"}, {"multipleOf", 0.0001}}
	case t.Kind() == reflect.Slice:
		return object{{"type", "array"}, {"items", typeSchema(t.Elem(), enum, c)}}
	case t.Kind() == reflect.Pointer:
		return typeSchema(t.Elem(), enum, c)
	case t.Kind() == reflect.Struct:
		return structSchema(t, nil, c)
	case t.Kind() == reflect.Map:
		return object{{"type", "object"}}
	case t.Kind() == reflect.Int:
		return object{{"type", "integer"}}
	case t.Kind() == reflect.Float64:
		return object{{"type", "number"}}
	case t.Kind() == reflect.String && enum != nil:
		return object{{"type", "string"}, {"enum", enum}}
	case t.Kind() == reflect.String:
		return object{{"type", "string"}}
	case t.Kind() == reflect.Bool:
		return object{{"type", "boolean"}}
	default:
		panic("no JSON Schema is known for the Go type " + t.String())
	}
}
