package pipeline

import (
	"errors"
	"time"

	"waybill/contracts"
)

// Config limits the memory of the pipeline and configures what it counts.
type Config struct {
	// Lateness is how far an event may lie behind the newest one and still be counted.
	Lateness time.Duration
	// MaxProducts, MaxSessions and MaxAlgorithms limit how many of each have windows. The least recently used are dropped.
	MaxProducts, MaxSessions, MaxAlgorithms int
	// MaxIDs is how many event ids are remembered to find duplicates: at least MaxIDs, at most twice as many.
	MaxIDs int
	// SpikeFloor is the number of views of a product in a minute that is never a spike.
	SpikeFloor int
	// SpikeWarmUp is how long events must have been observed before spikes are reported.
	SpikeWarmUp time.Duration
	// Currency is the currency whose amounts are added up as revenue. A purchase in another one counts as a purchase only.
	Currency string
}

// DefaultConfig needs about 300 MB.
func DefaultConfig() Config {
	return Config{
		Lateness: 2 * time.Minute, MaxProducts: 20_000, MaxSessions: 100_000, MaxAlgorithms: 1000, MaxIDs: 1 << 21,
		SpikeFloor: 100, SpikeWarmUp: 2 * time.Minute, Currency: contracts.DefaultCurrency,
	}
}

// Upper limits of a Config.
const (
	MaxLateness = time.Hour
	MaxIDs      = 1 << 28
	// MaxWarmUp leaves a part of the hour of history with which a spike is compared.
	MaxWarmUp = 50 * time.Minute
)

// Check returns every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	if c.Lateness < 0 || c.Lateness > MaxLateness {
		faults = append(faults, errors.New("the lateness must be from 0 to 1h"))
	}
	if c.MaxProducts < 1 || c.MaxSessions < 1 || c.MaxAlgorithms < 1 || c.MaxIDs < 1 || c.MaxIDs > MaxIDs {
		faults = append(faults, errors.New("at least one product, session, algorithm and event id must be kept, and not more than 2^28 event ids"))
	}
	if c.SpikeFloor < 1 || c.SpikeWarmUp < 0 || c.SpikeWarmUp > MaxWarmUp {
		faults = append(faults, errors.New("a spike must have at least one view, and a warm-up of not more than 50m"))
	}
	if len(c.Currency) != 3 {
		faults = append(faults, errors.New("the currency must be an ISO 4217 code"))
	}
	return errors.Join(faults...)
}
