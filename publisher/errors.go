package publisher

import (
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

// Errors that end Run.
var (
	// ErrLocked: another process publishes from the same state directory.
	ErrLocked = capture.ErrLocked
	// ErrFenced: somebody else has claimed the database. What was not
	// acknowledged stays in the spool. See FencedError.
	ErrFenced = errors.New("another publisher holds the claim")
	// ErrDiverged: the database is not at the end of the stream, and nothing
	// proves that it continues it. See DivergedError.
	ErrDiverged = errors.New("database does not continue the stream")
	// ErrAhead: the archive that is to be continued (Config.After) ends beyond both
	// the stream and the state directory, which have a position. See AheadError.
	ErrAhead = errors.New("the archive to be continued is ahead of the stream")
	// ErrAfter: Config.After failed, and its answer is needed.
	ErrAfter = errors.New("the end of the archive to be continued is not known")
	// ErrUnacknowledged: the context ended while files were in the spool that
	// the stream has not acknowledged. The next run publishes them.
	ErrUnacknowledged = errors.New("files in the spool were not acknowledged yet")
)

// AheadError says what is where. It is ErrAhead.
type AheadError struct {
	DB                     wire.DB
	Archive, Stream, Local ltx.TXID // Stream and Local: 0 where there is none
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("%s: %v: it ends at TXID %s, the stream at %s, the state directory at %s: they are two histories, and each would use the numbers of the other; "+
		"nothing was published", e.DB, ErrAhead, e.Archive, e.Stream, e.Local)
}

// Is makes errors.Is(err, ErrAhead) true.
func (e *AheadError) Is(target error) bool { return target == ErrAhead }

// FencedError says who holds the claim. It is ErrFenced.
type FencedError struct {
	DB    wire.DB
	Claim wire.Claim
	Spool string // where the unacknowledged files are
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("%s: %v: %s (pid %d, writer %s) claimed it at %s, epoch %d; unacknowledged files are kept in %s; "+
		"stop that publisher before you start this one again", e.DB, ErrFenced, e.Claim.Host, e.Claim.PID, e.Claim.Writer, e.Claim.Pos, e.Claim.Epoch, e.Spool)
}

// Is makes errors.Is(err, ErrFenced) true.
func (e *FencedError) Is(target error) bool { return target == ErrFenced }

// DivergedError says where the stream and the database are. It is ErrDiverged.
type DivergedError struct {
	DB     wire.DB
	Path   string
	Stream ltx.Pos // end of the stream
	Writer string  // who wrote that
	Local  ltx.Pos // last captured here; zero: nothing
	cause  error
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("%s: %v: the stream ends at %s (writer %s), %s was captured up to %s (%v); nothing was published; "+
		"if this file is the truth, run again with --force-reseed", e.DB, ErrDiverged, e.Stream, e.Writer, e.Path, e.Local, e.cause)
}

// Is makes errors.Is(err, ErrDiverged) true.
func (e *DivergedError) Is(target error) bool { return target == ErrDiverged }

// Unwrap returns what the comparison found.
func (e *DivergedError) Unwrap() error { return e.cause }
