package timestamp_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"waybill/platform/timestamp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-03-14T09:26:53Z":               "2026-03-14T09:26:53Z",
		"2026-03-14T09:26:53.123456789123Z":  "2026-03-14T09:26:53.123456789Z",
		"2026-03-14T10:26:53.5+01:00":        "2026-03-14T09:26:53.5Z",
		"2000-01-01T00:00:00Z":               "2000-01-01T00:00:00Z",
		"2199-12-31T23:59:59.999999999Z":     "2199-12-31T23:59:59.999999999Z",
		"2200-01-01T13:59:59+14:00":          "2199-12-31T23:59:59Z",
		"9999-12-31T23:59:59-01:00":          "years 2000 to 2199",
		"0001-01-01T00:00:00Z":               "years 2000 to 2199",
		"0000-01-01T00:00:00+01:00":          "years 2000 to 2199",
		"1999-12-31T23:59:59Z":               "years 2000 to 2199",
		"2200-01-01T00:00:00Z":               "years 2000 to 2199",
		"2199-12-31T23:30:00-01:00":          "years 2000 to 2199",
		"2000-01-01T00:00:00+01:00":          "years 2000 to 2199",
		"2026-12-31T23:59:60Z":               "leap second",
		"2026-03-14T09:26:53+14:01":          "-14:00 to +14:00",
		"2026-03-14T09:26:53-23:59":          "-14:00 to +14:00",
		"2026-03-14t09:26:53z":               "RFC 3339",
		"2026-03-14T09:26:53z":               "RFC 3339",
		"2026-03-14 09:26:53Z":               "RFC 3339",
		"2026-03-14T09:26:53":                "RFC 3339",
		"2026-03-14T09:26:53,5Z":             "RFC 3339",
		"2026-03-14T9:26:53Z":                "RFC 3339",
		"2026-02-29T09:26:53Z":               "RFC 3339",
		"20260314T092653Z":                   "RFC 3339",
		"12026-03-14T09:26:53Z":              "RFC 3339",
		"":                                   "RFC 3339",
		"1773480413":                         "RFC 3339",
		strings.Repeat("2026-03-14", 10_000): "RFC 3339",
	} {
		at, err := timestamp.Parse(text)
		switch {
		case err != nil && (!strings.Contains(err.Error(), want) || len(err.Error()) > 300):
			t.Errorf("%.50s: %v, want %s", text, err, want)
		case err == nil && at.Format(time.RFC3339Nano) != want:
			t.Errorf("%.50s is %s, want %s", text, at.Format(time.RFC3339Nano), want)
		}
	}
}

// Times around every limit in every zone: JSON can encode all that Parse accepts, and nanoseconds fit into 64 bits.
func TestAcceptedTimesCanBeWritten(t *testing.T) {
	t.Parallel()
	accepted := 0
	for _, year := range []int{0, 1, 1677, 1678, 1999, 2000, 2026, 2199, 2200, 2262, 2263, 9999} {
		for _, day := range []int{1, 365} {
			for offset := -24*60 + 1; offset < 24*60; offset += 7 {
				at := time.Date(year, 1, day, 23, 30, 0, 0, time.FixedZone("", offset*60))
				got, err := timestamp.Parse(at.Format(time.RFC3339Nano))
				if err != nil {
					continue
				}
				accepted++
				if _, err := json.Marshal(got); err != nil || !timestamp.Writable(got) || !time.Unix(0, got.UnixNano()).Equal(at) {
					t.Fatalf("%s: %v", at, err)
				}
			}
		}
	}
	if accepted == 0 {
		t.Error("Parse accepted no time")
	}
}

func TestFindUnwritable(t *testing.T) {
	t.Parallel()
	type step struct {
		At time.Time `json:"at"`
	}
	type embedded struct {
		Since time.Time `json:"since"`
	}
	type document struct {
		embedded

		Until *time.Time `json:"until"`
		Steps []step     `json:"steps"`
		Raw   json.RawMessage
		Any   any
		inner time.Time //nolint:unused // never decoded
	}
	beyond := time.Date(9999, time.December, 31, 23, 59, 59, 0, time.FixedZone("", -3600))
	for want, v := range map[string]document{
		"":            {Until: &time.Time{}, Steps: []step{{}}, Raw: json.RawMessage(`1`)},
		"until":       {Until: &beyond},
		"steps[1].at": {Steps: []step{{}, {beyond}}},
		"Any":         {Any: beyond},
	} {
		if got := timestamp.FindUnwritable(&v); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}
