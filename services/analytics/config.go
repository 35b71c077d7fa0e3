package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/events"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/processor"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/kusto"
	"waybill/services/analytics/internal/store/sqlite"
)

// Config is the configuration of the service, from the environment.
type Config struct {
	config.Service

	// Store is where events and metrics are kept: in the file SQLITE_FILE, or in Azure Data Explorer.
	Store      string `env:"ANALYTICS_STORE" envDefault:"sqlite"`
	SQLiteFile string `env:"SQLITE_FILE" envDefault:"analytics.sqlite"`
	// KustoIngestEndpoint follows from KustoEndpoint when it is not given.
	KustoEndpoint       string `env:"KUSTO_ENDPOINT"`
	KustoIngestEndpoint string `env:"KUSTO_INGEST_ENDPOINT"`
	KustoDatabase       string `env:"KUSTO_DATABASE"`
	// AzureClientID is the client id of the managed identity; without it the system-assigned identity is used.
	AzureClientID string `env:"AZURE_CLIENT_ID"`

	// A batch is published when it has BatchSize events, or when its first event has waited for BatchInterval.
	BatchSize     config.Count    `env:"INGEST_BATCH_SIZE" envDefault:"100"`
	BatchInterval config.Duration `env:"INGEST_BATCH_INTERVAL" envDefault:"20ms"`
	// BatchLanes is the number of batches that are published at the same time.
	BatchLanes config.Count `env:"INGEST_LANES" envDefault:"4"`
	// BufferEvents and BufferBytes bound the events that wait for the broker; further events are refused.
	BufferEvents config.Count `env:"INGEST_BUFFER_EVENTS" envDefault:"20000"`
	BufferBytes  config.Count `env:"INGEST_BUFFER_BYTES" envDefault:"67108864"`
	// IngestWait is the longest time that a request waits for the broker.
	IngestWait config.Duration `env:"INGEST_WAIT" envDefault:"15s"`

	// The sidecar delivers a batch when it has DeliveryEvents events, or after DeliveryAwait. It delivers one batch at a time, so a
	// wait that is shorter than a round over all partitions makes batches small just when there is much to deliver.
	DeliveryEvents config.Count    `env:"DELIVERY_EVENTS" envDefault:"500"`
	DeliveryAwait  config.Duration `env:"DELIVERY_AWAIT" envDefault:"500ms"`

	// Lateness is how far an event may lie behind the newest one and still be counted in the windows, MaxAhead how far ahead
	// of the clock it may be.
	Lateness config.Duration `env:"LATENESS" envDefault:"5m"`
	MaxAhead config.Duration `env:"MAX_AHEAD" envDefault:"1m"`
	// What is kept in memory at most. What has to make room is counted. Where replicas follow each other, MAX_EVENT_IDS must be
	// more than the events that happen within LATENESS.
	MaxProducts   config.Count    `env:"MAX_PRODUCTS" envDefault:"20000"`
	MaxSessions   config.Count    `env:"MAX_SESSIONS" envDefault:"100000"`
	MaxAlgorithms config.Count    `env:"MAX_ALGORITHMS" envDefault:"1000"`
	MaxEventIDs   config.Count    `env:"MAX_EVENT_IDS" envDefault:"2097152"`
	SpikeFloor    config.Count    `env:"SPIKE_FLOOR" envDefault:"100"`
	SpikeWarmUp   config.Duration `env:"SPIKE_WARM_UP" envDefault:"2m"`
	Currency      string          `env:"CURRENCY" envDefault:"USD"`

	// Rebuild is how far back the windows, and the histories of purchases, are made from the store at a start.
	Rebuild config.Duration `env:"REBUILD" envDefault:"24h"`
	// RecordInterval is how often metrics are written as points of their series: a minute, or a multiple that divides an hour.
	RecordInterval config.Duration `env:"RECORD_INTERVAL" envDefault:"1m"`
	// FollowInterval is how often what other replicas stored is read; 0, the default, says that there are none.
	FollowInterval time.Duration `env:"FOLLOW_INTERVAL" envDefault:"0s"`
	// For how long rows are kept in SQLite. Azure Data Explorer has policies for that.
	KeepEvents    config.Duration `env:"KEEP_EVENTS" envDefault:"720h"`
	KeepMetrics   config.Duration `env:"KEEP_METRICS" envDefault:"2160h"`
	KeepAnomalies config.Duration `env:"KEEP_ANOMALIES" envDefault:"8760h"`

	// LiveInterval is how often a live stream sends metrics, LiveStreams how many there may be.
	LiveInterval config.Duration `env:"LIVE_INTERVAL" envDefault:"1s"`
	LiveStreams  config.Count    `env:"LIVE_STREAMS" envDefault:"100"`
}

// parse reads and checks the environment and names everything that is wrong with it.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Store != "sqlite" && c.Store != "kusto", "ANALYTICS_STORE is %q: the store is sqlite or kusto", c.Store)
	if c.Store == "kusto" {
		const expected = "the https address of an Azure Data Explorer cluster is expected, such as https://waybill.westeurope.kusto.windows.net"
		fault(!kusto.ValidAddress(c.KustoEndpoint), "KUSTO_ENDPOINT is %q: %s", c.KustoEndpoint, expected)
		fault(c.KustoIngestEndpoint != "" && !kusto.ValidAddress(c.KustoIngestEndpoint), "KUSTO_INGEST_ENDPOINT is %q: %s", c.KustoIngestEndpoint, expected)
		fault(c.KustoDatabase == "", "KUSTO_DATABASE is missing: the name of a database is expected")
		fault(c.AzureClientID != "" && !clientID.MatchString(c.AzureClientID),
			"AZURE_CLIENT_ID is %q: the client id of a managed identity is expected, such as 00112233-4455-6677-8899-aabbccddeeff", c.AzureClientID)
	}
	fault(c.BufferEvents < api.MaxEvents || c.BufferEvents < c.BatchSize, "INGEST_BUFFER_EVENTS is %d: at least %d are expected, and INGEST_BATCH_SIZE", c.BufferEvents, api.MaxEvents)
	fault(c.BufferBytes < 32<<20, "INGEST_BUFFER_BYTES is %d: at least 33554432 are expected, so that the largest array of events fits", c.BufferBytes)
	fault(c.BatchSize > maxBatch, "INGEST_BATCH_SIZE is %d: not more than %d are expected, which is what one request to the sidecar carries", c.BatchSize, maxBatch)
	lateness := time.Duration(c.Lateness)
	fault(lateness > pipeline.MaxLateness, "LATENESS is %v: not more than %v is expected", lateness, pipeline.MaxLateness)
	fault(c.MaxAhead > c.Lateness, "MAX_AHEAD is %v: not more than LATENESS is expected", time.Duration(c.MaxAhead))
	fault(c.MaxEventIDs > pipeline.MaxIDs, "MAX_EVENT_IDS is %d: not more than %d are expected", c.MaxEventIDs, pipeline.MaxIDs)
	fault(time.Duration(c.SpikeWarmUp) > pipeline.MaxWarmUp, "SPIKE_WARM_UP is %v: not more than %v is expected", time.Duration(c.SpikeWarmUp), pipeline.MaxWarmUp)
	_, known := contracts.CurrencyPlaces(c.Currency)
	fault(!known, "CURRENCY is %q: an ISO 4217 code is expected, such as USD", c.Currency)
	fault(time.Duration(c.Rebuild) < time.Hour+lateness, "REBUILD is %v: at least 1h and LATENESS is expected", time.Duration(c.Rebuild))
	fault(c.KeepEvents < c.Rebuild, "KEEP_EVENTS is %v: not less than REBUILD is expected", time.Duration(c.KeepEvents))
	record := time.Duration(c.RecordInterval)
	fault(record < time.Minute || record%time.Minute != 0 || time.Hour%record != 0, "RECORD_INTERVAL is %v: a whole number of minutes is expected that divides an hour", record)
	fault(c.FollowInterval < 0 || c.FollowInterval > time.Hour, "FOLLOW_INTERVAL is %v: 0 or a duration such as 5s is expected, not more than 1h", c.FollowInterval)
	return c, errors.Join(faults...)
}

// maxBatch is how many events one request to the sidecar carries.
const maxBatch = 500

var clientID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (c Config) pipeline() pipeline.Config {
	return pipeline.Config{
		Lateness: time.Duration(c.Lateness), MaxProducts: int(c.MaxProducts), MaxSessions: int(c.MaxSessions), MaxAlgorithms: int(c.MaxAlgorithms),
		MaxIDs: int(c.MaxEventIDs), SpikeFloor: int(c.SpikeFloor), SpikeWarmUp: time.Duration(c.SpikeWarmUp), Currency: c.Currency,
	}
}

func (c Config) kusto() kusto.Config {
	return kusto.Config{Endpoint: c.KustoEndpoint, IngestEndpoint: c.KustoIngestEndpoint, Database: c.KustoDatabase, ClientID: c.AzureClientID}
}

// open opens the store.
func (c Config) open(ctx context.Context) (store.Store, error) {
	if c.Store == "kusto" {
		return kusto.Open(c.kusto())
	}
	rows, err := sqlite.Open(ctx, c.SQLiteFile)
	if err != nil {
		return nil, fmt.Errorf("SQLITE_FILE is %q: a file is expected that can be written, in a folder that exists: %w", c.SQLiteFile, err)
	}
	return rows, nil
}

func (c Config) ingest() ingest.Options {
	return ingest.Options{
		BatchSize: int(c.BatchSize), Interval: time.Duration(c.BatchInterval), Lanes: int(c.BatchLanes),
		MaxEvents: int(c.BufferEvents), MaxBytes: int(c.BufferBytes),
	}
}

func (c Config) processor() processor.Options {
	return processor.Options{
		Pipeline: c.pipeline(), MaxAhead: time.Duration(c.MaxAhead), Rebuild: time.Duration(c.Rebuild),
		Record: time.Duration(c.RecordInterval), Follow: c.FollowInterval,
		Keep: processor.Keep{Events: time.Duration(c.KeepEvents), Metrics: time.Duration(c.KeepMetrics), Anomalies: time.Duration(c.KeepAnomalies)},
	}
}

func (c Config) events(p *processor.Processor, publisher *events.Publisher) events.Options {
	return events.Options{
		Processor: p, Publisher: publisher, MaxAhead: time.Duration(c.MaxAhead),
		BatchSize: int(c.DeliveryEvents), BatchWait: time.Duration(c.DeliveryAwait),
	}
}
