// Package codec writes and reads the few kinds of values that a snapshot of analytics is made of, in a compact form that
// depends on the values only.
package codec

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCorrupt says that the bytes are not what a writer wrote.
var ErrCorrupt = errors.New("the snapshot is corrupt")

// Uint appends a number.
func Uint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// Int appends a number that may be negative.
func Int(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }

// Float appends a number with a fraction, bit by bit.
func Float(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

// Text appends a text.
func Text(b []byte, s string) []byte { return append(Uint(b, uint64(len(s))), s...) }

// Reader reads what was appended, in the same order. After the first fault every read gives zero, and Err says so.
type Reader struct {
	rest []byte
	err  error
}

// NewReader reads b, to which nobody may write meanwhile.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Err is ErrCorrupt after a read that found no value.
func (r *Reader) Err() error { return r.err }

// Rest is how many bytes are left.
func (r *Reader) Rest() int { return len(r.rest) }

// Fail makes Err report corruption, for whoever finds a value that cannot be.
func (r *Reader) Fail() { r.rest, r.err = nil, ErrCorrupt }

// Uint reads a number.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Int reads a number that may be negative.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Uint32 reads a number that fits 32 bits.
func (r *Reader) Uint32() uint32 {
	v := r.Uint()
	if v > math.MaxUint32 {
		r.Fail()
		return 0
	}
	return uint32(v)
}

// Float reads a number with a fraction.
func (r *Reader) Float() float64 {
	if len(r.rest) < 8 {
		r.Fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return math.Float64frombits(v)
}

// Text reads a text.
func (r *Reader) Text() string {
	n := r.Len()
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// Len reads the number of elements that follow, each of at least one byte, and so never more than there are bytes left.
func (r *Reader) Len() int {
	n := r.Uint()
	if n > uint64(len(r.rest)) {
		r.Fail()
		return 0
	}
	return int(n) //nolint:gosec // not more than the length of a slice
}
