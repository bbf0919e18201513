package capture

import (
	"errors"
	"log/slog"
	"path/filepath"
	"time"
)

// Defaults of Config.
const (
	DefaultSoftWALLimit = 4 << 20
	DefaultSpoolLimit   = 4 << 30
	DefaultSpoolTail    = 64 << 20
)

// Config says what to capture, and within which bounds.
type Config struct {
	Path     string // the database file
	StateDir string // default StateDir(Path)

	// PerTransaction makes one LTX file of each SQLite commit. The WAL is pinned
	// for that, and restarted by us: it costs a busy application a good part of
	// its throughput. By default whatever has been committed when a file is asked
	// for goes into it.
	PerTransaction bool

	SoftWALLimit int64 // bytes; a WAL that nobody checkpoints is restarted at eight times that; default 4 MiB
	SpoolLimit   int64 // bytes of unacknowledged LTX files; default 4 GiB
	SpoolTail    int64 // bytes of acknowledged LTX files to keep; default 64 MiB

	// SoleOwner says that this process opens no SQLite connection of its own
	// on the database. Descriptors of a replaced file can then be closed.
	SoleOwner bool

	Notifier *Notifier // shared by all databases of a process; nil: one of its own
	Logger   *slog.Logger
	Observer Observer

	Crash func(label string) // tests end the process in it; called at every durable step; nil: nothing is
}

// Observer is told of what happened, for metrics. Its functions may be nil;
// they are called from the capturing goroutine and must not block.
type Observer struct {
	Captured  func(File, Group)
	Restarted func(writeLockHeld time.Duration)
	Yielded   func()
	Scanned   func(took time.Duration, pages int)
	Failed    func(error)
}

// Group says what went into one LTX file.
type Group struct {
	Commits int // SQLite transactions; 0 for a file that came of a comparison
	Frames  int
	Pages   int
}

// StateDir returns the default state directory of a database: a hidden
// directory beside it.
func StateDir(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-ltx")
}

func (c Config) withDefaults() (Config, error) {
	if c.Path == "" {
		return c, errors.New("capture: Config.Path is empty")
	}
	if c.SoftWALLimit < 0 || c.SpoolLimit < 0 || c.SpoolTail < 0 {
		return c, errors.New("capture: limits must not be negative")
	}
	if c.StateDir == "" {
		c.StateDir = StateDir(c.Path)
	}
	setDefault(&c.SoftWALLimit, DefaultSoftWALLimit)
	setDefault(&c.SpoolLimit, DefaultSpoolLimit)
	setDefault(&c.SpoolTail, DefaultSpoolTail)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	return c, nil
}

func setDefault(v *int64, def int64) {
	if *v == 0 {
		*v = def
	}
}
