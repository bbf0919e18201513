package subscriber

import (
	"errors"
	"time"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/superfly/ltx"
)

// counters begin with New.
type counters struct {
	Files   uint64 `json:"applied_files"`
	Bytes   uint64 `json:"applied_bytes"`
	Reseeds uint64 `json:"reseeds"`
	Damaged uint64 `json:"damaged_messages"`
	Errors  uint64 `json:"errors"`
}

// Status is a picture of a subscriber, made for JSON.
type Status struct {
	DB       string       `json:"db"`
	ID       string       `json:"id"`
	Path     string       `json:"path"`
	Stream   string       `json:"stream"`
	Running  bool         `json:"running"`
	TXID     ltx.TXID     `json:"txid"`     // applied and visible
	Checksum ltx.Checksum `json:"checksum"` // there
	Seq      uint64       `json:"seq"`      // stream sequence there
	Head     ltx.TXID     `json:"head_txid"`
	// HeadAge is the time since the end of the stream was last read, in
	// seconds: while NATS is away nobody knows how far behind the replica is.
	HeadAge float64 `json:"head_age_seconds"`
	// Lag is now less the timestamp of the newest applied transaction while
	// something is pending, in seconds; 0 when nothing is.
	Lag      float64        `json:"lag_seconds"`
	LagFiles uint64         `json:"lag_files"`
	Error    string         `json:"error,omitempty"` // what keeps it from applying now
	Replica  replica.Status `json:"replica"`
	counters
}

// Status returns a picture of now. It asks the system who holds locks: once a
// second is fine, once a transaction is not.
func (s *Subscriber) Status() Status {
	s.mu.Lock()
	out := Status{
		DB: string(s.cfg.DB), ID: s.mu.id, Path: s.cfg.Path, Stream: s.cfg.Stream,
		Running: s.mu.ended == nil, Error: s.mu.err, Head: s.mu.head.TXID, counters: s.mu.counters,
	}
	r, applied, headAt := s.mu.replica, s.mu.applied, s.mu.headAt
	s.mu.Unlock()
	if !headAt.IsZero() {
		out.HeadAge = time.Since(headAt).Seconds()
	}
	if r == nil {
		return out
	}
	out.Replica = r.Status()
	out.TXID, out.Checksum, out.Seq = out.Replica.TXID, out.Replica.Checksum, out.Replica.Seq
	if out.Head > out.TXID {
		out.LagFiles = uint64(out.Head - out.TXID)
		if !applied.IsZero() {
			out.Lag = max(0, time.Since(applied).Seconds())
		}
	}
	if out.Error == "" {
		out.Error = out.Replica.Lost
	}
	return out
}

func (s *Subscriber) count(f func(*counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.mu.counters)
}

// setHead records the end of the stream, and, where the replica is right
// there, when it got there.
func (s *Subscriber) setHead(h stream.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.headAt = time.Now()
	if h.Data == nil {
		return
	}
	m := h.Data.Meta
	s.mu.head = m.PostPos()
	if m.Part < m.Parts {
		s.mu.head = m.PrePos()
	}
	if r := s.mu.replica; r != nil && s.mu.applied.IsZero() && r.Position().TXID >= s.mu.head.TXID {
		s.mu.applied = m.Timestamp
	}
}

func (s *Subscriber) applied(f *feed.File, took time.Duration) {
	s.mu.Lock()
	s.mu.Files++
	s.mu.Bytes += uint64(f.Meta.Size)
	s.mu.applied = f.Meta.Timestamp
	if f.Meta.Max > s.mu.head.TXID {
		s.mu.head = f.Meta.PostPos()
	}
	failing := s.mu.err != ""
	s.mu.Unlock()
	if failing {
		s.noteError(nil)
	}
	s.cfg.Metrics.applied(s.cfg.DB, f, took)
}

func (s *Subscriber) damaged(err error) {
	s.count(func(c *counters) { c.Damaged++ })
	s.cfg.Metrics.failed(s.cfg.DB, "damaged")
	s.cfg.Logger.Warn("message skipped", "err", err)
}

// noteError logs a change of state: the first of a row of equal errors, and the
// recovery. nil: all is well.
func (s *Subscriber) noteError(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	before := s.mu.err
	s.mu.err = text
	if err != nil {
		s.mu.Errors++
	}
	s.mu.Unlock()
	if err != nil {
		s.cfg.Metrics.failed(s.cfg.DB, kindOf(err))
	}
	switch {
	case text == before:
	case err == nil:
		s.cfg.Logger.Info("replication goes on")
	default:
		s.cfg.Logger.Warn("replication waits", "err", err)
	}
}

// kindOf names an error for the metrics.
func kindOf(err error) string {
	if _, ok := errors.AsType[*feed.GapError](err); ok {
		return "gap"
	}
	if _, ok := errors.AsType[*feed.ForkError](err); ok {
		return "fork"
	}
	switch {
	case errors.Is(err, feed.ErrNoBase):
		return "no base"
	case errors.Is(err, replica.ErrDamaged):
		return "damaged"
	case errors.Is(err, replica.ErrDiverged):
		return "diverged"
	case errors.Is(err, replica.ErrPageSize):
		return "page size"
	}
	return stream.Classify(err).String()
}
