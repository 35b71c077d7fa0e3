// Package timestamp parses and checks times that come from outside. All services use it, so a time that one of them accepts can
// be compared, stored and written by all. It does not know what the times mean.
package timestamp

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// First is the earliest accepted time, and accepted times are before End. In this range, nanoseconds since 1970 fit into 64 bits,
// differences fit into a time.Duration, and no zone offset leads to a year that JSON cannot write.
var (
	First = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	End   = time.Date(2200, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// maxOffset is the largest accepted offset from UTC. Kiribati has +14:00, and no zone has more.
const maxOffset = 14 * time.Hour

// Parse parses an RFC 3339 time with upper-case T and Z and a zone, and returns it in UTC. A fraction may have any number of
// digits; Parse drops those after nanoseconds. It rejects leap seconds, because no clock here has them. The error says what is
// expected.
func Parse(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		if len(text) > len("2006-01-02T15:04:") && strings.HasPrefix(text[len("2006-01-02T15:04:"):], "60") {
			return time.Time{}, fmt.Errorf("must not be a leap second; send second 59 instead, got %q", clipped(text))
		}
		return time.Time{}, formatError(text)
	}
	// time.Parse accepts more than RFC 3339: a comma in place of the point, and an hour of one digit.
	if strings.Contains(text, ",") || text[len("2006-01-02T15")] != ':' {
		return time.Time{}, formatError(text)
	}
	if _, offset := at.Zone(); time.Duration(offset)*time.Second > maxOffset || time.Duration(offset)*time.Second < -maxOffset {
		return time.Time{}, fmt.Errorf("must have a zone from -14:00 to +14:00, got %q", clipped(text))
	}
	at = at.UTC()
	return at, Check(at)
}

func formatError(text string) error {
	return fmt.Errorf("must be an RFC 3339 time with a zone, such as 2026-03-14T09:26:53Z, got %q", clipped(text))
}

// clipped returns at most 64 bytes of the text, so that errors stay short.
func clipped(text string) string {
	const most = 64
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Check returns an error if the time is out of range. The zero time is out of range.
func Check(at time.Time) error {
	if at.Before(First) || !at.Before(End) {
		return fmt.Errorf("must be a time in the years 2000 to 2199 in UTC, got %s", at.UTC().Format(time.RFC3339))
	}
	return nil
}

// Writable reports whether JSON can encode the time in UTC, that is, whether its year has four digits. A zone offset can lead to
// another year.
func Writable(at time.Time) bool {
	year := at.UTC().Year()
	return year >= 0 && year <= 9999
}

// FindUnwritable returns the JSON path of the first time in a decoded value that JSON cannot encode in UTC. The path is empty if
// there is none.
func FindUnwritable(v any) (path string) { return unwritable(reflect.ValueOf(v), "") }

func unwritable(v reflect.Value, path string) string {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return unwritable(v.Elem(), path)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return ""
		}
		for i := range v.Len() {
			if found := unwritable(v.Index(i), fmt.Sprintf("%s[%d]", path, i)); found != "" {
				return found
			}
		}
	case reflect.Struct:
		if at, ok := reflect.TypeAssert[time.Time](v); ok {
			if !Writable(at) {
				return path
			}
			return ""
		}
		for i := range v.NumField() {
			if found := ofField(v.Type().Field(i), v.Field(i), path); found != "" {
				return found
			}
		}
	}
	return ""
}

func ofField(field reflect.StructField, v reflect.Value, path string) string {
	if !field.IsExported() && !field.Anonymous {
		return ""
	}
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	switch {
	case name == "-" || !v.CanInterface():
		return ""
	case field.Anonymous && name == "":
		return unwritable(v, path)
	case name == "":
		name = field.Name
	}
	if path != "" {
		name = path + "." + name
	}
	return unwritable(v, name)
}
