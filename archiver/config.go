package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// Defaults of [Config].
const (
	DefaultFlushInterval = 10 * time.Second
	DefaultStageLimit    = 64 << 20 // bytes
	DefaultParallelism   = 4
	DefaultLeaseTTL      = 5 * time.Second
	DefaultDiscover      = 10 * time.Second
)

// Destination is one archive that is written.
type Destination struct {
	// Name tells destinations apart, on disk and in NATS: one token (see
	// wire.ParseDB), the same in every process that may write there.
	Name    string
	Archive *levels.Archive
	// DB is the one database that goes there, its level folders at the archive's
	// root (levels.Root), which is how Litestream lays out what it writes. "": every
	// database, each in a folder of its name.
	DB wire.DB
	// NoChecksums leaves the database checksums out of the files, for readers
	// that refuse them: Litestream 0.5.15 to 0.5.17.
	NoChecksums bool
}

// takes reports whether a database goes there.
func (d Destination) takes(db wire.DB) bool { return d.DB == "" || d.DB == db }

// folder is the name of a database in the archive.
func (d Destination) folder(db wire.DB) string {
	if d.DB != "" {
		return levels.Root
	}
	return string(db)
}

// Config of an Archiver. JS, Destinations and StageDir are required; zero values
// of the rest mean the documented defaults.
type Config struct {
	JS     jetstream.JetStream
	Stream string    // default wire.DefaultStream
	DBs    []wire.DB // empty: every database of the stream, new ones too
	// Destinations get the same databases, save those that are for one alone, each
	// at its own pace.
	Destinations []Destination
	// StageDir holds what waits for the next flush: it must exist, and may be
	// lost at any time. Each process needs its own.
	StageDir string

	// FlushInterval is how long a transaction waits at most until it is written
	// to level 1, default DefaultFlushInterval.
	FlushInterval time.Duration
	// StageLimit is how many bytes wait for a flush in each lane; a flush comes
	// early when they are there. Default DefaultStageLimit.
	StageLimit int64
	Schedule   compactor.Schedule // default compactor.DefaultSchedule
	Policy     compactor.Policy   // default: everything is kept

	// TrimAfter is how old messages are at least before they are trimmed from
	// the stream, once every archive that was ever written from it has them; 0, or
	// a stream that drops messages by age: nothing is trimmed. Subscribers that were away for less need no archive.
	TrimAfter time.Duration

	Parallelism int           // merges at a time, and a fourth of the flushes; default DefaultParallelism
	LeaseTTL    time.Duration // a standby takes over so long after its holder fell silent, default DefaultLeaseTTL
	NoLease     bool          // the caller makes sure that nobody else writes
	Discover    time.Duration // how often new databases are looked for, default DefaultDiscover

	// AskFull asks the publisher of a database for a file of all its pages; nil:
	// the archiver waits until one comes.
	AskFull func(context.Context, wire.DB) error

	Logger  *slog.Logger // default slog.Default()
	Metrics *Metrics     // nil: none
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.JS == nil {
		errs = append(errs, errors.New("no JetStream context"))
	}
	if c.StageDir == "" {
		errs = append(errs, errors.New("no stage directory"))
	}
	if len(c.Destinations) == 0 {
		errs = append(errs, errors.New("no destination"))
	}
	names := map[string]bool{}
	for _, d := range c.Destinations {
		if _, err := wire.ParseDB(d.Name); err != nil {
			errs = append(errs, fmt.Errorf("destination: %w", err))
		}
		if _, err := wire.ParseDB(string(d.DB)); d.DB != "" && err != nil {
			errs = append(errs, fmt.Errorf("destination %s: %w", d.Name, err))
		}
		if names[d.Name] {
			errs = append(errs, fmt.Errorf("destination %s is given twice", d.Name))
		}
		if d.Archive == nil {
			errs = append(errs, fmt.Errorf("destination %s has no archive", d.Name))
		}
		names[d.Name] = true
	}
	for _, db := range c.DBs {
		if _, err := wire.ParseDB(string(db)); err != nil {
			errs = append(errs, err)
		}
	}
	if c.FlushInterval < 0 || c.StageLimit < 0 || c.TrimAfter < 0 || c.LeaseTTL < 0 || c.Parallelism < 0 || c.Discover < 0 {
		errs = append(errs, errors.New("a negative duration, size or number"))
	}
	errs = append(errs, c.Schedule.Validate(), c.Policy.Validate())
	c.Stream = cmp.Or(c.Stream, wire.DefaultStream)
	c.FlushInterval = cmp.Or(c.FlushInterval, DefaultFlushInterval)
	c.StageLimit = cmp.Or(c.StageLimit, DefaultStageLimit)
	c.Parallelism = cmp.Or(c.Parallelism, DefaultParallelism)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, DefaultLeaseTTL)
	c.Discover = cmp.Or(c.Discover, DefaultDiscover)
	if c.Schedule.Windows == nil && c.Schedule.Snapshot == 0 {
		c.Schedule = compactor.DefaultSchedule
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, errors.Join(errs...)
}
