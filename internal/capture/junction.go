package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
)

// An End is where a stream ends.
type End struct {
	Pos  ltx.Pos   // zero: it is empty
	Time time.Time // of its last file, to the millisecond: no later file is older; zero: not known
}

// A junction is where the chain of this database was made to follow a stream, by
// Adopt or Reseed. Both drop what is known of the database before the next file
// is there, and a full one of a large database takes minutes: a run that begins
// meanwhile goes on from the junction.
type junction struct {
	end  End     // of the stream
	pos  ltx.Pos // that the next file follows; at or behind all that was captured before
	full bool    // the next file is a full one
}

const (
	junctionName  = "junction"
	junctionMagic = "LTXJOIN1"
	junctionSize  = 64
)

func (j junction) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, junctionSize), junctionMagic...)
	full := uint64(0)
	if j.full {
		full = 1
	}
	for _, p := range []ltx.Pos{j.end.Pos, j.pos} {
		b = le.AppendUint64(le.AppendUint64(b, uint64(p.TXID)), uint64(p.PostApplyChecksum))
	}
	b = le.AppendUint64(le.AppendUint64(b, uint64(j.end.Time.UnixMilli())), full)
	return le.AppendUint64(b, uint64(crc32.ChecksumIEEE(b)))
}

// parseJunction decodes a junction; ok is false where b is anything else.
func parseJunction(b []byte) (j junction, ok bool) {
	le, sum := binary.LittleEndian, junctionSize-8
	if len(b) != junctionSize || string(b[:8]) != junctionMagic || le.Uint64(b[sum:]) != uint64(crc32.ChecksumIEEE(b[:sum])) {
		return junction{}, false
	}
	pos := func(off int) ltx.Pos {
		return ltx.Pos{TXID: ltx.TXID(le.Uint64(b[off:])), PostApplyChecksum: ltx.Checksum(le.Uint64(b[off+8:]))}
	}
	j = junction{end: End{Pos: pos(8), Time: time.UnixMilli(int64(le.Uint64(b[40:])))}, pos: pos(24), full: le.Uint64(b[48:]) == 1}
	return j, le.Uint64(b[48:]) <= 1
}

// saveJunction puts j in place. Unlike the spool and the table it is synced: it
// must be there before they are emptied.
func (s *state) saveJunction(j junction) error {
	if err := atomicfile.WriteSynced(filepath.Join(s.dir, junctionName), j.encode()); err != nil {
		return fmt.Errorf("write junction: %w", err)
	}
	return nil
}

// loadJunction returns the junction that was saved last; ok is false where there
// is none, or a damaged one.
func (s *state) loadJunction() (j junction, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, junctionName))
	if errors.Is(err, fs.ErrNotExist) {
		return junction{}, false, nil
	}
	if err != nil {
		return junction{}, false, fmt.Errorf("read junction: %w", err)
	}
	j, ok = parseJunction(b)
	return j, ok, nil
}

// join remembers j before anything is dropped.
func (c *Capture) join(j junction) error {
	c.enc.notBefore(j.end.Time.UnixMilli())
	j.end.Time = time.UnixMilli(c.enc.lastTime) // ours may be newer, and be dropped
	if err := c.state.saveJunction(j); err != nil {
		return err
	}
	c.setJunction(j)
	c.cfg.Crash("joined")
	return nil
}

func (c *Capture) setJunction(j junction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.junction = &j
}

// Joined returns the end of the stream that this database was last made to
// follow, by this run or one before, until a file behind it is acknowledged;
// zero afterwards.
func (c *Capture) Joined() ltx.Pos {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.junction == nil {
		return ltx.Pos{}
	}
	return c.mu.junction.end.Pos
}

// Reseeding reports whether the full file of such a Reseed is due, or waits to be
// acknowledged, by a decision of this run or one before.
func (c *Capture) Reseeding(pos, end ltx.Pos) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.mu.junction
	return j != nil && j.full && j.pos == pos && j.end.Pos == end
}

// passed drops the junction once the stream holds a file behind it.
func (c *Capture) passed(txid ltx.TXID) error {
	c.mu.Lock()
	passed := c.mu.junction != nil && txid > c.mu.junction.pos.TXID
	if passed {
		c.mu.junction = nil
	}
	c.mu.Unlock()
	if !passed {
		return nil
	}
	return os.Remove(filepath.Join(c.state.dir, junctionName))
}

// recoverJunction goes on from a junction that an earlier run did not get
// beyond: then a full file is due, and nothing else counts.
func (c *Capture) recoverJunction() (due bool, err error) {
	j, ok, err := c.state.loadJunction()
	if err != nil || !ok {
		return false, err
	}
	c.setJunction(j)
	c.enc.notBefore(j.end.Time.UnixMilli())
	f, spooled := c.spool.last()
	switch {
	case spooled && f.TXID() > j.pos.TXID:
		return false, nil // it got beyond
	case !j.full && c.table.Pos() == j.pos && c.table.Verify() && (!spooled || f.Pos() == j.pos):
		return false, nil // nothing was captured since
	}
	c.cfg.Logger.Info("the last run ended before the file that was to follow the stream was captured, a full one follows",
		"path", c.cfg.Path, "txid", (j.pos.TXID + 1).String())
	return true, c.beginAt(j.pos)
}

// beginAt drops what the spool and the table hold, and makes the next file a
// full one that follows pos.
func (c *Capture) beginAt(pos ltx.Pos) error {
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.cfg.Crash("cleared")
	c.table.Reset(c.table.PageSize())
	c.setPos(pos)
	c.unsure = true
	c.setFull()
	return nil
}
