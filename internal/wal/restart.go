package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotBackfilled is returned by Restart while frames are missing from the
// database file.
var ErrNotBackfilled = errors.New("wal is not backfilled")

// NextGeneration returns the header that a restart after h must write: no
// frame, salt-1 plus one, a new random salt-2 (walRestartHdr).
func NextGeneration(h Header) Header {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	h.MaxFrame = 0
	h.Salt = Salt{h.Salt[0] + 1, binary.BigEndian.Uint32(b[:])}
	return h
}

// Restart begins a new generation, next, of the WAL: the next frame is written
// at its start. The caller holds WRITE and CKPT and got next from
// NextGeneration of the current header; one of an earlier header is refused,
// for it would undo what was committed since. Errors: ErrNotBackfilled; ErrBusy
// when readers still use the WAL. A pin that d holds stays.
func (d *DB) Restart(next Header) error {
	if !d.locks.holds(Write) || !d.locks.holds(Ckpt) {
		return errors.New("restart wal: WRITE and CKPT must be held")
	}
	h, err := d.Header()
	if err != nil {
		return fmt.Errorf("restart wal: %w", err)
	}
	if d.Backfilled() != h.MaxFrame {
		return fmt.Errorf("restart wal: %d of %d frames: %w", d.Backfilled(), h.MaxFrame, ErrNotBackfilled)
	}
	if !follows(next, h) {
		return errors.New("restart wal: transactions were committed since the next generation was drawn up")
	}
	d.pin.Lock()
	defer d.pin.Unlock()
	back, err := d.locks.takeReaders(d.pin.slot)
	if err != nil {
		return fmt.Errorf("restart wal: %w", err)
	}
	d.writeRestart(next)
	return back()
}

// follows reports whether next is what NextGeneration makes of h.
func follows(next, h Header) bool {
	h.MaxFrame, h.Salt = 0, Salt{h.Salt[0] + 1, next.Salt[1]}
	return next == h
}

// writeRestart stores the new generation. walRestartHdr stores the header first; a
// kill behind that would leave no frame, and some said to be in the database: the
// next frames would be taken for those. The whole old generation, of which nothing
// is said to be in the database, is a state that anybody may go on from.
func (d *DB) writeRestart(next Header) {
	d.index.store(offBackfill, 0)
	d.index.store(offBackfillAttempted, 0)
	d.index.writeHeader(next)
	d.setReadMark(1, 0)
	for i := 2; i < Readers; i++ {
		d.setReadMark(i, MarkUnused)
	}
	if d.pin.slot == 1 {
		d.setReadMark(1, MarkUnused)
	}
}

// TruncateWAL cuts the -wal file to nothing. The caller holds WRITE and CKPT
// and has just restarted the WAL; frames of the ended generation can then never
// come back, not even over a database file that was put in place meanwhile.
func (d *DB) TruncateWAL() error {
	h, err := d.Header()
	if err != nil {
		return fmt.Errorf("truncate wal: %w", err)
	}
	if h.MaxFrame != 0 || !d.locks.holds(Write) || !d.locks.holds(Ckpt) {
		return errors.New("truncate wal: WRITE and CKPT must be held and the WAL restarted")
	}
	if err := d.wal.Truncate(0); err != nil {
		return fmt.Errorf("truncate wal: %w", err)
	}
	return nil
}
