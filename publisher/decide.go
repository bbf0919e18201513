package publisher

import (
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/superfly/ltx"
)

// A decision is how the chain of this database goes on from the head of the
// stream.
type decision int

const (
	goOn   decision = iota // what follows the head is in the spool, or will be
	reseed                 // a full file follows at; the spool is dropped
	prove                  // the database's checksum must equal the head's
)

// tail is what the stream holds at its end: the position behind the last whole
// file, and who wrote it.
type tail struct {
	pos    ltx.Pos // zero: the stream holds no file
	writer string
}

// tailOf reads the tail from a head. Parts of an unfinished file do not count:
// the position before them does.
func tailOf(h stream.Head) tail {
	if h.Data == nil {
		return tail{}
	}
	m := h.Data.Meta
	if m.Part < m.Parts {
		return tail{pos: m.PrePos(), writer: m.Writer}
	}
	return tail{pos: m.PostPos(), writer: m.Writer}
}

// local is what is known of this database.
type local interface {
	Pos() ltx.Pos
	PosAt(ltx.TXID) (ltx.Pos, bool)
	Writer() string
}

// decide is pure. at is the position that a full file follows.
func decide(t tail, l local, force bool) (d decision, at ltx.Pos) {
	here := l.Pos()
	switch {
	case t.pos.TXID == 0: // empty, purged, or recreated: the chain begins with a full file
		return reseed, here
	case force:
		return reseed, later(t.pos, here)
	case here.IsZero() || t.pos.TXID > here.TXID:
		return prove, t.pos
	}
	known, ok := l.PosAt(t.pos.TXID)
	switch {
	case ok && known == t.pos:
		return goOn, t.pos
	case !ok && t.writer == l.Writer():
		return reseed, here // lost more than the spool keeps: span the hole
	default:
		return prove, t.pos
	}
}

// later returns the position with the higher TXID: numbers are never used twice.
func later(a, b ltx.Pos) ltx.Pos {
	if a.TXID >= b.TXID {
		return a
	}
	return b
}
