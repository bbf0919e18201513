package history

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/oldltx"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/testenv/workload"
)

// Config of a History. Zero values mean the defaults.
type Config struct {
	Seed     uint64
	PageSize int // bytes, default 4096
	MaxBlob  int // bytes, default 20,000
	// Start is the timestamp before the first transaction, default the first of
	// January 2026; Pace is the longest time between two, default 5 s.
	Start time.Time
	Pace  time.Duration
	// NoChecksums makes files as Litestream writes them.
	NoChecksums bool
	// WAL makes page 1 say that the database is in WAL mode, as that of a
	// replica does.
	WAL bool
	// Old says which pages of which file are as superfly/ltx before v0.5.2 wrote
	// them (package oldltx), default none.
	Old func(txid ltx.TXID, pgno uint32) bool
}

// History is a database and all that it ever was. Not for concurrent use.
type History struct {
	cfg    Config
	path   string
	db     *sql.DB
	work   *workload.Random
	rng    *rand.Rand
	image  []byte // the database file after the last transaction
	states []State
	files  [][]byte
}

// State is the database after one transaction.
type State struct {
	Pos  ltx.Pos
	Time time.Time // of the transaction, UTC, milliseconds
	Hash [sha256.Size]byte
	Size int64 // bytes
}

// New makes an empty history.
func New(t testing.TB, cfg Config) *History {
	t.Helper()
	if cfg.PageSize == 0 {
		cfg.PageSize = 4096
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if cfg.Pace == 0 {
		cfg.Pace = 5 * time.Second
	}
	t.Logf("history: seed %d", cfg.Seed)
	path := filepath.Join(t.TempDir(), "history.db")
	db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.Options{Journal: "DELETE", PageSize: cfg.PageSize, Synchronous: "OFF"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &History{
		cfg: cfg, path: path, db: db,
		work: workload.New(workload.Config{Seed: cfg.Seed, MaxBlob: cfg.MaxBlob, MaxRows: 300, NoCheckpoints: true}),
		rng:  rand.New(rand.NewPCG(cfg.Seed, 1)),
	}
}

// Grow adds n transactions.
func (h *History) Grow(t testing.TB, n int) {
	t.Helper()
	for want := len(h.files) + n; len(h.files) < want; {
		if _, err := h.work.Run(t.Context(), h.db, 1); err != nil {
			t.Fatal(err)
		}
		if image := h.read(t); !bytes.Equal(image, h.image) {
			h.record(t, image)
		}
	}
}

// Exec adds one transaction.
func (h *History) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := h.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
	h.record(t, h.read(t))
}

// read returns the database as it is.
func (h *History) read(t testing.TB) []byte {
	t.Helper()
	image, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	if h.cfg.WAL {
		image[18], image[19] = 2, 2
	}
	return image
}

// Skip lets time pass without a transaction.
func (h *History) Skip(d time.Duration) { h.cfg.Start = h.cfg.Start.Add(d) }

func (h *History) now() time.Time {
	h.cfg.Start = h.cfg.Start.Add(time.Duration(h.rng.Int64N(int64(h.cfg.Pace/time.Millisecond)+1)) * time.Millisecond)
	return h.cfg.Start
}

func (h *History) record(t testing.TB, image []byte) {
	t.Helper()
	state := State{Time: h.now(), Hash: sha256.Sum256(image), Size: int64(len(image))}
	size := h.cfg.PageSize
	prev := h.Last()
	sum := ltx.Checksum(ltx.ChecksumFlag)
	var changed []uint32
	for i := 0; i*size < len(image); i++ {
		page, pgno := image[i*size:(i+1)*size], uint32(i+1)
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(pgno, page))
		if (i+1)*size > len(h.image) || !bytes.Equal(page, h.image[i*size:(i+1)*size]) {
			changed = append(changed, pgno)
		}
	}
	state.Pos = ltx.NewPos(prev.Pos.TXID+1, sum)
	h.states = append(h.states, state)
	h.image = image
	h.files = append(h.files, h.encode(t, ltx.Header{MinTXID: state.Pos.TXID, PreApplyChecksum: prev.Pos.PostApplyChecksum}, changed))
}

// encode makes the LTX file of the newest state out of some of its pages.
func (h *History) encode(t testing.TB, hdr ltx.Header, pages []uint32) []byte {
	t.Helper()
	state, size := h.Last(), h.cfg.PageSize
	hdr.Version, hdr.PageSize, hdr.Commit = ltx.Version, uint32(size), uint32(len(h.image)/size)
	hdr.MaxTXID, hdr.Timestamp = state.Pos.TXID, state.Time.UnixMilli()
	if h.cfg.NoChecksums {
		hdr.Flags, hdr.PreApplyChecksum = ltx.HeaderFlagNoChecksum, 0
	}
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(hdr); err != nil {
		t.Fatal(err)
	}
	for _, pgno := range pages {
		i := int(pgno-1) * size
		if err := enc.EncodePage(ltx.PageHeader{Pgno: pgno}, h.image[i:i+size]); err != nil {
			t.Fatal(err)
		}
	}
	if !h.cfg.NoChecksums {
		enc.SetPostApplyChecksum(state.Pos.PostApplyChecksum)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	if h.cfg.Old != nil {
		return oldltx.Rewrite(t, buf.Bytes(), func(pgno uint32) bool { return h.cfg.Old(hdr.MaxTXID, pgno) })
	}
	return buf.Bytes()
}

// Full returns a full file of the newest state: all pages under its TXID alone.
func (h *History) Full(t testing.TB) []byte {
	t.Helper()
	last := h.Last()
	var pre ltx.Checksum
	if n := len(h.states); n > 1 {
		pre = h.states[n-2].Pos.PostApplyChecksum
	}
	pages := make([]uint32, len(h.image)/h.cfg.PageSize)
	for i := range pages {
		pages[i] = uint32(i + 1)
	}
	return h.encode(t, ltx.Header{MinTXID: last.Pos.TXID, PreApplyChecksum: pre}, pages)
}

// Len is the TXID of the newest transaction.
func (h *History) Len() ltx.TXID { return ltx.TXID(len(h.states)) }

// File is the LTX file of a transaction.
func (h *History) File(txid ltx.TXID) []byte { return h.files[txid-1] }

// State is the database after a transaction; the zero State for TXID 0.
func (h *History) State(txid ltx.TXID) State {
	if txid == 0 {
		return State{}
	}
	return h.states[txid-1]
}

// Last is the newest state.
func (h *History) Last() State { return h.State(h.Len()) }

// At is the newest state at or before a time.
func (h *History) At(when time.Time) State {
	var found State
	for _, s := range h.states {
		if !s.Time.After(when) {
			found = s
		}
	}
	return found
}

// Check compares a database file with the state after a transaction, byte for
// byte.
func (h *History) Check(path string, txid ltx.TXID) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if want := h.State(txid); sha256.Sum256(b) != want.Hash {
		return fmt.Errorf("%s is not the database after TXID %s (%d bytes, want %d; change counter %d)", path, txid, len(b), want.Size, counter(b))
	}
	return nil
}

func counter(b []byte) uint32 {
	if len(b) < 28 {
		return 0
	}
	return binary.BigEndian.Uint32(b[24:])
}
