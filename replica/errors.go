package replica

import (
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrDamaged is the cause of every error about an LTX file that is not what
	// its publisher wrote. Fetching it again may help.
	ErrDamaged = ltxfile.ErrDamaged
	// ErrDiverged means that the replica, or the file, belongs to another
	// history: only a full file helps.
	ErrDiverged = errors.New("replica has diverged")
	// ErrPageSize means that a full file has another page size than the replica,
	// whose file can only be replaced when nobody has it open.
	ErrPageSize = errors.New("page size differs and the replica is in use")
	// ErrLocked means that another process holds the replica's WRITE lock:
	// another subscriber, or a writer.
	ErrLocked = errors.New("replica is held by another writer")
	// ErrMoved means that the replica's name leads to another file than the one
	// applied to. Close and open it again.
	ErrMoved = errors.New("replica file was moved, removed or replaced")
	// ErrClosed is returned once Close was called.
	ErrClosed = errors.New("replica is closed")
)

// PosError says that an LTX file does not follow the position of the replica.
// errors.Is(err, ErrDiverged) tells a fork from a gap or a repetition.
type PosError struct {
	Have ltx.Pos // of the replica
	Pre  ltx.Pos // that the file wants
	Max  ltx.TXID
}

func (e *PosError) Error() string {
	return fmt.Sprintf("LTX file %s-%s applies to %s, replica is at %s", e.Pre.TXID+1, e.Max, e.Pre, e.Have)
}

// Is reports a fork: the same TXID with another checksum.
func (e *PosError) Is(target error) bool {
	return target == ErrDiverged && e.Pre.TXID == e.Have.TXID
}

// LostError says why a replica that has content has no position. It is
// ErrDiverged.
type LostError struct {
	Path     string
	Content  ltx.Checksum // rolling checksum of what the file holds
	PageSize uint32
	Pages    uint32
	Last     Position // newest position in the journal; zero: the journal knows none, the file may not be a replica at all
}

func (e *LostError) Error() string {
	if e.Last.IsZero() {
		return fmt.Sprintf("%s: content %s (%d pages) has no known position: not written by a subscriber with this state directory", e.Path, e.Content, e.Pages)
	}
	return fmt.Sprintf("%s: content %s (%d pages) is no known position, the last was %s: written to, or replaced, by another program", e.Path, e.Content, e.Pages, e.Last.Pos)
}

// Is makes a LostError an ErrDiverged.
func (e *LostError) Is(target error) bool { return target == ErrDiverged }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}
