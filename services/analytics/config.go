package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waybill/platform/config"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/kusto"
	"waybill/services/analytics/internal/store/sqlite"
	"waybill/services/analytics/internal/stream"
)

// Config is everything the environment decides.
type Config struct {
	config.Service

	// Store is where events and metrics are kept: in the file SQLITE_FILE, or in Azure Data Explorer.
	Store      string `env:"ANALYTICS_STORE" envDefault:"sqlite"`
	SQLiteFile string `env:"SQLITE_FILE" envDefault:"analytics.sqlite"`
	// KustoIngestEndpoint follows from KustoEndpoint when it is not given.
	KustoEndpoint       string `env:"KUSTO_ENDPOINT"`
	KustoIngestEndpoint string `env:"KUSTO_INGEST_ENDPOINT"`
	KustoDatabase       string `env:"KUSTO_DATABASE"`
	// AzureClientID names the managed identity; without it the system-assigned one is used.
	AzureClientID string `env:"AZURE_CLIENT_ID"`

	// A batch goes to the broker when it has so many events, or when its first one has waited so long.
	BatchSize     config.Count    `env:"INGEST_BATCH_SIZE" envDefault:"100"`
	BatchInterval config.Duration `env:"INGEST_BATCH_INTERVAL" envDefault:"20ms"`
	// BatchLanes is how many batches are under way at a time.
	BatchLanes config.Count `env:"INGEST_LANES" envDefault:"4"`
	// BufferEvents and BufferBytes bound what is under way altogether; more is refused.
	BufferEvents config.Count `env:"INGEST_BUFFER_EVENTS" envDefault:"20000"`
	BufferBytes  config.Count `env:"INGEST_BUFFER_BYTES" envDefault:"67108864"`
	// IngestWait is how long a client waits for the broker at most.
	IngestWait config.Duration `env:"INGEST_WAIT" envDefault:"15s"`

	// The bus delivers so many events together, or what is there after so long.
	DeliveryEvents config.Count    `env:"DELIVERY_EVENTS" envDefault:"500"`
	DeliveryAwait  config.Duration `env:"DELIVERY_AWAIT" envDefault:"100ms"`

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
	if err != nil {
		return c, err
	}
	var faults []error
	fault := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, errors.New(text))
		}
	}
	fault(c.Store != "sqlite" && c.Store != "kusto", "ANALYTICS_STORE must be sqlite or kusto")
	fault(c.Store == "sqlite" && c.SQLiteFile == "", "SQLITE_FILE must name a file")
	if c.Store == "kusto" {
		if err := c.kusto().Check(); err != nil {
			faults = append(faults, fmt.Errorf("KUSTO_ENDPOINT, KUSTO_INGEST_ENDPOINT, KUSTO_DATABASE: %w", err))
		}
	}
	fault(c.BufferEvents < api.MaxEvents || c.BufferEvents < c.BatchSize, fmt.Sprintf("INGEST_BUFFER_EVENTS must be at least %d and INGEST_BATCH_SIZE", api.MaxEvents))
	fault(c.BufferBytes < 32<<20, "INGEST_BUFFER_BYTES must be at least 33554432, so that the largest array of events fits")
	fault(c.BatchSize > 500, "INGEST_BATCH_SIZE must not be more than 500, which is what one request to the sidecar carries")
	if err := c.pipeline().Check(); err != nil {
		faults = append(faults, fmt.Errorf("LATENESS, MAX_PRODUCTS, MAX_SESSIONS, MAX_ALGORITHMS, MAX_EVENT_IDS, SPIKE_FLOOR, SPIKE_WARM_UP, CURRENCY: %w", err))
	}
	fault(c.MaxAhead > c.Lateness, "MAX_AHEAD must not be more than LATENESS")
	fault(time.Duration(c.Rebuild) < time.Hour+time.Duration(c.Lateness), "REBUILD must be at least 1h and LATENESS")
	fault(c.KeepEvents < c.Rebuild, "KEEP_EVENTS must not be less than REBUILD")
	record := time.Duration(c.RecordInterval)
	fault(record < time.Minute || record%time.Minute != 0 || time.Hour%record != 0, "RECORD_INTERVAL must be a whole number of minutes that divides an hour")
	fault(c.FollowInterval < 0, "FOLLOW_INTERVAL must not be negative")
	return c, errors.Join(faults...)
}

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
	return sqlite.Open(ctx, c.SQLiteFile)
}

func (c Config) ingest() ingest.Options {
	return ingest.Options{
		BatchSize: int(c.BatchSize), Interval: time.Duration(c.BatchInterval), Lanes: int(c.BatchLanes),
		MaxEvents: int(c.BufferEvents), MaxBytes: int(c.BufferBytes),
	}
}

func (c Config) stream() stream.Options {
	return stream.Options{
		Pipeline: c.pipeline(), MaxAhead: time.Duration(c.MaxAhead), Rebuild: time.Duration(c.Rebuild),
		Record: time.Duration(c.RecordInterval), Follow: c.FollowInterval,
		Keep: stream.Keep{Events: time.Duration(c.KeepEvents), Metrics: time.Duration(c.KeepMetrics), Anomalies: time.Duration(c.KeepAnomalies)},
	}
}
