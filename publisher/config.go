package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// Notifier tells publishers that a database was written to. One serves all
// publishers of a process; the operating system limits how many there can be.
type Notifier = capture.Notifier

// NewNotifier starts a notifier; Close ends it.
func NewNotifier() (*Notifier, error) { return capture.NewNotifier() }

// Config says what to publish, and where.
type Config struct {
	JS     jetstream.JetStream
	Stream string // default wire.DefaultStream; created when absent

	// Replicas and Retain are settings of a stream that is created: 1 or 3
	// copies (default 1), and the age at which messages are dropped (0: never).
	// A full file is published at least every half Retain.
	Replicas int
	Retain   time.Duration
	// AcceptLossy accepts an existing stream whose limits could drop messages
	// before they are archived.
	AcceptLossy bool

	DB       wire.DB
	Path     string // the database file
	StateDir string // default: a hidden directory beside it, see StateDir

	// PerTransaction publishes one LTX file per SQLite commit. By default what
	// is committed while a message is in flight goes into the next one.
	PerTransaction bool
	// ForceReseed makes this database the truth, whatever the stream holds.
	ForceReseed bool

	// After tells the TXID at which an archive of this database ends that somebody
	// else wrote, and that this publisher's transactions are to follow: where neither
	// the stream nor the state directory has a position, the first file is a full one
	// with the TXID behind it. Where they have one and it is lower, Run ends with
	// ErrAhead, and otherwise nothing changes. It is asked before anything is
	// published; its error ends Run with ErrAfter where there is no position, and is
	// logged where there is. nil: no archive is continued.
	After func(context.Context) (ltx.TXID, error)

	SoftWALLimit int64 // bytes; a WAL that nobody checkpoints is restarted at eight times that; default 4 MiB
	SpoolLimit   int64 // bytes of unacknowledged LTX files; default 4 GiB

	// SoleOwner says that this process opens no other SQLite connection on the
	// database. It must be false inside an application that does.
	SoleOwner bool

	Notifier *Notifier // nil: one of its own
	Gate     *Gate     // shared by all publishers of a process; nil: none
	Metrics  *Metrics  // nil: none
	Logger   *slog.Logger

	crash func(label string) // tests end the process in it; called at every step that lasts
}

// StateDir returns the default state directory of the database at path.
func StateDir(path string) string { return capture.StateDir(path) }

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
	if c.Retain < 0 || c.SoftWALLimit < 0 || c.SpoolLimit < 0 {
		errs = append(errs, errors.New("limits must not be negative"))
	}
	if c.Stream == "" {
		c.Stream = wire.DefaultStream
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("db", string(c.DB))
	if c.crash == nil {
		c.crash = func(string) {}
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("publisher: %w", err)
	}
	return c, nil
}
