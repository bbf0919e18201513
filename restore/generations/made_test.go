package generations

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/mem"
)

const dbName = "app"

// made is an archive made up from a seed, and every state that can be restored
// from it. Its pages hold anything: what SQLite would say of them is for tests with
// real databases.
type made struct {
	seed   uint64
	store  *clocked
	parts  []part  // in the order in which they were written
	states []state // the same
}

// part is one object, not compressed.
type part struct {
	generation string
	index      Index
	offset     int64
	snapshot   bool
	key        string
	time       time.Time
	content    []byte
}

// state is the database once a part had been written.
type state struct {
	part
	db []byte
}

// clocked is a store whose objects have the times that the test gives them.
type clocked struct {
	*mem.Store
	times map[string]time.Time

	onGet    func(key string) error // first; nil: nothing
	now, top atomic.Int64           // requests at a time
	gets     atomic.Int64
	hold     chan struct{} // a Get waits for it; nil: none does
}

func newClocked() *clocked {
	return &clocked{Store: mem.New(), times: map[string]time.Time{}}
}

func (s *clocked) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			info.Modified = s.times[info.Key]
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s *clocked) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	s.gets.Add(1)
	for n := s.now.Add(1); ; {
		if top := s.top.Load(); n <= top || s.top.CompareAndSwap(top, n) {
			break
		}
	}
	defer s.now.Add(-1)
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if s.onGet != nil {
		if err := s.onGet(key); err != nil {
			return nil, err
		}
	}
	return s.Store.Get(ctx, key, offset, size)
}

func (s *clocked) put(t testing.TB, key string, body []byte, at time.Time) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, bytes.NewReader(body), objstore.PutOptions{Timestamp: time.UnixMilli(1)}); err != nil {
		t.Fatal(err)
	}
	s.times[key] = at
}

func pack(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil { // small buffers: there are thousands of reads
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shape is how large what is made up is.
type shape struct {
	seed        uint64
	pageSize    int
	generations int
	indexes     int // of each
	segments    int // of each index, at most
	pages       int // of a transaction, at most
	bigEndian   bool
	cut         bool // segments may end inside a transaction, as when Litestream reads its copy while it is written
}

var started = time.Date(2023, 5, 6, 7, 8, 9, 0, time.UTC)

// make up an archive; its seed is printed when the test fails.
func makeUp(t testing.TB, c shape) *made {
	t.Helper()
	t.Logf("%+v", c)
	m := &made{seed: c.seed, store: newClocked()}
	w := &writer{t: t, m: m, shape: c, rng: rand.New(rand.NewPCG(c.seed, 3)), now: started}
	for g := range c.generations {
		w.generation(fmt.Sprintf("%016x", w.rng.Uint64()>>4|uint64(g)<<60))
	}
	return m
}

// writer plays the database and Litestream.
type writer struct {
	t testing.TB
	m *made
	shape
	rng *rand.Rand
	now time.Time

	name  string // of the generation
	index Index
	shot  Index  // the last one with a snapshot, plus 1: a second one would take its place
	base  []byte // the database when the WAL began
	wal   []byte // so far
	sent  int    // bytes of it that are stored
	chain wal.Chain
	pages map[uint32][]byte // committed in this WAL, the newest
	size  uint32            // of the database, pages
	ends  []commit          // in this WAL
}

// commit is the database after a transaction that ends at an offset of the WAL.
type commit struct {
	offset int
	db     []byte
}

func (w *writer) generation(name string) {
	w.name, w.index, w.shot = name, Index(w.rng.IntN(3)), 0
	if w.base == nil {
		w.size = uint32(w.rng.IntN(5) + 1)
		for pgno := range w.size {
			w.base = append(w.base, w.page(pgno+1)...)
		}
	}
	for i := range w.indexes {
		w.begin()
		w.transactions()
		if i == 0 {
			w.snapshot()
		}
		segments := w.rng.IntN(w.segments) + 1
		for n := range segments {
			if n > 0 {
				w.transactions()
			}
			w.segment(n == segments-1)
			if w.shot != w.index+1 && w.sent == len(w.wal) && w.rng.IntN(4) == 0 {
				w.snapshot()
			}
		}
		w.base = w.database()
		w.index++
	}
}

// begin starts a WAL.
func (w *writer) begin() {
	h := wal.FileHeader{BigEndian: w.bigEndian, PageSize: uint32(w.pageSize), Sequence: uint32(w.index), Salt: wal.Salt{w.rng.Uint32(), w.rng.Uint32()}}
	w.wal, w.sent, w.pages = make([]byte, wal.FileHeaderSize), 0, map[uint32][]byte{}
	w.ends = []commit{{0, w.base}}
	w.chain = wal.StartChain(h, h.Encode(w.wal))
}

func (w *writer) page(pgno uint32) []byte {
	p := make([]byte, w.pageSize)
	for i := 0; i < len(p); i += 64 { // it compresses somewhat
		binary.LittleEndian.PutUint64(p[i:], w.rng.Uint64())
	}
	if pgno == 1 {
		copy(p, fileMagic)
		binary.BigEndian.PutUint16(p[16:], uint16(w.pageSize>>16|w.pageSize))
	}
	return p
}

func (w *writer) transactions() {
	for range w.rng.IntN(3) + 1 {
		w.transaction()
	}
}

// transaction writes some pages. What the database grows by has frames or not: SQLite
// leaves out free pages.
func (w *writer) transaction() {
	size := max(1, int(w.size)+w.rng.IntN(w.shape.pages+2)-w.shape.pages/2)
	n := w.rng.IntN(w.shape.pages) + 1
	for i := range n {
		pgno := uint32(w.rng.IntN(size) + 1)
		frame := make([]byte, w.chain.FrameSize())
		copy(frame[wal.FrameHeaderSize:], w.page(pgno))
		h := wal.FrameHeader{Pgno: pgno}
		if i == n-1 {
			h.Commit = uint32(size)
		}
		w.chain.Put(frame, h)
		w.wal = append(w.wal, frame...)
		w.pages[pgno] = frame[wal.FrameHeaderSize:]
	}
	w.size = uint32(size)
	w.ends = append(w.ends, commit{len(w.wal), w.database()})
}

// database is what a checkpoint of the WAL makes.
func (w *writer) database() []byte {
	db := make([]byte, int(w.size)*w.pageSize)
	copy(db, w.base)
	for pgno, page := range w.pages {
		if pgno <= w.size {
			copy(db[int(pgno-1)*w.pageSize:], page)
		}
	}
	return db
}

// snapshot stores the database file in the midst of a checkpoint: some pages of the
// WAL are in it already.
func (w *writer) snapshot() {
	w.shot = w.index + 1
	if w.sent == 0 { // what is in it must be in the archive, or follow at once
		w.store(part{snapshot: true, content: slices.Clone(w.base)})
		return
	}
	file := slices.Clone(w.base)
	for pgno, page := range w.pages {
		if at := int(pgno-1) * w.pageSize; at < len(file) && w.rng.IntN(2) == 0 {
			copy(file[at:], page)
		}
	}
	w.store(part{snapshot: true, content: file})
}

// segment stores what is new in the WAL; all of it if it is the last one.
func (w *writer) segment(last bool) {
	end := len(w.wal)
	if w.cut && !last {
		frame := w.chain.FrameSize()
		end -= frame * w.rng.IntN((end-max(w.sent, wal.FileHeaderSize))/frame)
	}
	w.store(part{offset: int64(w.sent), content: slices.Clone(w.wal[w.sent:end])})
	w.sent = end
	for _, c := range w.ends {
		if c.offset <= end {
			w.m.states[len(w.m.states)-1].db = c.db
		}
	}
}

func (w *writer) store(p part) {
	w.now = w.now.Add(time.Second)
	p.generation, p.index, p.time = w.name, w.index, w.now
	p.key = folder(dbName) + w.name
	if p.snapshot {
		p.key += fmt.Sprintf("/snapshots/%s.snapshot.lz4", p.index)
	} else {
		p.key += fmt.Sprintf("/wal/%s_%08x.wal.lz4", p.index, p.offset)
	}
	w.m.store.put(w.t, p.key, pack(w.t, p.content), p.time)
	w.m.parts = append(w.m.parts, p)
	s := state{part: p, db: w.base}
	if n := len(w.m.states); w.sent > 0 {
		s.db = w.m.states[n-1].db
	}
	w.m.states = append(w.m.states, s)
}

// restored restores to a new directory and returns the bytes.
func (m *made) restored(t testing.TB, target Target, change ...func(*Config)) ([]byte, *Result, error) {
	t.Helper()
	cfg := Config{Store: m.store, DB: dbName, Target: target, Path: filepath.Join(t.TempDir(), "out.db")}
	for _, f := range change {
		f(&cfg)
	}
	result, err := Restore(t.Context(), cfg)
	entries, errDir := os.ReadDir(filepath.Dir(cfg.Path))
	if errDir != nil {
		t.Fatal(errDir)
	}
	if err != nil {
		if len(entries) > 0 {
			t.Errorf("left behind: %v", entries)
		}
		return nil, nil, err
	}
	if len(entries) != 1 {
		t.Errorf("beside the output: %v", entries)
	}
	b, errRead := os.ReadFile(cfg.Path)
	if errRead != nil {
		t.Fatal(errRead)
	}
	if result.Size != int64(len(b)) {
		t.Errorf("size %d, the result says %d", len(b), result.Size)
	}
	return b, result, nil
}
