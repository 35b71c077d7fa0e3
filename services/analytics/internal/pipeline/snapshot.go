package pipeline

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"waybill/services/analytics/internal/codec"
)

// snapshotFormat is the first byte of a snapshot; it changes with the format.
const snapshotFormat = 1

// Snapshot is the pipeline's whole state. Two pipelines of the same state have the same snapshot.
func (p *Pipeline) Snapshot() []byte {
	b := []byte{snapshotFormat}
	b = appendTime(appendTime(b, p.first), p.newest)
	for _, n := range p.stats.kept() {
		b = codec.Uint(b, *n)
	}
	b = codec.Int(b, p.stats.Revenue)
	b = p.seen.append(b)
	h := p.horizon
	b = p.revenue.Append(p.purchases.Append(p.views.Append(b, h), h), h)
	b = p.algorithms.append(p.sessions.append(p.products.append(b, h), h), h)
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}

// Restore makes a pipeline of a snapshot, under a configuration that may be another one: what it has no room for is
// evicted. The error says that the configuration is wrong, or that the snapshot is damaged or of another format; then the
// state has to be made from the stored events.
func Restore(snapshot []byte, config Config) (*Pipeline, error) {
	p, err := New(config)
	if err != nil {
		return nil, err
	}
	const sum = 8
	if len(snapshot) < 1+sum || snapshot[0] != snapshotFormat {
		return nil, fmt.Errorf("restore analytics: %w, or of another format", codec.ErrCorrupt)
	}
	content, want := snapshot[:len(snapshot)-sum], snapshot[len(snapshot)-sum:]
	if xxhash.Sum64(content) != binary.LittleEndian.Uint64(want) {
		return nil, fmt.Errorf("restore analytics: %w", codec.ErrCorrupt)
	}
	r := codec.NewReader(content[1:])
	p.first, p.newest = readTime(r), readTime(r)
	for _, n := range p.stats.kept() {
		*n = r.Uint()
	}
	p.stats.Revenue = r.Int()
	p.moveHorizon()
	p.seen.read(r)
	p.views.Read(r)
	p.purchases.Read(r)
	p.revenue.Read(r)
	p.products.read(r)
	p.sessions.read(r)
	p.algorithms.read(r)
	if r.Err() != nil || r.Rest() > 0 {
		return nil, fmt.Errorf("restore analytics: %w", codec.ErrCorrupt)
	}
	return p, nil
}

// kept are the figures that nothing else in the state tells.
func (s *Stats) kept() []*uint64 {
	return []*uint64{&s.Views, &s.Purchases, &s.Recommendations, &s.OtherCurrency, &s.Unscored, &s.Duplicates, &s.Late}
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return codec.Int(b, 0)
	}
	return codec.Int(b, t.UnixNano())
}

func readTime(r *codec.Reader) time.Time {
	n := r.Int()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
