package capture

import (
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// Stats is a picture of a capture. Counters begin with Open.
type Stats struct {
	Files       uint64 `json:"files"` // LTX files captured
	Bytes       uint64 `json:"bytes"`
	Commits     uint64 `json:"commits"` // SQLite transactions in them
	Frames      uint64 `json:"frames"`
	Restarts    uint64 `json:"wal_restarts"`
	Yields      uint64 `json:"yields"`
	Comparisons uint64 `json:"comparisons"`

	MaxWriteHold time.Duration `json:"max_write_hold_ns"`

	SpoolFiles int    `json:"spool_files"` // unacknowledged
	SpoolBytes int64  `json:"spool_bytes"`
	SpoolFull  bool   `json:"spool_full"`
	WALFrames  uint32 `json:"wal_frames"`
	Backfilled uint32 `json:"wal_backfilled"`
	Captured   uint32 `json:"wal_captured"`
	WALBytes   int64  `json:"wal_bytes"`
	Pinned     bool   `json:"pinned"`

	Pinners []wal.Pinner `json:"pinned_by,omitempty"` // others that hold a read slot
	Error   string       `json:"error,omitempty"`     // what keeps it from going on now
}

// Stats returns a picture as of the last look at the database.
func (c *Capture) Stats() Stats {
	c.mu.Lock()
	s := c.mu.stats
	c.mu.Unlock()
	s.SpoolFiles, s.SpoolBytes = c.spool.usage()
	s.SpoolFull = s.SpoolBytes >= c.cfg.SpoolLimit
	return s
}

// picture records what the WAL looks like. Who holds it is asked for only while
// it is larger than it should be.
func (c *Capture) picture(h wal.Header) {
	var pinners []wal.Pinner
	if c.overLimit(h, 2) && time.Since(c.timing.asked) > time.Second {
		c.timing.asked = time.Now()
		pinners, _ = c.db.Pinners() // for display only
	}
	backfilled, pinned := c.db.Backfilled(), c.db.Pinned()
	c.count(func(s *Stats) {
		s.WALFrames, s.Backfilled, s.Captured = h.MaxFrame, backfilled, c.capturedFrame()
		s.WALBytes = int64(h.MaxFrame) * int64(c.held.chain.FrameSize())
		s.Pinned = pinned
		if pinners != nil || !c.overLimit(h, 2) {
			s.Pinners = pinners
		}
	})
}

// capturedFrame is the last frame of the generation read now that is in an LTX file.
func (c *Capture) capturedFrame() uint32 {
	if c.held.empty() {
		return c.held.chain.Frame
	}
	if b := c.held.batches[0]; b.from.Salt == c.held.chain.Salt {
		return b.from.Frame
	}
	return 0
}

func (c *Capture) count(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.mu.stats)
}

func (c *Capture) captured(f File, ch *changes) {
	g := Group{Commits: ch.commits, Pages: len(ch.pages)}
	if ch.start != 0 {
		g.Frames = int(ch.end.Frame - ch.start + 1)
	}
	c.count(func(s *Stats) {
		s.Files++
		s.Bytes += uint64(f.Size)
		s.Commits += uint64(g.Commits)
		s.Frames += uint64(g.Frames)
	})
	if c.cfg.Observer.Captured != nil {
		c.cfg.Observer.Captured(f, g)
	}
}

func (c *Capture) restarted(done bool, held time.Duration) {
	c.count(func(s *Stats) {
		if done {
			s.Restarts++
		}
		s.MaxWriteHold = max(s.MaxWriteHold, held)
	})
	if c.cfg.Observer.Restarted != nil {
		c.cfg.Observer.Restarted(held)
	}
}

func (c *Capture) compared(took time.Duration, pages int) {
	c.count(func(s *Stats) { s.Comparisons++ })
	c.cfg.Logger.Info("database compared", "path", c.cfg.Path, "txid", c.Pos().TXID.String(), "pages", pages, "took", took)
	if c.cfg.Observer.Scanned != nil {
		c.cfg.Observer.Scanned(took, pages)
	}
}

// noteError logs a change of state: the first of a row of equal errors, and the
// recovery.
func (c *Capture) noteError(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	var before string
	c.count(func(s *Stats) { before, s.Error = s.Error, text })
	switch {
	case text == before:
		return
	case err == nil:
		c.cfg.Logger.Info("capture goes on", "path", c.cfg.Path)
	default:
		c.cfg.Logger.Error("capture waits", "path", c.cfg.Path, "err", err)
	}
	if err != nil && c.cfg.Observer.Failed != nil {
		c.cfg.Observer.Failed(err)
	}
}
