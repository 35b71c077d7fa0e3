package pipeline

import (
	"errors"
	"time"

	"waybill/contracts"
)

// Config bounds what the pipeline keeps and says what it counts.
type Config struct {
	// Lateness is how far an event may lie behind the newest one and still be counted.
	Lateness time.Duration
	// MaxProducts, MaxSessions and MaxAlgorithms bound of how many of each the windows are kept. Of more, the ones that were
	// not heard of for the longest time are dropped.
	MaxProducts, MaxSessions, MaxAlgorithms int
	// MaxIDs bounds how many event ids are remembered to tell duplicates: at least so many, and at most twice.
	MaxIDs int
	// SpikeFloor is how many views of a product within a minute are never a spike.
	SpikeFloor int
	// SpikeWarmUp is for how long events must have been seen before spikes are looked for.
	SpikeWarmUp time.Duration
	// Currency is the one whose amounts are added up as revenue. A purchase in another one counts as a purchase.
	Currency string
}

// DefaultConfig keeps within some 300 MB.
func DefaultConfig() Config {
	return Config{
		Lateness: 2 * time.Minute, MaxProducts: 20_000, MaxSessions: 100_000, MaxAlgorithms: 1000, MaxIDs: 1 << 21,
		SpikeFloor: 100, SpikeWarmUp: 2 * time.Minute, Currency: contracts.DefaultCurrency,
	}
}

// The most that a Config may ask for.
const (
	MaxLateness = time.Hour
	MaxIDs      = 1 << 28
	// MaxWarmUp leaves something of the hour of history that a spike is measured by.
	MaxWarmUp = 50 * time.Minute
)

// Check says everything that is wrong with the configuration.
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
