package subscriber

import (
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
)

// State is what a subscriber is doing.
type State string

// The states of a subscriber.
const (
	StateStarting  State = "starting"
	StateSeeking   State = "seeking"   // finds its place in the stream
	StateWaiting   State = "waiting"   // empty, and there is no base yet
	StateLive      State = "live"      // follows the stream
	StateReseeding State = "reseeding" // applies a new base
	StateBroken    State = "broken"    // gap or fork, and there is no base yet
	StateStopped   State = "stopped"
)

// counters begin with New.
type counters struct {
	Files   uint64 `json:"applied_files"`
	Bytes   uint64 `json:"applied_bytes"`
	Skipped uint64 `json:"skipped_messages"` // damaged, or not ours
	Reseeds uint64 `json:"reseeds"`
	Bases   uint64 `json:"bases"` // from outside the stream
	Errors  uint64 `json:"errors"`
}

// Status is a picture of a subscriber, made for JSON.
type Status struct {
	DB        string       `json:"db"`
	Path      string       `json:"path"`
	Stream    string       `json:"stream,omitempty"`
	Archive   string       `json:"archive,omitempty"` // where bases are taken from, and all without a stream
	State     State        `json:"state"`
	Connected bool         `json:"connected"` // to NATS, or the last poll was answered; if not, the lag is only what is known
	TXID      ltx.TXID     `json:"txid"`      // newest applied; 0: no position
	Checksum  ltx.Checksum `json:"checksum"`  // there
	Seq       uint64       `json:"seq"`       // stream sequence there
	HeadTXID  ltx.TXID     `json:"head_txid"` // newest known in the stream
	// Timestamp is when the newest applied transaction was committed, as far as
	// this process knows.
	Timestamp *time.Time `json:"timestamp,omitempty"`
	// Lag is the age of the newest applied transaction while something is
	// pending, counted from when the oldest of it came; 0: nothing is.
	Lag       float64 `json:"lag_seconds"`
	LagFiles  uint64  `json:"lag_files"`
	Error     string  `json:"error,omitempty"` // what is being waited out
	WALFrames uint32  `json:"wal_frames"`
	counters
	Replica replica.Status `json:"replica"` // with who pins the WAL
	Feed    feed.Stats     `json:"feed"`
}

// Status returns a picture of now. It asks the system who holds the WAL: once a
// second is fine.
func (s *Subscriber) Status() Status {
	s.mu.Lock()
	st := Status{
		DB: string(s.cfg.DB), Path: s.cfg.Path, Stream: s.cfg.Stream, State: s.mu.state,
		HeadTXID: s.mu.head, Error: s.mu.err, counters: s.mu.counters,
	}
	rep, f, applied, answered := s.mu.replica, s.mu.feed, s.mu.applied, s.mu.answered
	s.mu.Unlock()
	if st.Connected = answered; s.cfg.JS != nil {
		st.Connected = s.cfg.JS.Conn().IsConnected()
	}
	if from, ok := s.cfg.Bootstrapper.(fmt.Stringer); ok {
		st.Archive = from.String()
	}
	if !applied.IsZero() {
		st.Timestamp = &applied
	}
	if f != nil {
		st.Feed = f.Stats()
	}
	if rep != nil {
		st.Replica = rep.Status()
		st.TXID, st.Checksum, st.Seq, st.WALFrames = st.Replica.TXID, st.Replica.Checksum, st.Replica.Seq, st.Replica.WALFrames
	}
	if st.Feed.Ahead && st.Error == "" {
		st.Error = "the stream ends before the replica: waiting for its publisher to send again what the server lost"
	}
	st.measure(applied, time.Now())
	return st
}

// measure fills in the lag. What the feed knows to be pending is newer than
// what was last heard of the head.
func (st *Status) measure(applied, now time.Time) {
	if st.HeadTXID > st.TXID {
		st.LagFiles = uint64(st.HeadTXID - st.TXID)
	} else if st.State == StateLive {
		st.HeadTXID = st.TXID
		st.LagFiles = min(st.Feed.Pending, 1)
	}
	if st.LagFiles == 0 {
		return
	}
	since := applied
	if st.Feed.Since.After(since) {
		since = st.Feed.Since
	}
	if !since.IsZero() {
		st.Lag = max(0, now.Sub(since).Seconds())
	}
}

func (s *Subscriber) bump(f func(*counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.mu.counters)
}

func (s *Subscriber) noteHead(txid ltx.TXID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.head = txid
}

// headStream returns the stream while it is worth asking for its head: when
// something is pending, or the feed does not follow. Not while a large file comes
// in: the server would read one more of its parts to answer.
func (r *runner) headStream() *stream.Stream {
	r.mu.Lock()
	f, state, incoming := r.mu.feed, r.mu.state, r.mu.incoming
	r.mu.Unlock()
	if f == nil || incoming || state == StateLive && f.Stats().Pending == 0 {
		return nil
	}
	return f.Stream()
}

// applied is a file that the replica has now.
type applied struct {
	max       ltx.TXID
	full      bool
	size      int64
	timestamp time.Time
	took      time.Duration
}

func (r *runner) noteApplied(a applied) {
	r.mu.Lock()
	r.mu.state, r.mu.applied = StateLive, a.timestamp
	r.mu.head = max(r.mu.head, a.max)
	if a.full {
		r.mu.head = a.max // a history may have begun anew below
	}
	r.mu.Files++
	r.mu.Bytes += uint64(a.size)
	r.mu.Unlock()
	r.cfg.Metrics.applied(r.Subscriber, a)
}

// noteError logs the first of a row of equal errors; see recovered.
func (r *runner) noteError(err error) {
	r.mu.Lock()
	before := r.mu.err
	r.mu.err = err.Error()
	r.mu.Errors++
	r.mu.Unlock()
	if before != err.Error() {
		r.cfg.Logger.Warn("replication waits", "err", err)
	}
}

// recovered logs the end of a row of errors.
func (r *runner) recovered() {
	r.mu.Lock()
	before := r.mu.err
	r.mu.err = ""
	r.mu.Unlock()
	if before != "" {
		r.cfg.Logger.Info("replication goes on", "after", before)
	}
}

// noteSkipped logs skipped messages, the first of every hundred.
func (r *runner) noteSkipped(err error) {
	r.mu.Lock()
	r.mu.Skipped++
	n := r.mu.Skipped
	r.mu.Unlock()
	if n%100 == 1 {
		r.cfg.Logger.Warn("message skipped", "err", err, "skipped", n)
	}
}
