package subscriber

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/wire"
)

// Bootstrapper finds a base outside the stream, an archive for example.
type Bootstrapper interface {
	// Base returns an LTX file that brings a replica of db at position after
	// (zero: an empty one) to a later one: a full file, or one over a range
	// that begins at or before after.TXID+1. An error that wraps ErrNoBase
	// says that there is none.
	Base(ctx context.Context, db wire.DB, after ltx.Pos) (*Base, error)
}

// Base is an LTX file outside the stream. The subscriber closes it.
type Base struct {
	File *io.SectionReader
	Full bool // holds every page of the database
	// NoChecksums: it bears no database checksums, and the Bootstrapper vouches
	// that it continues the position.
	NoChecksums bool
	Max         ltx.TXID
	Timestamp   time.Time // of TXID Max
	More        bool      // what follows it is there already
	io.Closer
}

var (
	// ErrNoBase is what a Bootstrapper wraps when it has nothing to offer.
	ErrNoBase = errors.New("no base")
	// ErrUpToDate is an ErrNoBase: the position is the newest there is.
	ErrUpToDate = fmt.Errorf("%w: nothing is newer", ErrNoBase)
)

// DefaultPollInterval is how often an archive is asked for something new.
const DefaultPollInterval = time.Second

// Config of a Subscriber. DB and Path are required, and JS or Bootstrapper.
type Config struct {
	// JS leads to the stream that is followed. nil: the replica follows what the
	// Bootstrapper finds, which is asked every PollInterval.
	JS           jetstream.JetStream
	Stream       string        // default wire.DefaultStream
	PollInterval time.Duration // default DefaultPollInterval

	DB   wire.DB // what is replicated; without JS a name that the Bootstrapper knows
	Path string  // of the replica; made when absent, its directory must exist
	// StateDir holds lock, position journal, page checksums and spool; default
	// replica.StateDirOf(Path). Made when absent.
	StateDir string
	// Bootstrapper is asked when the stream has no base; nil: wait for one. It is
	// called by one goroutine. Where it is a fmt.Stringer, Status shows its text.
	Bootstrapper Bootstrapper

	SoftWALLimit int64 // bytes, default replica.DefaultSoftWALLimit
	MemoryLimit  int64 // bytes of an LTX file held in memory, default feed.DefaultMemoryLimit
	SoleOwner    bool  // see replica.Config

	Logger  *slog.Logger // default slog.Default()
	Metrics *Metrics     // nil: none
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.JS == nil && c.Bootstrapper == nil {
		errs = append(errs, errors.New("neither a JetStream context nor a Bootstrapper"))
	}
	if _, err := wire.ParseDB(string(c.DB)); err != nil && (c.JS != nil || c.Bootstrapper == nil || c.DB == "") {
		errs = append(errs, err)
	}
	if c.PollInterval < 0 {
		errs = append(errs, fmt.Errorf("poll interval %s is negative", c.PollInterval))
	}
	if c.PollInterval == 0 {
		c.PollInterval = DefaultPollInterval
	}
	if c.Path == "" {
		errs = append(errs, errors.New("no path of the replica"))
	} else if abs, err := filepath.Abs(c.Path); err != nil {
		errs = append(errs, err)
	} else {
		c.Path = abs
	}
	if c.Stream == "" && c.JS != nil {
		c.Stream = wire.DefaultStream
	}
	if c.StateDir == "" {
		c.StateDir = replica.StateDirOf(c.Path)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("db", string(c.DB))
	return c, errors.Join(errs...)
}
