package feed

import (
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// ErrNoBase says that the stream holds no complete full file to begin with.
var ErrNoBase = errors.New("stream holds no full file to begin with")

// GapError says that files are missing: the next one in the stream does not
// continue the position.
type GapError struct {
	DB        wire.DB
	Want, Got ltx.TXID
}

func (e *GapError) Error() string {
	return fmt.Sprintf("gap in the stream: want TXID %s, next is %s", e.Want, e.Got)
}

// ForkError says that the stream went another way than the replica: the same
// TXID with another checksum, or a history that began anew. The replica's
// state is no longer the truth.
type ForkError struct {
	DB        wire.DB
	Have, Got ltx.Pos
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("stream and replica diverged: have %s, stream has %s", e.Have, e.Got)
}

// DamageError is given to Config.OnDamage for each message that was skipped.
type DamageError struct {
	DB      wire.DB
	Seq     uint64 // stream sequence
	Subject string
	Err     error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("skip message %d on %s: %v", e.Seq, e.Subject, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// Reasons inside a DamageError; a header that does not parse is a
// *wire.HeaderError.
var (
	ErrForeign    = errors.New("not a message of ours")
	ErrStale      = errors.New("written under an older claim than the newest")
	ErrPart       = errors.New("part out of order, or of another file")
	ErrUnfinished = errors.New("file was never completed")
	ErrSize       = stream.ErrSize
	ErrHeader     = stream.ErrHeader
	ErrContent    = ltxfile.ErrDamaged
)
