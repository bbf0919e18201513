package control

import (
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/wire"
)

// Side is one of the two kinds of process that answer.
type Side string

// The sides, as they are in subjects.
const (
	Publishers  Side = "pub"
	Subscribers Side = "sub"
)

// Command is the name of the command on this side, and of its micro service.
func (s Side) Command() string { return "ltx-" + string(s) }

const (
	prefix        = "ltxstream."
	headerID      = "Ltx-Id"
	headerState   = "Ltx-State"
	headerTimeout = "Ltx-Timeout" // a Go duration
	headerTXID    = "Ltx-Txid"    // 16 hex digits
	stateMore     = "more"
)

// subject is ltxstream.<side>[.<db>[.<id>]].<verb>.
func subject(side Side, db wire.DB, id, verb string) string {
	s := prefix + string(side)
	if db != "" {
		s += "." + string(db)
	}
	if id != "" {
		s += "." + id
	}
	return s + "." + verb
}

// Kind says what sort of failure an answer reports.
type Kind string

// The kinds of answers. KindFenced, KindGap and KindNotFound stand for errors
// with the exit codes of that name.
const (
	KindError    Kind = "error"
	KindTimeout  Kind = "timeout"
	KindBusy     Kind = "busy"
	KindRequest  Kind = "bad-request"
	KindStopped  Kind = "stopped"
	KindFenced   Kind = "fenced"
	KindGap      Kind = "gap"
	KindNotFound Kind = "not-found"
)

// exitCodes is the exit code of the asking command; 1 for other kinds.
var exitCodes = map[Kind]int{
	KindTimeout:  daemon.ExitLag,
	KindFenced:   daemon.ExitFenced,
	KindGap:      daemon.ExitGap,
	KindNotFound: daemon.ExitNotFound,
}

// kindOf is the kind of an error that has an exit code; empty for others.
func kindOf(err error) Kind {
	code := daemon.Code(err)
	for kind, c := range exitCodes {
		if c == code {
			return kind
		}
	}
	return ""
}

// Reached is the position somebody got to.
type Reached struct {
	DB       wire.DB      `json:"db"`
	ID       string       `json:"id"` // the replica, or the publishing process
	TXID     ltx.TXID     `json:"txid"`
	Checksum ltx.Checksum `json:"checksum"`
}

// RemoteError is a failure that another process reports.
type RemoteError struct {
	DB   wire.DB
	ID   string
	Kind Kind
	Text string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("%s on %s: %s", e.DB, e.ID, e.Text)
}

// ExitCode is that of the failure on the other side.
func (e *RemoteError) ExitCode() int {
	if code, ok := exitCodes[e.Kind]; ok {
		return code
	}
	return daemon.ExitFailure
}

// NobodyError says that nobody answers for a database.
type NobodyError struct {
	Side Side
	DB   wire.DB // empty: any
	ID   string  // empty: any
}

func (e *NobodyError) Error() string {
	command := e.Side.Command()
	switch {
	case e.DB == "":
		return fmt.Sprintf("no %s answers on this NATS; is it running?", command)
	case e.ID != "":
		return fmt.Sprintf("no %s serves replica %q of database %q on this NATS; is it running?", command, e.ID, e.DB)
	}
	return fmt.Sprintf("no %s serves database %q on this NATS; is it running?", command, e.DB)
}

// ExitCode says that it was not found.
func (e *NobodyError) ExitCode() int { return daemon.ExitNotFound }

// Hint is the next step for an operator.
func (e *NobodyError) Hint() string {
	return "nothing was changed; start it, or name the NATS it uses with --server or --context; try: " + e.Side.Command() + " status"
}

// SilenceError says that somebody accepted a request and did not finish it.
type SilenceError struct {
	DB    wire.DB
	ID    string
	After time.Duration
}

func (e *SilenceError) Error() string {
	return fmt.Sprintf("%s on %s: no answer within %v", e.DB, e.ID, e.After)
}

// ExitCode says that it took too long.
func (e *SilenceError) ExitCode() int { return daemon.ExitLag }
