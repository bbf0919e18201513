package subscriber

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// Base is a full LTX file from elsewhere than the stream.
type Base struct {
	File *io.SectionReader
	Seq  uint64 // stream sequence of the file that led there; 0: unknown
	// Close is called once the file was applied or refused. nil: nothing to do.
	Close func() error
}

// ErrNoBase is what a Bootstrapper returns when it has nothing to offer.
var ErrNoBase = errors.New("no base")

// Bootstrapper offers a base where the stream holds none: the archive. after is
// the replica's position; zero: it is empty. The file must lie beyond it.
type Bootstrapper interface {
	Base(ctx context.Context, db wire.DB, after ltx.Pos) (*Base, error)
}

// Config says what to replicate, and where to.
type Config struct {
	JS     jetstream.JetStream
	Stream string // default wire.DefaultStream; must exist, or come to exist
	DB     wire.DB

	Path     string // the replica file, made when absent; its directory must exist
	StateDir string // default: a hidden directory beside it, see StateDir

	SoftWALLimit int64        // bytes, default replica.DefaultSoftWALLimit
	Bootstrapper Bootstrapper // nil: the stream alone

	// SoleOwner says that no other code of this process opens the replica.
	SoleOwner bool

	Metrics *Metrics // nil: none
	Logger  *slog.Logger
}

// StateDir returns the default state directory of the replica at path.
func StateDir(path string) string { return replica.StateDirOf(path) }

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.JS == nil {
		errs = append(errs, errors.New("Config.JS is nil"))
	}
	if _, err := wire.ParseDB(string(c.DB)); err != nil {
		errs = append(errs, err)
	}
	if c.Path == "" {
		errs = append(errs, errors.New("Config.Path is empty"))
	}
	if c.Stream == "" {
		c.Stream = wire.DefaultStream
	}
	if c.StateDir == "" && c.Path != "" {
		c.StateDir = StateDir(c.Path)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("db", string(c.DB))
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("subscriber: %w", err)
	}
	return c, nil
}
