package embedded

import (
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/dirlock"
)

// ErrLocked is in the chain of the error of a server whose directory another
// process uses. Errors of this kind are a [*LockedError].
var ErrLocked = errors.New("directory in use")

// LockedError says who holds a store directory.
type LockedError struct {
	Dir string
	PID int // 0: unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock %s: directory in use by another process", e.Dir)
	}
	return fmt.Sprintf("lock %s: directory in use by process %d", e.Dir, e.PID)
}

// Unwrap makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Unwrap() error { return ErrLocked }

// Hint is the next step for an operator.
func (e *LockedError) Hint() string {
	return "nothing was changed; stop the other process, connect to it with --server, or choose another --embedded directory"
}

func lockDir(dir string) (*dirlock.Lock, error) {
	l, err := dirlock.Take(dir)
	if held, ok := errors.AsType[*dirlock.HeldError](err); ok {
		return nil, &LockedError{Dir: dir, PID: held.PID}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return l, nil
}
