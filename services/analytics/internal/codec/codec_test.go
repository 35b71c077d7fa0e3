package codec_test

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"waybill/services/analytics/internal/codec"
)

func TestWhatIsWrittenComesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u, i, f, s := rapid.Uint64().Draw(t, "u"), rapid.Int64().Draw(t, "i"), rapid.Float64().Draw(t, "f"), rapid.String().Draw(t, "s")
		r := codec.NewReader(codec.Text(codec.Float(codec.Int(codec.Uint(nil, u), i), f), s))
		if gotU, gotI, gotF, gotS := r.Uint(), r.Int(), r.Float(), r.Text(); gotU != u || gotI != i || math.Float64bits(gotF) != math.Float64bits(f) || gotS != s {
			t.Fatalf("%v, %v, %v, %q came back", gotU, gotI, gotF, gotS)
		}
		if r.Err() != nil || r.Rest() != 0 {
			t.Fatalf("%v, %d bytes left", r.Err(), r.Rest())
		}
	})
}

func TestReadingTooMuchFails(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(r *codec.Reader){
		"number":        func(r *codec.Reader) { r.Uint(); r.Uint() },
		"signed number": func(r *codec.Reader) { r.Uint(); r.Int() },
		"fraction":      func(r *codec.Reader) { r.Float() },
		"text":          func(r *codec.Reader) { r.Text() },
		"length":        func(r *codec.Reader) { r.Len() },
		"small number":  func(r *codec.Reader) { *r = *codec.NewReader(codec.Uint(nil, 1<<32)); r.Uint32() },
	} {
		r := codec.NewReader([]byte{7})
		read(r)
		if !errors.Is(r.Err(), codec.ErrCorrupt) || r.Uint() != 0 || r.Text() != "" || r.Rest() != 0 {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
}
