// Package kusto stores analytics in Azure Data Explorer. It owns the form of rows in requests and answers. Tables, mappings, views and
// functions are those of infra/kusto, which an operator or the deployment applies first.
//
// Rows are streamed, so queries see them within seconds. If streaming does not accept them now, they are queued through a blob and a
// queue of the cluster: they are safe there, and queries see them half a minute later. A permanent refusal (a missing mapping, no
// permission) is an error, and nothing is queued. The library's own client for this, azkustoingest.Managed, is not used: v1.2.2 also
// queues what was refused permanently, and names the compressed blob as if it were not compressed.
//
// # Exactly once
//
// Azure Data Explorer has no unique keys. Append leaves out the events whose ids this process stored or the cluster knows. Further copies
// count once in every query, because queries read views with one row for each id (infra/kusto/04-views.kql). So an event is always
// counted once, for repetitions within eight days. Within one process an event is reported as new only once, unless the process forgot it
// (it remembers some hundred thousand) before the cluster showed it. Another process reports an event as new again if it comes before
// the cluster shows the first copy: seconds after streaming, up to a minute after queueing. Any one of such copies is used. ingest-by tags
// are not used: streaming cannot set them, and Microsoft advises against one for each request.
//
// Events are ordered by ProcessedAt, and by id within one microsecond.
package kusto

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-kusto-go/azkustodata"
	"github.com/Azure/azure-kusto-go/azkustodata/kql"
	"github.com/Azure/azure-kusto-go/azkustodata/query"
	"github.com/Azure/azure-kusto-go/azkustoingest"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/cenkalti/backoff/v5"

	"waybill/services/analytics/internal/store"
)

// Config is the address of the database and the identity to use.
type Config struct {
	// Endpoint is the cluster's address, https://<cluster>.<region>.kusto.windows.net.
	Endpoint string
	// IngestEndpoint is the address of queued ingestion; empty means the cluster's own, https://ingest-<cluster>...
	IngestEndpoint string
	Database       string
	// ClientID is the client id of the user-assigned managed identity to use; empty means the system-assigned one.
	ClientID string
	// Credential replaces the managed identity.
	Credential azcore.TokenCredential
	// Transport sends the requests; nil means http.DefaultTransport.
	Transport http.RoundTripper
	// StreamTimeout is how long streaming is retried before rows are queued; 0 means 5 seconds.
	StreamTimeout time.Duration
}

// ValidAddress reports whether a cluster can have that address. The client would accept more, such as connection strings.
func ValidAddress(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "https" && u.Host != "" && !strings.ContainsAny(address, ";= ")
}

// Check returns every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	for name, address := range map[string]string{"endpoint": c.Endpoint, "ingestion endpoint": c.IngestEndpoint} {
		if address == "" && name != "endpoint" {
			continue
		}
		if !ValidAddress(address) {
			faults = append(faults, fmt.Errorf("the %s of Azure Data Explorer is an https address, and not %q", name, address))
		}
	}
	if c.Database == "" {
		faults = append(faults, errors.New("the database of Azure Data Explorer has a name"))
	}
	return errors.Join(faults...)
}

const (
	tableEvents    = "AnalyticsEvents"
	tableMetrics   = "RealtimeMetrics"
	tableAnomalies = "Anomalies"

	// request is the most bytes of JSON in one request. The service accepts 4 MB, including what update policies make of it; one
	// row is far below the difference.
	request = 1_500_000
	// asked is the number of ids in one query.
	asked = 2_000
	// page is the number of events in one query's answer; the service truncates answers above 64 MB.
	page = 5_000
)

// Store is a store.Store on Azure Data Explorer.
type Store struct {
	database      string
	streamTimeout time.Duration
	client        *azkustodata.Client
	stream        *azkustoingest.Streaming
	queue         *azkustoingest.Ingestion
	recent        *recent
}

var _ store.Store = (*Store)(nil)

// Open prepares the connection. It sends no request, so it succeeds when the cluster is unavailable.
func Open(c Config) (*Store, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	transport := c.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	client := &http.Client{
		Transport: witness{transport},
		// A redirect would send the token to another address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s := &Store{database: c.Database, streamTimeout: c.StreamTimeout, recent: newRecent()}
	if s.streamTimeout == 0 {
		s.streamTimeout = 5 * time.Second
	}
	var err error
	if s.client, err = azkustodata.New(connection(c, c.Endpoint), azkustodata.WithHttpClient(client)); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.Endpoint, err)
	}
	if s.stream, err = azkustoingest.NewStreaming(connection(c, c.Endpoint), azkustoingest.WithDefaultDatabase(c.Database),
		azkustoingest.WithHttpClient(client), azkustoingest.WithoutEndpointCorrection()); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", c.Endpoint, err), s.client.Close())
	}
	options := []azkustoingest.Option{azkustoingest.WithDefaultDatabase(c.Database), azkustoingest.WithHttpClient(client)}
	address := c.Endpoint
	if c.IngestEndpoint != "" {
		address = c.IngestEndpoint
		options = append(options, azkustoingest.WithoutEndpointCorrection())
	}
	if s.queue, err = azkustoingest.New(connection(c, address), options...); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", address, err), s.stream.Close(), s.client.Close())
	}
	return s, nil
}

func connection(c Config, address string) *azkustodata.ConnectionStringBuilder {
	b := azkustodata.NewConnectionStringBuilder(address)
	b.SetConnectorDetails("Waybill", "1.0", "analytics", "1.0", false, "")
	switch {
	case c.Credential != nil:
		return b.WithTokenCredential(c.Credential)
	case c.ClientID != "":
		return b.WithUserAssignedIdentityClientId(c.ClientID)
	}
	return b.WithSystemManagedIdentity()
}

// Close closes the connections. Nothing is buffered in the store, so nothing is lost.
func (s *Store) Close() error {
	return errors.Join(s.stream.Close(), s.queue.Close(), s.client.Close())
}

// The rows as they are sent, by the names of their columns.
type (
	eventRow struct {
		EventID     string          `json:"EventId" kusto:"EventId"`
		EventType   string          `json:"EventType"`
		Timestamp   time.Time       `json:"Timestamp"`
		UserID      string          `json:"UserId" kusto:"UserId"`
		SessionID   string          `json:"SessionId" kusto:"SessionId"`
		ProductID   string          `json:"ProductId" kusto:"ProductId"`
		Value       float64         `json:"Value"`
		Properties  json.RawMessage `json:"Properties"`
		ProcessedAt time.Time       `json:"ProcessedAt"`
	}
	metricRow struct {
		MetricName string    `json:"MetricName"`
		Window     string    `json:"Window"`
		Timestamp  time.Time `json:"Timestamp"`
		Count      int64     `json:"Count"`
		Sum        float64   `json:"Sum"`
		Mean       float64   `json:"Mean"`
		Median     float64   `json:"Median"`
		Min        float64   `json:"Min"`
		Max        float64   `json:"Max"`
		StdDev     float64   `json:"StdDev"`
		P95        float64   `json:"P95"`
		P99        float64   `json:"P99"`
		ComputedAt time.Time `json:"ComputedAt"`
	}
	anomalyRow struct {
		AnomalyID string    `json:"AnomalyId" kusto:"AnomalyId"`
		Type      string    `json:"Type"`
		ProductID string    `json:"ProductId" kusto:"ProductId"`
		Expected  float64   `json:"Expected"`
		Seen      float64   `json:"Seen"`
		Score     float64   `json:"Score"`
		Sentence  string    `json:"Sentence"`
		Timestamp time.Time `json:"Timestamp"`
		UpdatedAt time.Time `json:"UpdatedAt"`
	}
	productRow struct {
		ProductID string `kusto:"ProductId"`
		Views     int64
		Purchases int64
		Revenue   float64
	}
	idRow struct {
		EventID string `kusto:"EventId"`
	}
)

func micro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, events []store.Event) ([]bool, error) {
	if err := store.CheckAll(events); err != nil {
		return nil, err
	}
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	claim, err := s.recent.claim(ctx, ids)
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { claim.done(stored) }()

	fresh := claim.fresh
	if err := s.strikeKnown(ctx, ids, fresh); err != nil {
		return nil, fmt.Errorf("append %d events: %w", len(events), err)
	}
	lines := make([]eventRow, 0, len(events))
	for i := range events {
		if !fresh[i] {
			continue
		}
		e := &events[i]
		properties := e.Properties
		if len(properties) == 0 {
			properties = json.RawMessage("{}")
		}
		lines = append(lines, eventRow{e.ID, e.Type, micro(e.Timestamp), e.UserID, e.SessionID, e.ProductID, e.Value, properties, micro(e.ProcessedAt)})
	}
	if err := ingest(ctx, s, tableEvents, lines); err != nil {
		return nil, fmt.Errorf("append %d events: %w", len(events), err)
	}
	stored = true
	return fresh, nil
}

// strikeKnown removes the events that the cluster knows from those that are new.
func (s *Store) strikeKnown(ctx context.Context, ids []string, fresh []bool) error {
	place := map[string]int{}
	unknown := make([]string, 0, len(ids))
	for i, id := range ids {
		if fresh[i] {
			place[id] = i
			unknown = append(unknown, id)
		}
	}
	for part := range slices.Chunk(unknown, asked) {
		known, err := ask[idRow](ctx, s, kql.New("AnalyticsKnownEvents(p)"), parameters(map[string]any{"ids": part}))
		if err != nil {
			return fmt.Errorf("ask for known events: %w", err)
		}
		for _, k := range known {
			fresh[place[k.EventID]] = false
		}
	}
	return nil
}

// PutMetrics implements store.Store.
func (s *Store) PutMetrics(ctx context.Context, metrics []store.Metric) error {
	if err := store.CheckAll(metrics); err != nil {
		return err
	}
	lines := make([]metricRow, len(metrics))
	for i, m := range metrics {
		lines[i] = metricRow{m.Name, m.Window, micro(m.Timestamp), m.Count, m.Sum, m.Mean, m.Median, m.Min, m.Max, m.StdDev, m.P95, m.P99, micro(m.ComputedAt)}
	}
	if err := ingest(ctx, s, tableMetrics, lines); err != nil {
		return fmt.Errorf("put %d metrics: %w", len(metrics), err)
	}
	return nil
}

// PutAnomalies implements store.Store.
func (s *Store) PutAnomalies(ctx context.Context, anomalies []store.Anomaly) error {
	if err := store.CheckAll(anomalies); err != nil {
		return err
	}
	lines := make([]anomalyRow, len(anomalies))
	for i, a := range anomalies {
		lines[i] = anomalyRow{a.ID, a.Type, a.ProductID, a.Expected, a.Seen, a.Score, a.Sentence, micro(a.Timestamp), micro(a.UpdatedAt)}
	}
	if err := ingest(ctx, s, tableAnomalies, lines); err != nil {
		return fmt.Errorf("put %d anomalies: %w", len(anomalies), err)
	}
	return nil
}

// ingest sends lines to a table, in requests of bounded size.
func ingest[T any](ctx context.Context, s *Store, table string, lines []T) error {
	var body bytes.Buffer
	for i := range lines {
		line, err := json.Marshal(&lines[i])
		if err != nil {
			return fmt.Errorf("write a line: %w", err)
		}
		if body.Len() > 0 && body.Len()+len(line) >= request {
			if err := s.send(ctx, table, body.Bytes()); err != nil {
				return err
			}
			body.Reset()
		}
		body.Write(line)
		body.WriteByte('\n')
	}
	if body.Len() == 0 {
		return ctx.Err()
	}
	return s.send(ctx, table, body.Bytes())
}

// send streams the lines of one request. It queues them if streaming does not accept them in time.
func (s *Store) send(ctx context.Context, table string, lines []byte) error {
	options := []azkustoingest.FileOption{
		azkustoingest.Table(table),
		azkustoingest.IngestionMappingRef(table+"_json", azkustoingest.MultiJSON),
	}
	// Also a request that hangs ends with the timeout.
	streaming, cancel := context.WithTimeout(ctx, s.streamTimeout)
	defer cancel()
	refused := false
	stream := func() (struct{}, error) {
		seen := new(answer)
		_, err := s.stream.FromReader(context.WithValue(streaming, answerKey{}, seen), bytes.NewReader(lines), options...)
		refused = err != nil && seen.refused()
		if err != nil && (refused || seen.queueable()) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier = 100*time.Millisecond, 2
	_, err := backoff.Retry(streaming, stream, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(s.streamTimeout))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case refused:
		return fmt.Errorf("stream to %s: %w", table, err)
	}
	if _, err := s.queue.FromReader(ctx, bytes.NewReader(lines), options...); err != nil {
		return fmt.Errorf("queue for %s: %w", table, err)
	}
	return nil
}

// answer is the service's answer to a streaming request. The library keeps only its text.
type answer struct {
	status int
	body   string
}

type answerKey struct{}

// queueable reports whether streaming will not accept these lines, but the queue will.
func (a *answer) queueable() bool {
	if a.status == http.StatusRequestEntityTooLarge {
		return true
	}
	for _, code := range []string{"StreamingIngestionPolicyNotEnabled", "StreamingIngestionDisabledForCluster", "InputStreamTooLarge"} {
		if strings.Contains(a.body, code) {
			return true
		}
	}
	return false
}

// refused reports whether a retry cannot succeed, neither by streaming nor by the queue.
func (a *answer) refused() bool {
	if a.queueable() || a.status < 400 || a.status >= 500 || a.status == http.StatusRequestTimeout || a.status == http.StatusTooManyRequests {
		return false
	}
	var said struct {
		Error struct {
			Permanent *bool `json:"@permanent"`
		} `json:"error"`
	}
	if json.Unmarshal([]byte(a.body), &said) == nil && said.Error.Permanent != nil {
		return *said.Error.Permanent
	}
	return true
}

// witness notes the answers to the requests whose context asks for it.
type witness struct{ next http.RoundTripper }

// RoundTrip is http.RoundTripper's.
func (w witness) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(r)
	seen, ok := r.Context().Value(answerKey{}).(*answer)
	if err != nil || !ok || resp.StatusCode < 400 {
		return resp, err
	}
	const most = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	seen.status, seen.body = resp.StatusCode, string(body)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	return resp, err
}

// parameters puts texts into one bag. Its JSON is ASCII, for what is beyond is escaped differently by each layer.
func parameters(p map[string]any) *kql.Parameters {
	return kql.NewParameters().AddSerializedDynamic("p", ascii(p))
}

func ascii(p map[string]any) []byte {
	raw, err := json.Marshal(p)
	if err != nil {
		// Strings and lists of strings always are JSON.
		panic(err)
	}
	out := make([]byte, 0, len(raw))
	for _, r := range string(raw) {
		switch {
		case r < 0x80:
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// ask runs a query and decodes its rows.
func ask[T any](ctx context.Context, s *Store, text *kql.Builder, p *kql.Parameters) ([]T, error) {
	answered, err := s.client.Query(ctx, s.database, text, azkustodata.QueryParameters(p))
	if err != nil {
		return nil, err
	}
	for _, table := range answered.Tables() {
		if table.IsPrimaryResult() {
			return query.ToStructs[T](table)
		}
	}
	return nil, errors.New("the answer has no table")
}

// Events is store.Store's.
func (s *Store) Events(ctx context.Context, since time.Time) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		var last eventRow
		for {
			p := parameters(map[string]any{"after": last.EventID}).AddDateTime("since", micro(since)).AddDateTime("after", last.ProcessedAt.UTC()).AddLong("n", page)
			lines, err := ask[eventRow](ctx, s, kql.New("AnalyticsEventsSince(since, after, p, n)"), p)
			if err != nil {
				yield(store.Event{}, fmt.Errorf("read events: %w", err))
				return
			}
			for i := range lines {
				if !yield(lines[i].event(), nil) {
					return
				}
			}
			if len(lines) < page {
				return
			}
			end := lines[len(lines)-1]
			last.EventID, last.ProcessedAt = end.EventID, end.ProcessedAt
		}
	}
}

func (r *eventRow) event() store.Event {
	return store.Event{
		ID: r.EventID, Type: r.EventType, Timestamp: r.Timestamp.UTC(), UserID: r.UserID, SessionID: r.SessionID, ProductID: r.ProductID,
		Value: r.Value, Properties: r.Properties, ProcessedAt: r.ProcessedAt.UTC(),
	}
}

// Series is store.Store's.
func (s *Store) Series(ctx context.Context, q store.SeriesQuery) ([]store.Metric, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	p := parameters(map[string]any{"name": q.Name, "window": q.Window}).AddDateTime("since", micro(q.From)).AddDateTime("until", micro(q.To)).AddLong("n", int64(q.Limit))
	lines, err := ask[metricRow](ctx, s, kql.New("AnalyticsSeries(p, since, until, n)"), p)
	if err != nil {
		return nil, fmt.Errorf("read metric %s: %w", q.Name, err)
	}
	metrics := make([]store.Metric, len(lines))
	for i, l := range lines {
		metrics[len(lines)-1-i] = store.Metric{
			Name: l.MetricName, Window: l.Window, Timestamp: l.Timestamp.UTC(), Count: l.Count, Sum: l.Sum, Mean: l.Mean, Median: l.Median,
			Min: l.Min, Max: l.Max, StdDev: l.StdDev, P95: l.P95, P99: l.P99, ComputedAt: l.ComputedAt.UTC(),
		}
	}
	return metrics, nil
}

// TopProducts is store.Store's.
func (s *Store) TopProducts(ctx context.Context, q store.TopQuery) ([]store.Product, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	p := parameters(map[string]any{"rank": string(q.By)}).AddDateTime("since", micro(q.From)).AddDateTime("until", micro(q.To)).AddLong("n", int64(q.Limit))
	lines, err := ask[productRow](ctx, s, kql.New("AnalyticsTopProducts(p, since, until, n)"), p)
	if err != nil {
		return nil, fmt.Errorf("read the top products: %w", err)
	}
	products := make([]store.Product, len(lines))
	for i, l := range lines {
		products[i] = store.Product{ID: l.ProductID, Views: l.Views, Purchases: l.Purchases, Revenue: l.Revenue}
	}
	return products, nil
}

// latest is later than every anomaly.
var latest = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)

// Anomalies is store.Store's.
func (s *Store) Anomalies(ctx context.Context, q store.AnomalyQuery) ([]store.Anomaly, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	before, after := latest, ""
	if q.After != nil {
		before, after = micro(q.After.Timestamp), q.After.ID
	}
	p := parameters(map[string]any{"product": q.ProductID, "type": q.Type, "after": after}).AddDateTime("before", before).AddLong("n", int64(q.Limit))
	lines, err := ask[anomalyRow](ctx, s, kql.New("AnalyticsAnomalies(p, before, n)"), p)
	if err != nil {
		return nil, fmt.Errorf("read anomalies: %w", err)
	}
	anomalies := make([]store.Anomaly, len(lines))
	for i, l := range lines {
		anomalies[i] = store.Anomaly{
			ID: l.AnomalyID, Type: l.Type, ProductID: l.ProductID, Expected: l.Expected, Seen: l.Seen, Score: l.Score,
			Sentence: l.Sentence, Timestamp: l.Timestamp.UTC(), UpdatedAt: l.UpdatedAt.UTC(),
		}
	}
	return anomalies, nil
}

// Counts is store.Store's.
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	lines, err := ask[store.Counts](ctx, s, kql.New("AnalyticsCounts()"), kql.NewParameters())
	if err != nil {
		return store.Counts{}, fmt.Errorf("count: %w", err)
	}
	if len(lines) != 1 {
		return store.Counts{}, fmt.Errorf("count: %d rows instead of one", len(lines))
	}
	return lines[0], nil
}
