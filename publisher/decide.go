package publisher

import (
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

// lossWindow is how much newer than anything in the state directory the end of
// the stream may be for a power loss to explain it: the system writes files
// back within a minute. An older state is somebody's copy.
const lossWindow = 5 * time.Minute

// A decision is how the chain of this database goes on from the end of the
// stream.
type decision int

const (
	goOn   decision = iota // what follows plan.at is in the spool, or will be
	reseed                 // a full file follows plan.at; the spool is dropped
	prove                  // the database's checksum must be that of plan.at
	refuse                 // an archive that is to be continued is ahead of both
)

func (d decision) String() string { return [...]string{"go on", "reseed", "prove", "refuse"}[d] }

// plan is what to do before anything is published.
type plan struct {
	do decision
	at ltx.Pos // the position that the next file follows

	// Of prove: a full file follows, since nobody may be at the position; and a
	// database that is elsewhere is the truth nevertheless.
	full, elseReseed bool
}

// tail is what the stream holds at its end.
type tail struct {
	pos    ltx.Pos // behind the last whole file; zero: the stream holds none
	writer string
	host   string    // that the writer claimed from
	time   time.Time // of the last file's header
	// loose: the stream ends within a full file, so pos is where its writer
	// was, which the stream itself need not have reached.
	loose bool
}

// nothing is the checksum of a database without pages. It stands before a full
// file behind the end of somebody else's archive, of which the checksum is not
// known: the file applies to nothing.
const nothing = ltx.Checksum(ltx.ChecksumFlag)

// empty reports whether the stream holds no whole file.
func (t tail) empty() bool {
	return t.pos.TXID == 0 || t.pos.PostApplyChecksum == nothing
}

// tailOf reads the tail from a head. Parts of an unfinished file do not count:
// the position before them does.
func tailOf(h stream.Head) tail {
	if h.Data == nil {
		return tail{}
	}
	m := h.Data.Meta
	t := tail{pos: m.PostPos(), writer: m.Writer, time: m.Timestamp}
	if h.Claim != nil && h.Claim.Writer == m.Writer {
		t.host = h.Claim.Host
	}
	if m.Part < m.Parts {
		t.pos, t.loose = m.PrePos(), m.Full
	}
	return t
}

// local is what is known of this database.
type local struct {
	pos    ltx.Pos // last captured
	writer string
	host   string
	time   time.Time                      // of the newest file when this run began; zero: none
	known  func(ltx.TXID) (ltx.Pos, bool) // positions that the spool remembers
	bases  []ltx.Pos                      // before each full file in the spool, ascending
	after  ltx.TXID                       // where an archive ends that is to be continued; 0: none is
	joined ltx.Pos                        // end of a stream that was decided to be followed, with nothing acknowledged behind it yet
}

// new reports whether there is no position yet, here or in the stream.
func (l local) new(t tail) bool { return t.empty() && l.pos.IsZero() }

// end is the highest position of all, for numbers are never used twice.
func (l local) end(t tail) ltx.Pos {
	end := later(t.pos, l.pos)
	if l.after > end.TXID {
		return ltx.NewPos(l.after, nothing)
	}
	return end
}

// base returns the position before the first full file in the spool beyond
// txid: from there the spool spans whatever hole a stream has.
func (l local) base(txid ltx.TXID) (ltx.Pos, bool) {
	for _, b := range l.bases {
		if b.TXID >= txid {
			return b, true
		}
	}
	return ltx.Pos{}, false
}

// decide is pure.
func decide(t tail, l local, force bool) plan {
	own := t.writer == l.writer || t.pos == l.joined // that decision stands while the stream ends there
	known, ok := l.known(t.pos.TXID)
	switch {
	case force:
		return plan{do: reseed, at: l.end(t)}
	case !l.new(t) && l.after > max(t.pos.TXID, l.pos.TXID):
		return plan{do: refuse}
	case t.empty(): // purged, recreated, or its first file is unfinished
		return span(t, l)
	case t.loose && own:
		return span(t, l)
	case t.loose:
		return plan{do: prove, at: t.pos, full: true}
	case l.pos.IsZero() || t.pos.TXID > l.pos.TXID:
		return plan{do: prove, at: t.pos, elseReseed: rolledBack(t, l)}
	case ok && known == t.pos:
		return plan{do: goOn, at: t.pos}
	case !ok && own: // lost more than the spool keeps
		return span(t, l)
	}
	return plan{do: prove, at: t.pos, elseReseed: rolledBack(t, l)}
}

// span goes on at a full file, so that it does not matter what the stream lacks:
// one that is in the spool, or else a new one.
func span(t tail, l local) plan {
	if b, ok := l.base(t.pos.TXID); ok {
		return plan{do: goOn, at: b}
	}
	return plan{do: reseed, at: l.end(t)}
}

// rolledBack reports whether a power loss explains that this very state
// directory wrote an end that it does not know: what was not synced is gone, of
// the spool and, with synchronous=NORMAL, of the database. Then the database is
// still the truth, older by what SQLite lost.
func rolledBack(t tail, l local) bool {
	return t.writer == l.writer && t.host == hostHeader(l.host) && !l.time.IsZero() && t.time.Sub(l.time).Abs() <= lossWindow
}

// hostHeader is host as it comes back from a claim.
func hostHeader(host string) string {
	return wire.Claim{Host: host}.Header().Get(wire.HeaderHost)
}

// later returns the position with the higher TXID: numbers are never used twice.
func later(a, b ltx.Pos) ltx.Pos {
	if a.TXID >= b.TXID {
		return a
	}
	return b
}
