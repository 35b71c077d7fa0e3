package kusto_test

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/kusto"
	"waybill/services/analytics/internal/store/storetest"
)

const (
	database = "analytics"
	token    = "the-token-of-the-test"
)

// cluster answers as an Azure Data Explorer cluster does to the real client: the management, streaming and query endpoints,
// with the tables, mappings and functions that infra/kusto declares. It knows no query language: each stored function is
// answered from a model. What waits in the queue is ingested before a query is answered.
type cluster struct {
	server *httptest.Server
	schema *schema
	model  *storetest.Model
	// storage is nil where nothing is queued.
	storage *storage

	mu       sync.Mutex
	arrived  map[string]int // lines that arrived, by table, copies among them
	streamed int            // streaming requests
	queued   int            // blobs that came by the queue
	failing  func(n int) (status int, code string, afterwards bool)
}

func newCluster(t *testing.T, s *storage) *cluster {
	t.Helper()
	c := &cluster{schema: readSchema(t), model: storetest.NewModel(), arrived: map[string]int{}, storage: s}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/rest/auth/metadata", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"AzureAD":{"LoginEndpoint":"https://login.microsoftonline.com","LoginMfaRequired":false,"KustoClientAppId":"db662dc1-0cfe-4e1c-a843-19a68e65be58","KustoClientRedirectUri":"https://microsoft/kustoclient","KustoServiceResourceId":"https://kusto.kusto.windows.net","FirstPartyAuthorityUrl":"https://login.microsoftonline.com/f8cdef31-a31e-4b4a-93e4-5f571e91255a"}}`)
	})
	mux.HandleFunc("POST /v1/rest/mgmt", c.manage)
	mux.HandleFunc("POST /v1/rest/ingest/{database}/{table}", c.stream)
	mux.HandleFunc("POST /v2/rest/query", c.query)
	c.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/rest/auth/metadata" && r.Header.Get("Authorization") != "Bearer "+token {
			refuse(w, http.StatusUnauthorized, "Unauthorized", true)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(c.server.Close)
	return c
}

func writeJSON(w io.Writer, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(raw)
}

func refuse(w http.ResponseWriter, status int, code string, permanent bool) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"error": map[string]any{"code": code, "message": code, "@type": code, "@message": code, "@permanent": permanent}})
}

// fail decides how the n-th streaming request, from 0, is answered: with a status and an error code, before its lines are
// taken or afterwards. Status 0 is success.
func (c *cluster) fail(f func(n int) (status int, code string, afterwards bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = f
}

func (c *cluster) seen() (arrived, streamed, queued int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arrived["AnalyticsEvents"], c.streamed, c.queued
}

func (c *cluster) manage(w http.ResponseWriter, r *http.Request) {
	var asked struct{ CSL string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest_Syntax", true)
		return
	}
	type column struct{ ColumnName, DataType, ColumnType string }
	answer := func(names []string, rows [][]any) {
		columns := make([]column, 0, len(names))
		for _, n := range names {
			columns = append(columns, column{n, "String", "string"})
		}
		writeJSON(w, map[string]any{"Tables": []any{map[string]any{"TableName": "Table_0", "Columns": columns, "Rows": rows}}})
	}
	switch {
	case asked.CSL == ".get kusto identity token":
		answer([]string{"AuthorizationContext"}, [][]any{{"the identity token"}})
	case asked.CSL == ".get ingestion resources" && c.storage != nil:
		answer([]string{"ResourceTypeName", "StorageRoot"}, [][]any{{"TempStorage", c.storage.container}, {"SecuredReadyForAggregationQueue", c.storage.queue}})
	case asked.CSL == ".get ingestion resources":
		answer([]string{"ResourceTypeName", "StorageRoot"}, [][]any{})
	default:
		refuse(w, http.StatusBadRequest, "BadRequest_UnknownCommand", true)
	}
}

func (c *cluster) stream(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	n := c.streamed
	c.streamed++
	status, code, afterwards := 0, "", false
	if c.failing != nil {
		status, code, afterwards = c.failing(n)
	}
	c.mu.Unlock()
	if status != 0 && !afterwards {
		refuse(w, status, code, status < 500)
		return
	}
	if r.PathValue("database") != database || r.URL.Query().Get("streamFormat") != "MultiJson" || r.Header.Get("Content-Encoding") != "gzip" {
		refuse(w, http.StatusBadRequest, "BadRequest_"+r.URL.String(), true)
		return
	}
	const most = 4 << 20
	body, err := gzip.NewReader(r.Body)
	if err == nil {
		var lines []byte
		if lines, err = io.ReadAll(io.LimitReader(body, most+1)); err == nil && len(lines) > most {
			refuse(w, http.StatusBadRequest, "Stream_InputStreamTooLarge", true)
			return
		}
		if err == nil {
			err = c.ingest(r.PathValue("table"), r.URL.Query().Get("mappingName"), lines)
		}
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest_"+err.Error(), true)
		return
	}
	if status != 0 {
		refuse(w, status, code, status < 500)
	}
}

// ingest maps lines to rows by the mapping that infra/kusto declares.
func (c *cluster) ingest(table, mapping string, lines []byte) error {
	paths, ok := c.schema.mappings[table+"/"+mapping]
	if !ok {
		return fmt.Errorf("MappingNotFound: %s of %s", mapping, table)
	}
	decoder := json.NewDecoder(strings.NewReader(string(lines)))
	for {
		var line map[string]json.RawMessage
		if err := decoder.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		r := map[string]json.RawMessage{}
		for column, path := range paths {
			if _, ok := c.schema.tables[table][column]; !ok {
				return fmt.Errorf("table %s has no column %s", table, column)
			}
			value, ok := line[strings.TrimPrefix(path, "$.")]
			if !ok {
				return fmt.Errorf("a line of %s has no %s", table, path)
			}
			r[column] = value
		}
		c.mu.Lock()
		c.arrived[table]++
		c.mu.Unlock()
		if err := c.put(table, r); err != nil {
			return err
		}
	}
}

func (c *cluster) put(table string, r map[string]json.RawMessage) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	switch table {
	case "AnalyticsEvents":
		var e struct {
			EventID, EventType, UserID, SessionID, ProductID string
			Timestamp, ProcessedAt                           time.Time
			Value                                            float64
			Properties                                       json.RawMessage
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		c.model.Append([]store.Event{{
			ID: e.EventID, Type: e.EventType, Timestamp: e.Timestamp, UserID: e.UserID, SessionID: e.SessionID, ProductID: e.ProductID,
			Value: e.Value, Properties: e.Properties, ProcessedAt: e.ProcessedAt,
		}})
	case "RealtimeMetrics":
		var m struct {
			MetricName string
			store.Metric
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		m.Name = m.MetricName
		c.model.PutMetrics([]store.Metric{m.Metric})
	case "Anomalies":
		var a struct {
			AnomalyID string
			store.Anomaly
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			return err
		}
		a.ID = a.AnomalyID
		c.model.PutAnomalies([]store.Anomaly{a.Anomaly})
	}
	return nil
}

var (
	declaration = regexp.MustCompile(`^declare query_parameters\(([^)]*)\);$`)
	call        = regexp.MustCompile(`^(\w+)\(([^)]*)\)$`)
	literal     = regexp.MustCompile(`(?s)^(\w+)\((.*)\)$`)
)

// arguments are a call's, decoded by their declared types.
type arguments struct {
	bag   map[string]any
	times map[string]time.Time
	n     int
}

func (a arguments) text(name string) string { s, _ := a.bag[name].(string); return s }

// parse reads the query: a declaration of its parameters, and one call of a function that infra/kusto declares with these
// parameters in this order.
func (c *cluster) parse(text string, values map[string]string) (function string, a arguments, err error) {
	declared := map[string]string{}
	first, second, two := strings.Cut(strings.TrimSpace(text), "\n")
	if !two {
		first, second = "", first
	}
	if m := declaration.FindStringSubmatch(first); m != nil {
		for part := range strings.SplitSeq(m[1], ", ") {
			name, kind, _ := strings.Cut(part, ":")
			declared[name] = kind
		}
	}
	m := call.FindStringSubmatch(second)
	if m == nil {
		return "", a, fmt.Errorf("not a call: %q", second)
	}
	want, ok := c.schema.functions[m[1]]
	if !ok {
		return "", a, fmt.Errorf("unknown function %s", m[1])
	}
	var got []string
	for name := range strings.SplitSeq(m[2], ", ") {
		if name != "" {
			got = append(got, name+": "+declared[name])
		}
	}
	if strings.Join(got, ", ") != want {
		return "", a, fmt.Errorf("%s(%s) is called with (%s)", m[1], want, strings.Join(got, ", "))
	}
	a.times = map[string]time.Time{}
	for name, value := range values {
		v := literal.FindStringSubmatch(value)
		if v == nil || v[1] != declared[name] {
			return "", a, fmt.Errorf("%s is declared as %s and given as %s", name, declared[name], value)
		}
		switch v[1] {
		case "dynamic":
			err = json.Unmarshal([]byte(v[2]), &a.bag)
		case "datetime":
			a.times[name], err = time.Parse("2006-01-02T15:04:05.9999999Z07:00", v[2])
		case "long":
			a.n, err = strconv.Atoi(v[2])
		}
		if err != nil {
			return "", a, fmt.Errorf("%s: %w", name, err)
		}
	}
	return m[1], a, nil
}

func (c *cluster) query(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		DB, CSL    string
		Properties struct {
			Options    map[string]any
			Parameters map[string]string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.DB != database {
		refuse(w, http.StatusBadRequest, "BadRequest_Database", true)
		return
	}
	function, a, err := c.parse(asked.CSL, asked.Properties.Parameters)
	if err == nil && c.storage != nil {
		err = c.drain(r.Context())
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest_"+err.Error(), true)
		return
	}
	columns, rows := c.call(function, a)
	frames(w, columns, rows)
}

const (
	eventColumns   = "EventId:string EventType:string Timestamp:datetime UserId:string SessionId:string ProductId:string Value:real Properties:dynamic ProcessedAt:datetime"
	metricColumns  = "MetricName:string Window:string Timestamp:datetime Count:long Sum:real Mean:real Median:real Min:real Max:real StdDev:real P95:real P99:real ComputedAt:datetime"
	anomalyColumns = "AnomalyId:string Type:string ProductId:string Expected:real Seen:real Score:real Sentence:string Timestamp:datetime UpdatedAt:datetime"
)

// call answers a stored function from the model.
func (c *cluster) call(function string, a arguments) (columns string, rows [][]any) {
	rows = [][]any{}
	switch function {
	case "AnalyticsKnownEvents":
		asked := a.bag["ids"].([]any)
		ids := make([]string, 0, len(asked))
		for _, id := range asked {
			ids = append(ids, id.(string))
		}
		for _, id := range c.model.Known(ids) {
			rows = append(rows, []any{id})
		}
		return "EventId:string", rows
	case "AnalyticsEventsSince":
		events := c.model.Events(a.times["since"])
		order := func(at, bt time.Time, a, b string) int { return cmp.Or(at.Compare(bt), cmp.Compare(a, b)) }
		slices.SortFunc(events, func(x, y store.Event) int { return order(x.ProcessedAt, y.ProcessedAt, x.ID, y.ID) })
		events = slices.DeleteFunc(events, func(e store.Event) bool {
			return order(e.ProcessedAt, a.times["after"], e.ID, a.text("after")) <= 0
		})
		for _, e := range events[:min(a.n, len(events))] {
			rows = append(rows, []any{e.ID, e.Type, e.Timestamp, e.UserID, e.SessionID, e.ProductID, e.Value, e.Properties, e.ProcessedAt})
		}
		return eventColumns, rows
	case "AnalyticsSeries":
		metrics := c.model.Series(store.SeriesQuery{Name: a.text("name"), Window: a.text("window"), From: a.times["since"], To: a.times["until"], Limit: a.n})
		slices.Reverse(metrics)
		for _, m := range metrics {
			rows = append(rows, []any{m.Name, m.Window, m.Timestamp, m.Count, m.Sum, m.Mean, m.Median, m.Min, m.Max, m.StdDev, m.P95, m.P99, m.ComputedAt})
		}
		return metricColumns, rows
	case "AnalyticsTopProducts":
		for _, p := range c.model.TopProducts(store.TopQuery{From: a.times["since"], To: a.times["until"], By: store.Rank(a.text("rank")), Limit: a.n}) {
			rows = append(rows, []any{p.ID, p.Views, p.Purchases, p.Revenue})
		}
		return "ProductId:string Views:long Purchases:long Revenue:real", rows
	case "AnalyticsAnomalies":
		for _, an := range c.model.Anomalies(store.AnomalyQuery{
			ProductID: a.text("product"), Type: a.text("type"), After: &store.Place{Timestamp: a.times["before"], ID: a.text("after")}, Limit: a.n,
		}) {
			rows = append(rows, []any{an.ID, an.Type, an.ProductID, an.Expected, an.Seen, an.Score, an.Sentence, an.Timestamp, an.UpdatedAt})
		}
		return anomalyColumns, rows
	case "AnalyticsCounts":
		n := c.model.Counts()
		return "Events:long Metrics:long Anomalies:long", [][]any{{n.Events, n.Metrics, n.Anomalies}}
	}
	return "", nil
}

// frames writes an answer in the fragmented form of the second protocol: one frame a line, their fields in this order.
func frames(w io.Writer, columns string, rows [][]any) {
	type column struct{ ColumnName, ColumnType string }
	described := make([]column, 0, 16)
	for c := range strings.FieldsSeq(columns) {
		name, kind, _ := strings.Cut(c, ":")
		described = append(described, column{name, kind})
	}
	line := func(prefix string, frame any) {
		raw, err := json.Marshal(frame)
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintf(w, "%s%s\n", prefix, raw)
	}
	type header struct {
		FrameType               string
		IsProgressive           bool
		Version                 string
		IsFragmented            bool
		ErrorReportingPlacement string
	}
	type table struct {
		FrameType            string
		TableId              int
		TableKind, TableName string
		Columns              []column
		Rows                 [][]any `json:",omitzero"`
	}
	type fragment struct {
		FrameType, TableFragmentType string
		TableId                      int
		Rows                         [][]any
	}
	line("[", header{"DataSetHeader", false, "v2.0", true, "EndOfTable"})
	line(",", table{"DataTable", 0, "QueryProperties", "@ExtendedProperties", []column{{"TableId", "int"}, {"Key", "string"}, {"Value", "dynamic"}}, [][]any{{1, "Visualization", `{"Visualization":null}`}}})
	line(",", table{FrameType: "TableHeader", TableId: 1, TableKind: "PrimaryResult", TableName: "PrimaryResult", Columns: described})
	for part := range slices.Chunk(rows, 1_000) {
		line(",", fragment{"TableFragment", "DataAppend", 1, part})
	}
	line(",", struct {
		FrameType         string
		TableId, RowCount int
	}{"TableCompletion", 1, len(rows)})
	line(",", table{"DataTable", 2, "QueryCompletionInformation", "QueryCompletionInformation", []column{{"Timestamp", "datetime"}}, [][]any{{"2026-03-01T12:00:00Z"}}})
	line(",", struct {
		FrameType            string
		HasErrors, Cancelled bool
	}{"DataSetCompletion", false, false})
	_, _ = io.WriteString(w, "]\n")
}

// drain ingests what waits in the queue, as the cluster's data management does.
func (c *cluster) drain(ctx context.Context) error {
	for {
		text, err := c.storage.next(ctx)
		if err != nil || text == "" {
			return err
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		var m struct {
			BlobPath, DatabaseName, TableName string
			AdditionalProperties              map[string]any
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		if m.DatabaseName != database || m.AdditionalProperties["format"] != "multijson" || m.AdditionalProperties["authorizationContext"] != "the identity token" {
			return fmt.Errorf("a message that says %s", raw)
		}
		name, _, _ := strings.Cut(m.BlobPath, "?")
		if !strings.HasSuffix(name, ".gz") {
			return fmt.Errorf("the service reads blob %s as plain text", name)
		}
		lines, err := c.storage.blob(ctx, m.BlobPath)
		if err != nil {
			return err
		}
		mapping, _ := m.AdditionalProperties["ingestionMappingReference"].(string)
		if err := c.ingest(m.TableName, mapping, lines); err != nil {
			return err
		}
		c.mu.Lock()
		c.queued++
		c.mu.Unlock()
	}
}

// schema is what infra/kusto declares.
type schema struct {
	tables    map[string]map[string]string // table → column → type
	mappings  map[string]map[string]string // table/mapping → column → path
	functions map[string]string            // function → parameters
}

var (
	tableCommand    = regexp.MustCompile(`(?m)^\.create-merge table (\w+) \((.*)\)$`)
	mappingCommand  = regexp.MustCompile(`(?m)^\.create-or-alter table (\w+) ingestion json mapping "(\w+)" '(.*)'$`)
	functionCommand = regexp.MustCompile(`(?m)^\.create-or-alter function with \(.*\) (\w+)\(([^)]*)\) \{$`)
)

var readSchemaOnce = sync.OnceValues(func() (*schema, error) {
	s := &schema{tables: map[string]map[string]string{}, mappings: map[string]map[string]string{}, functions: map[string]string{}}
	files, err := filepath.Glob("../../../../../infra/kusto/*.kql")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("infra/kusto has no files: %w", err)
	}
	var text strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		text.Write(raw)
	}
	for _, m := range tableCommand.FindAllStringSubmatch(text.String(), -1) {
		columns := map[string]string{}
		for part := range strings.SplitSeq(m[2], ", ") {
			name, kind, _ := strings.Cut(part, ": ")
			columns[strings.Trim(name, "[']")] = kind
		}
		s.tables[m[1]] = columns
	}
	for _, m := range mappingCommand.FindAllStringSubmatch(text.String(), -1) {
		var parts []struct {
			Column     string
			Properties struct{ Path string }
		}
		if err := json.Unmarshal([]byte(m[3]), &parts); err != nil {
			return nil, err
		}
		paths := map[string]string{}
		for _, p := range parts {
			paths[p.Column] = p.Properties.Path
		}
		s.mappings[m[1]+"/"+m[2]] = paths
	}
	for _, m := range functionCommand.FindAllStringSubmatch(text.String(), -1) {
		s.functions[m[1]] = m[2]
	}
	return s, nil
})

func readSchema(t *testing.T) *schema {
	t.Helper()
	s, err := readSchemaOnce()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// credential gives the token that the cluster expects.
type credential struct{ token string }

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: c.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func (c *cluster) config() kusto.Config {
	return kusto.Config{
		Endpoint: c.server.URL, IngestEndpoint: c.server.URL, Database: database, Credential: credential{token},
		Transport: c.server.Client().Transport, StreamTimeout: time.Minute,
	}
}

func (c *cluster) open(t *testing.T) *kusto.Store {
	t.Helper()
	s, err := kusto.Open(c.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
