// Package timestamp says which times from outside are accepted, and reads them. Every service asks here, so that a time that one of
// them accepts can be compared, stored and written by all. It knows nothing of what the times mean.
package timestamp

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Times from callers are from First on and before End, in UTC. In this range nanoseconds since 1970 fit into 64 bits, differences
// fit into a time.Duration, and a zone's offset leads to no year that JSON cannot write.
var (
	First = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	End   = time.Date(2200, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// maxOffset is how far a zone may be from UTC: Kiribati's is +14:00, and no zone is further away.
const maxOffset = 14 * time.Hour

// Parse reads a time as RFC 3339 writes it: with upper-case T and Z, and with a zone. A fraction may have any number of digits;
// those beyond nanoseconds are cut off. Leap seconds are refused, for no clock here has them. The error says what is expected.
func Parse(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		if len(text) > len("2006-01-02T15:04:") && strings.HasPrefix(text[len("2006-01-02T15:04:"):], "60") {
			return time.Time{}, fmt.Errorf("must not be a leap second; send second 59 instead, got %q", clipped(text))
		}
		return time.Time{}, wrongForm(text)
	}
	// time.Parse accepts more than RFC 3339: a comma in place of the point, and an hour of one digit.
	if strings.Contains(text, ",") || text[len("2006-01-02T15")] != ':' {
		return time.Time{}, wrongForm(text)
	}
	if _, offset := at.Zone(); time.Duration(offset)*time.Second > maxOffset || time.Duration(offset)*time.Second < -maxOffset {
		return time.Time{}, fmt.Errorf("must have a zone from -14:00 to +14:00, got %q", clipped(text))
	}
	at = at.UTC()
	return at, Check(at)
}

func wrongForm(text string) error {
	return fmt.Errorf("must be an RFC 3339 time with a zone, such as 2026-03-14T09:26:53Z, got %q", clipped(text))
}

// clipped keeps an answer short.
func clipped(text string) string {
	const most = 64
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Check refuses a time out of range; the zero time is out of range.
func Check(at time.Time) error {
	if at.Before(First) || !at.Before(End) {
		return fmt.Errorf("must be a time in the years 2000 to 2199 in UTC, got %s", at.UTC().Format(time.RFC3339))
	}
	return nil
}

// Writable reports whether JSON can write the time in UTC: its year has four digits. A zone's offset can lead out of them.
func Writable(at time.Time) bool {
	year := at.UTC().Year()
	return year >= 0 && year <= 9999
}

// FindUnwritable finds the first time in a decoded value that JSON cannot write again in UTC, and names it by its JSON path; path is
// empty when there is none.
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
