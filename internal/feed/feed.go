package feed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// DefaultMemoryLimit is the size in bytes up to which a file is joined in
// memory; larger ones are joined in SpoolDir.
const DefaultMemoryLimit = 16 << 20

// DefaultBuffer is how many bytes of messages wait unread.
const DefaultBuffer = 16 << 20

// Config of a Feed. All fields without a default are required.
type Config struct {
	Stream  *stream.Stream
	JS      jetstream.JetStream
	DB      wire.DB
	Durable string // name of the consumer, used by this Feed alone
	// SpoolDir holds files larger than MemoryLimit while they are in use. It
	// must exist; old spool files of ours in it are removed.
	SpoolDir    string
	MemoryLimit int64 // bytes, default DefaultMemoryLimit
	// Incoming hands out files larger than MemoryLimit while they are received,
	// not verified at all: for a caller that reads each file once, from start to
	// end, verifies it before it uses any of it, and calls Refuse if it is not
	// whole. Other files are verified before they are handed out.
	Incoming bool
	// Oldest makes a zero position begin at the oldest file of the stream, if that
	// is a full one, and not at the newest full file: for a caller that wants all
	// that there is.
	Oldest bool
	// Buffer is how many bytes of messages may wait unread in this process,
	// default DefaultBuffer; at least twice the largest message.
	Buffer int
	// Writer is whose files the caller's position came from, as Feed.Writer
	// told it; empty: not known. It tells a stream that lost its tail from a
	// history that began anew.
	Writer string
	Logger *slog.Logger // default slog.Default()
	// OnDamage is told each skipped message, a *DamageError; it must not
	// block. nil: they are logged.
	OnDamage func(error)
}

// Stats counts since New; safe to read at any time.
type Stats struct {
	Files, Bytes                      uint64 // handed out
	Damaged, Stale, Replayed, Resyncs uint64 // messages skipped; consumer resets
	LastSeq                           uint64 // last stream sequence received
	// Pending is how many messages of the database the stream holds beyond
	// what was dealt with, as far as is known.
	Pending uint64
	// Since is when, by the server's clock, the oldest of what is pending came
	// after nothing had been; zero when nothing is pending.
	Since time.Time
	// Ahead: the stream ends before the position. It lost its tail, which its
	// publisher will send again, or its history is another one by now.
	Ahead bool
}

// Feed hands out the files of one database in order. Its methods, save Stats,
// and its Files belong to one goroutine.
type Feed struct {
	cfg  Config
	log  *slog.Logger
	nc   *nats.Conn
	asm  assembler
	ver  ltxfile.Verifier
	idle time.Duration // first watchdog interval
	pull uint64        // messages that a scan asks for at a time

	origin                   // of the newest file handed out
	before   origin          // and of the one before it
	seq      uint64          // everything up to here has been dealt with
	epoch    uint64          // newest claim seen up to seq
	sought   bool            // Seek has been called
	oldest   bool            // a zero position begins at the oldest file (Config.Oldest)
	located  bool            // seq was compared with the stream since the last connect
	badBases map[uint64]bool // full files that turned out to be damaged, by their first sequence
	created  time.Time       // of the stream that holds them
	noBaseAt time.Time       // when a scan for a full file found none
	noPosAt  time.Time       // when a scan for the position found nothing
	held     span            // the claim that was read last

	con    *connection
	status chan nats.Status

	in        *incoming // handed out and not received whole
	lag       bool      // the next connection stays behind the end of the stream
	irregular uint64    // first sequence of a file that could not be handed out so

	stats struct {
		files, bytes, damaged, stale, replayed, resyncs, lastSeq atomic.Uint64

		pending atomic.Uint64
		since   atomic.Int64 // Unix nanoseconds, 0: nothing is pending
		ahead   atomic.Bool
	}
}

// origin is a position and where it came from.
type origin struct {
	pos      ltx.Pos
	posEpoch uint64 // claim under which the file at pos was written, 0: unknown
	writer   string // who wrote that file, "": unknown
}

// New returns a Feed that has done nothing yet but clean its spool: call Seek,
// then Next. Close it.
func New(cfg Config) (*Feed, error) {
	if cfg.MemoryLimit <= 0 {
		cfg.MemoryLimit = DefaultMemoryLimit
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = DefaultBuffer
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("new feed: %w", err)
	}
	if err := removeLeftovers(cfg.SpoolDir); err != nil {
		return nil, fmt.Errorf("new feed: %w", err)
	}
	nc := cfg.JS.Conn()
	return &Feed{
		cfg:    cfg,
		log:    cfg.Logger.With("db", string(cfg.DB)),
		nc:     nc,
		asm:    assembler{limit: cfg.MemoryLimit, dir: cfg.SpoolDir},
		idle:   idleFirst,
		pull:   scanSize,
		origin: origin{writer: cfg.Writer},
		status: nc.StatusChanged(nats.CONNECTED),
	}, nil
}

func (c Config) validate() error {
	var errs []error
	if c.Stream == nil {
		errs = append(errs, errors.New("no stream"))
	}
	if c.JS == nil {
		errs = append(errs, errors.New("no JetStream context"))
	}
	if _, err := wire.ParseDB(string(c.DB)); err != nil {
		errs = append(errs, err)
	}
	if _, err := wire.ParseDB(c.Durable); err != nil {
		errs = append(errs, fmt.Errorf("durable name %q is not a token", c.Durable))
	}
	if st, err := os.Stat(c.SpoolDir); err != nil {
		errs = append(errs, fmt.Errorf("spool directory: %w", err))
	} else if !st.IsDir() {
		errs = append(errs, fmt.Errorf("spool directory %s is a file", c.SpoolDir))
	}
	return errors.Join(errs...)
}

// Close stops consuming and frees an unfinished file. The consumer stays on
// the server; it removes itself after 72 hours without use.
func (f *Feed) Close() error {
	f.disconnect()
	f.asm.drop()
	f.nc.RemoveStatusListener(f.status)
	return nil
}

// Position returns the position of the newest file handed out (or sought) and
// the last stream sequence that has been dealt with.
func (f *Feed) Position() (ltx.Pos, uint64) { return f.pos, f.seq }

// Writer returns the id of the publisher that wrote the newest file handed
// out, "" when not known. Keep it with the position, for Config.Writer.
func (f *Feed) Writer() string { return f.writer }

// Stats returns the counters. It may be called from any goroutine.
func (f *Feed) Stats() Stats {
	s := Stats{
		Files: f.stats.files.Load(), Bytes: f.stats.bytes.Load(),
		Damaged: f.stats.damaged.Load(), Stale: f.stats.stale.Load(), Replayed: f.stats.replayed.Load(),
		Resyncs: f.stats.resyncs.Load(), LastSeq: f.stats.lastSeq.Load(),
		Pending: f.stats.pending.Load(), Ahead: f.stats.ahead.Load(),
	}
	if ns := f.stats.since.Load(); ns != 0 {
		s.Since = time.Unix(0, ns)
	}
	return s
}

// damage reports one skipped message.
func (f *Feed) damage(seq uint64, subject string, err error) {
	f.stats.damaged.Add(1)
	d := &DamageError{DB: f.cfg.DB, Seq: seq, Subject: subject, Err: err}
	if f.cfg.OnDamage != nil {
		f.cfg.OnDamage(d)
		return
	}
	f.log.Warn("message skipped", "seq", seq, "subject", subject, "err", err)
}

// Stream returns the stream it reads. It may be called from any goroutine.
func (f *Feed) Stream() *stream.Stream { return f.cfg.Stream }
