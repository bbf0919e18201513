package foreign

import (
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// Action is what a foreign process does, over and over, until it is stopped.
type Action string

// The actions. Violations are named in Violation.What.
const (
	// Read checks the invariants of the bank in one statement; the sequence must not go backwards.
	Read Action = "read"
	// Hold checks within one read transaction that lasts Config.Hold: the sequence must not move inside.
	Hold Action = "hold"
	// TryWrite tries to take the write lock and change a row; anything else than SQLITE_BUSY is a violation.
	TryWrite Action = "trywrite"
	// Checkpoint runs PRAGMA wal_checkpoint(Config.Mode); Report.Busy counts those that were not complete.
	Checkpoint Action = "checkpoint"
	// Write makes bank transfers at Config.Rate; Report.Busy counts the refused ones, which are tried again.
	Write Action = "write"
	// Probe polls the sequence as tightly as Config.Interval allows and reports when each value was first seen.
	Probe Action = "probe"
)

// Runtime is the SQLite a foreign process uses.
type Runtime string

// The runtimes.
const (
	Go     Runtime = "go"     // go-sqlite3 in a child of this program
	Python Runtime = "python" // python3's sqlite3 module
)

// Config says what a foreign process does. It travels as JSON; durations as nanoseconds.
type Config struct {
	Runtime  Runtime         `json:"runtime"` // "" means Go
	Action   Action          `json:"action"`  // "" means Read
	Path     string          `json:"path"`
	DB       sqlconn.Options `json:"db"`       // readers: usually Mode "ro" or "rw" and BusyTimeout 0
	Fresh    bool            `json:"fresh"`    // a new connection for each round
	Interval time.Duration   `json:"interval"` // pause between rounds; 0 means none
	Hold     time.Duration   `json:"hold"`     // of Hold: how long each transaction lasts
	Mode     string          `json:"mode"`     // of Checkpoint; "" means TRUNCATE
	Rate     float64         `json:"rate"`     // of Write, per second; 0 means as fast as it can
	Seed     uint64          `json:"seed"`     // of Write
	Limit    int64           `json:"limit"`    // rounds; 0 means until stopped
}

const (
	reportEvery = 100 * time.Millisecond
	holdCheck   = 20 * time.Millisecond // pause between checks inside a held transaction
)

func (c Config) withDefaults() Config {
	if c.Runtime == "" {
		c.Runtime = Go
	}
	if c.Action == "" {
		c.Action = Read
	}
	if c.Mode == "" {
		c.Mode = "TRUNCATE"
	}
	return c
}

// Report is what a foreign process has done and seen. Each one it sends holds the totals so far, but Seen only what is new.
type Report struct {
	Final     bool          `json:"final"`
	Rounds    int64         `json:"rounds"`    // of any action
	Checks    int64         `json:"checks"`    // states judged, or polls of a Probe
	States    int64         `json:"states"`    // different sequences seen
	Writes    int64         `json:"writes"`    // transfers committed, or stray writes that went through
	Busy      int64         `json:"busy"`      // SQLITE_BUSY met
	FirstSeq  int64         `json:"first_seq"` // -1 before anything was seen
	LastSeq   int64         `json:"last_seq"`
	MaxRound  time.Duration `json:"max_round"` // longest round, pauses not included
	SQLite    string        `json:"sqlite"`    // version
	Seen      []Seen        `json:"seen,omitempty"`
	Violation *Violation    `json:"violation,omitempty"`
}

// Seen says that Seq was visible at the Unix time At, in nanoseconds, and not at the poll before.
type Seen struct {
	Seq int64 `json:"seq"`
	At  int64 `json:"at"`
}

// Violation is something that must never happen. It is an error.
type Violation struct {
	// What is "invariant", "backwards", "moved" (inside a transaction), "busy" (on a read), "wrote" (by TryWrite) or "error".
	What   string `json:"what"`
	Seq    int64  `json:"seq"`
	Detail string `json:"detail"`
}

func (v *Violation) Error() string { return v.What + ": " + v.Detail }
