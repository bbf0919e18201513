package replica

import (
	"sync/atomic"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// Status is a replica at a glance. Counters count since Open.
type Status struct {
	Path     string       `json:"path"`
	TXID     ltx.TXID     `json:"txid"`     // 0: no position
	Checksum ltx.Checksum `json:"checksum"` // rolling checksum
	Seq      uint64       `json:"seq"`      // stream sequence of the newest applied message
	Lost     string       `json:"lost,omitempty"`
	FoundBy  string       `json:"found_by,omitempty"` // how the position was found when the database was opened

	PageSize      uint32   `json:"page_size"`
	Pages         uint32   `json:"pages"`
	WALFrames     uint32   `json:"wal_frames"`
	WALBackfilled uint32   `json:"wal_backfilled"` // of those, in the database file
	WALBytes      int64    `json:"wal_bytes"`      // size of the -wal file
	PinnedBy      []Reader `json:"pinned_by,omitempty"`
	Moved         bool     `json:"moved,omitempty"` // the file is no longer under its name

	AppliedFiles     uint64        `json:"applied_files"`
	AppliedBytes     uint64        `json:"applied_bytes"` // of LTX files
	AppliedPages     uint64        `json:"applied_pages"`
	ApplyTime        time.Duration `json:"apply_ns"` // spent in Apply, in all
	Restarts         uint64        `json:"restarts"` // of the WAL
	RestartsBlocked  uint64        `json:"restarts_blocked"`
	LongestPause     time.Duration `json:"longest_pause_ns"` // of applying, for a restart
	Checkpoints      uint64        `json:"checkpoints"`
	CheckpointErrors uint64        `json:"checkpoint_errors"`
}

// Reader is a reader that keeps part of the WAL in use.
type Reader struct {
	Slot  int    `json:"slot"`  // READ lock; 0: it reads the database file itself
	Frame uint32 `json:"frame"` // it needs the WAL up to here
	PID   int    `json:"pid"`   // 0: unknown; several readers may share a slot
}

// counters are written by the applier and the checkpointer, read by Status.
type counters struct {
	files, bytes, pages, applyNs  atomic.Uint64
	restarts, restartsBlocked     atomic.Uint64
	checkpoints, checkpointErrors atomic.Uint64
	longestPause                  atomic.Int64
}

func (c *counters) applied(ch *changes, size int64, took time.Duration) {
	c.files.Add(1)
	c.bytes.Add(uint64(size))
	c.pages.Add(uint64(len(ch.pages)))
	c.applyNs.Add(uint64(took))
}

// paused is called by one goroutine only.
func (c *counters) paused(d time.Duration) {
	c.longestPause.Store(max(c.longestPause.Load(), int64(d)))
}

// Status returns the state of the replica. It asks the system for the holders
// of locks: once a second is fine, once a transaction is not.
func (r *Replica) Status() Status {
	pos, c := r.Position(), &r.counters
	s := Status{
		Path: r.path, TXID: pos.TXID, Checksum: pos.PostApplyChecksum, Seq: pos.Seq,
		AppliedFiles: c.files.Load(), AppliedBytes: c.bytes.Load(), AppliedPages: c.pages.Load(),
		ApplyTime: time.Duration(c.applyNs.Load()),
		Restarts:  c.restarts.Load(), RestartsBlocked: c.restartsBlocked.Load(),
		LongestPause: time.Duration(c.longestPause.Load()),
		Checkpoints:  c.checkpoints.Load(), CheckpointErrors: c.checkpointErrors.Load(),
	}
	r.live.RLock()
	defer r.live.RUnlock()
	s.FoundBy = r.live.foundBy
	if r.live.lost != nil {
		s.Lost = r.live.lost.Error()
	}
	if r.live.live != nil {
		r.live.describe(&s)
	}
	return s
}

// Moved reports whether the replica's name, or that of its WAL, leads to another
// file than the one applied to, or to none. Close and open it again then.
func (r *Replica) Moved() bool {
	r.live.RLock()
	defer r.live.RUnlock()
	return r.live.live != nil && r.live.db.Moved()
}

func (l *live) describe(s *Status) {
	if h, err := l.db.Header(); err == nil {
		s.PageSize, s.Pages, s.WALFrames = h.PageSize, h.PageCount, h.MaxFrame
	}
	s.WALBackfilled = l.db.Backfilled()
	s.WALBytes, _ = l.db.WALSize()
	s.Moved = l.hasMoved()
	pinners, _ := l.db.Pinners()
	for _, p := range pinners {
		if p.Mark != wal.MarkUnused {
			s.PinnedBy = append(s.PinnedBy, Reader{Slot: p.Slot, Frame: p.Mark, PID: p.PID})
		}
	}
}
