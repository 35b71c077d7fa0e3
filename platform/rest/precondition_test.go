package rest_test

import (
	"testing"

	"waybill/platform/rest"
)

func TestPreconditions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asked rest.Preconditions
		etag  string
		want  bool
	}{
		"nothing asked":             {rest.Preconditions{}, `"1"`, true},
		"nothing asked, none":       {rest.Preconditions{}, "", true},
		"the state":                 {rest.Preconditions{IfMatch: `"1"`}, `"1"`, true},
		"one of several":            {rest.Preconditions{IfMatch: `"0", "1"`}, `"1"`, true},
		"another state":             {rest.Preconditions{IfMatch: `"0"`}, `"1"`, false},
		"a weak ETag":               {rest.Preconditions{IfMatch: `W/"1"`}, `"1"`, false},
		"any state":                 {rest.Preconditions{IfMatch: "*"}, `"1"`, true},
		"any state, none":           {rest.Preconditions{IfMatch: "*"}, "", false},
		"create":                    {rest.Preconditions{IfNoneMatch: "*"}, "", true},
		"create, exists":            {rest.Preconditions{IfNoneMatch: "*"}, `"1"`, false},
		"not this state":            {rest.Preconditions{IfNoneMatch: `"0"`}, `"1"`, true},
		"not this state, weak":      {rest.Preconditions{IfNoneMatch: `W/"1"`}, `"1"`, false},
		"both, one does not hold":   {rest.Preconditions{IfMatch: `"1"`, IfNoneMatch: "*"}, `"1"`, false},
		"an ETag without its signs": {rest.Preconditions{IfMatch: "1"}, `"1"`, false},
	} {
		if got := c.asked.Hold(c.etag); got != c.want {
			t.Errorf("%s: %+v on %q: %t", name, c.asked, c.etag, got)
		}
	}
}
