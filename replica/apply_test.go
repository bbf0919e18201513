package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
)

func TestApplyFollowsPrimary(t *testing.T) {
	for _, size := range []uint32{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, uint64(size))
			p, path := newPrimary(t, size), replicaPath(t)
			r := open(t, Config{Path: path, SoftWALLimit: 128 << 10})
			f := p.bank()
			apply(t, r, f)
			check(t, path, f)
			for i := range 50 {
				f = p.churn(rnd)
				apply(t, r, f)
				if i%20 == 0 {
					check(t, path, f)
				}
			}
			check(t, path, f)
			if n := r.Status().Restarts; n == 0 {
				t.Errorf("the wal was never restarted: %+v", r.Status())
			}
		})
	}
}

func TestApplyAutoVacuum(t *testing.T) {
	for _, mode := range []int{1, 2} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, uint64(mode))
			p, path := newPrimary(t, 1024, fmt.Sprintf("PRAGMA auto_vacuum=%d", mode)), replicaPath(t)
			r := open(t, Config{Path: path, SoftWALLimit: 64 << 10})
			apply(t, r, p.bank())
			var f file
			for range 40 {
				f = p.churn(rnd)
				apply(t, r, f)
				if rnd.IntN(10) == 0 {
					p.exec("UPDATE head SET seq=seq+1")
					p.exec("PRAGMA incremental_vacuum(20)")
					f = p.step()
					apply(t, r, f)
				}
			}
			check(t, path, f)
		})
	}
}

// One generation of the WAL with frames in several regions of the wal-index,
// while a reader keeps it from being restarted.
func TestApplyManyFramesInOneGeneration(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 5)
	p, path := newPrimary(t, 512), replicaPath(t)
	r := open(t, Config{Path: path, SoftWALLimit: 64 << 10})
	apply(t, r, p.bank())
	apply(t, r, p.transfer(rnd))
	long := foreign(t, path)
	tx, err := long.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var sum int
	if err := tx.QueryRow("SELECT sum(bal) FROM acct").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	var f file
	for r.Status().WALFrames < 9000 {
		p.exec("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, b BLOB)")
		p.exec("INSERT INTO big(b) VALUES(randomblob(200000))")
		apply(t, r, p.step())
		f = p.transfer(rnd)
		apply(t, r, f)
	}
	check(t, path, f)
	s := r.Status()
	if len(s.PinnedBy) == 0 {
		t.Errorf("status names no reader that pins the wal: %+v", s)
	}
	var again int
	if err := tx.QueryRow("SELECT sum(bal) FROM acct").Scan(&again); err != nil || again != sum {
		t.Errorf("the long reader saw %d, then %d (%v)", sum, again, err)
	}
	tx.Rollback()
	until(t, func() bool {
		f = p.transfer(rnd)
		apply(t, r, f)
		return r.Status().Restarts > 0
	})
	check(t, path, f)
	if s := r.Status(); s.WALFrames > 1000 {
		t.Errorf("%d frames after the restart", s.WALFrames)
	}
}

func TestApplyLargeFile(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 6)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path, SoftWALLimit: 1 << 20})
	apply(t, r, p.bank())
	p.exec("CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)")
	p.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<30) INSERT INTO big(b) SELECT randomblob(1000000) FROM n")
	f := p.step()
	apply(t, r, f)
	check(t, path, f)
	if got := cap(r.apply.changes.images); got > 2*keepLimit {
		t.Errorf("%d bytes of pages kept", got)
	}
	until(t, func() bool { // the space is given back
		f = p.transfer(rnd)
		apply(t, r, f)
		return r.Status().WALBytes < 4<<20
	})
	check(t, path, f)
	p.exec("DROP TABLE big")
	p.exec("VACUUM")
	f = p.step()
	apply(t, r, f)
	check(t, path, f)
}

// nothing is a sink that takes everything.
func nothing(int, []byte) error { return nil }

// A large file becomes frames while it is read. Damage, or an end, that is found
// only then leaves nothing of it.
func TestApplyLargeFileThatBreaks(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 21)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	first := p.bank()
	apply(t, r, first)
	p.exec("CREATE TABLE big(b BLOB)")
	p.exec("INSERT INTO big VALUES(randomblob(20000000))")
	f := p.step()
	long := foreign(t, path)
	for name, broken := range map[string]*io.SectionReader{
		"bit in a page":   damagedAt(f, len(f.data)*9/10),
		"bit in the post": damagedAt(f, len(f.data)-12),
		"cut":             file{data: f.data[:len(f.data)*3/4]}.section(),
	} {
		if err := r.Apply(t.Context(), broken, ApplyInfo{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", name, err)
		}
		check(t, path, first)
		var n int
		if err := long.QueryRowContext(t.Context(), "SELECT count(*) FROM acct").Scan(&n); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the stream went away")
	stops := io.NewSectionReader(&stopping{data: f.data, at: 15 << 20, stop: func() error { cancel(gone); return gone }}, 0, int64(len(f.data)))
	if err := r.Apply(ctx, stops, ApplyInfo{}); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	check(t, path, first)
	apply(t, r, f)
	check(t, path, f)
	f = p.transfer(rnd)
	apply(t, r, f)
	check(t, path, f)
}

func damagedAt(f file, at int) *io.SectionReader {
	data := bytes.Clone(f.data)
	data[at] ^= 1
	return file{data: data}.section()
}

// stopping fails at an offset.
type stopping struct {
	data []byte
	at   int64
	stop func() error
}

func (s *stopping) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > s.at {
		return 0, s.stop()
	}
	return bytes.NewReader(s.data).ReadAt(b, off)
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 7)
	p, path := newPrimary(t, 4096), replicaPath(t)
	r := open(t, Config{Path: path})
	first := p.bank()
	second, third := p.transfer(rnd), p.transfer(rnd)
	p.exec("CREATE TABLE big(b BLOB)")
	p.exec("INSERT INTO big VALUES(randomblob(50000))")
	growth := p.step()

	refuse := func(name string, f file, want error) {
		t.Helper()
		before := r.Position()
		err := r.Apply(t.Context(), f.section(), ApplyInfo{})
		if want == nil {
			var pe *PosError
			if !errors.As(err, &pe) {
				t.Errorf("%s: %v, want a PosError", name, err)
			}
		} else if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if r.Position() != before {
			t.Errorf("%s: position moved to %v", name, r.Position())
		}
	}
	refuse("no base", second, nil)
	apply(t, r, first)
	refuse("gap", third, nil)
	apply(t, r, second)
	refuse("repetition", second, nil)

	h := headerOf(t, third)
	wrong := func(change func(*ltx.Header, *ltx.Checksum)) file {
		h, post := h, third.pos.PostApplyChecksum
		change(&h, &post)
		return reencode(t, third, h, post, func([]uint32) []uint32 { return nil })
	}
	refuse("fork", wrong(func(h *ltx.Header, _ *ltx.Checksum) { h.PreApplyChecksum ^= 1 }), ErrDiverged)
	refuse("wrong post checksum", wrong(func(_ *ltx.Header, post *ltx.Checksum) { *post ^= 1 }), ErrDamaged)
	apply(t, r, third)
	hole := reencode(t, growth, headerOf(t, growth), growth.pos.PostApplyChecksum, func(list []uint32) []uint32 {
		return list[:len(list)-1]
	})
	refuse("hole", hole, ErrDamaged)
	check(t, path, third)
	apply(t, r, growth)
	check(t, path, growth)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Apply(ctx, first.section(), ApplyInfo{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled apply: %v", err)
	}
}

// Every flipped bit, cut and swap of a file is found before a page is written.
func TestApplyMutants(t *testing.T) {
	t.Parallel()
	t.Run("sized", func(t *testing.T) { t.Parallel(); applyMutants(t, 3000, func(f file) file { return f }) })
	t.Run("framed", func(t *testing.T) { t.Parallel(); applyMutants(t, 1500, func(f file) file { return old(t, f, nil) }) })
}

func applyMutants(t *testing.T, n int, form func(file) file) {
	rnd := seeded(t, 8)
	p, path := newPrimary(t, 1024), replicaPath(t)
	r := open(t, Config{Path: path})
	first := form(p.bank())
	apply(t, r, first)
	next := form(p.transfer(rnd))
	for i := range n {
		m := file{data: mutate(rnd, next.data)}
		err := r.Apply(t.Context(), m.section(), ApplyInfo{Full: rnd.IntN(2) == 0})
		var pe *PosError
		switch {
		case err == nil: // other compressed bytes for the same page: the content is what counts
			check(t, path, next)
			applyFull(t, r, first)
		case !errors.Is(err, ErrDamaged) && !errors.As(err, &pe):
			t.Fatalf("mutant %d: %v", i, err)
		}
	}
	check(t, path, first)
	apply(t, r, next)
	check(t, path, next)
}

func mutate(rnd *rand.Rand, b []byte) []byte {
	m := append([]byte(nil), b...)
	switch rnd.IntN(4) {
	case 0:
		return m[:rnd.IntN(len(m))]
	case 1:
		return append(m, byte(rnd.IntN(256)))
	case 2:
		i, j, n := rnd.IntN(len(m)-8), rnd.IntN(len(m)-8), 1+rnd.IntN(8)
		tmp := append([]byte(nil), m[i:i+n]...)
		copy(m[i:], m[j:j+n])
		copy(m[j:], tmp)
		if string(m) != string(b) {
			return m
		}
	}
	i := rnd.IntN(len(m))
	m[i] ^= 1 << rnd.IntN(8)
	return m
}

func headerOf(t *testing.T, f file) ltx.Header {
	t.Helper()
	scan, err := ltxfile.NewScanner(f.section())
	if err != nil {
		t.Fatal(err)
	}
	return scan.Header()
}

func (c *changes) readAll(f file) error {
	scan, err := ltxfile.NewScanner(f.section())
	if err != nil {
		return err
	}
	return c.read(scan, true, nothing)
}

// reencode writes f anew with another header, trailer and choice of pages.
func reencode(t *testing.T, f file, h ltx.Header, post ltx.Checksum, choose func([]uint32) []uint32) file {
	t.Helper()
	var c changes
	if err := c.readAll(f); err != nil {
		t.Fatal(err)
	}
	at := map[uint32]int{}
	var list []uint32
	for i, p := range c.pages {
		list, at[p.Pgno] = append(list, p.Pgno), i
	}
	if l := choose(list); l != nil {
		list = l
	}
	return encodeFile(t, h, post, list, func(n uint32) []byte { return c.image(at[n]) }, f.image)
}

// A file over several transactions applies at any position inside it.
func TestApplyOverlappingFile(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 9)
	p, path := newPrimary(t, 1024), replicaPath(t)
	r := open(t, Config{Path: path})
	base := p.bank()
	apply(t, r, base)
	steps := []file{p.churn(rnd), p.transfer(rnd), p.churn(rnd), p.transfer(rnd)}
	end := steps[3]
	span := encodeStep(t, 1024, base.pos, base.image, end.image, nil)
	h := headerOf(t, span)
	h.MaxTXID = end.pos.TXID
	// All pages any step touched: an archive file holds those too.
	touched := map[uint32]bool{}
	for _, s := range append(steps, span) {
		var c changes
		if err := c.readAll(s); err != nil {
			t.Fatal(err)
		}
		for _, pg := range c.pages {
			touched[pg.Pgno] = true
		}
	}
	var list []uint32
	for n := uint32(1); n <= h.Commit; n++ {
		if touched[n] {
			list = append(list, n)
		}
	}
	span = encodeFile(t, h, end.pos.PostApplyChecksum, list, func(n uint32) []byte { return end.image[(n-1)*1024 : n*1024] }, end.image)
	apply(t, r, steps[0])
	apply(t, r, steps[1])
	if err := r.Apply(t.Context(), span.section(), ApplyInfo{Seq: at(9)}); err != nil {
		t.Fatal(err)
	}
	if got := r.Position(); got.Pos != end.pos || got.Seq != 9 {
		t.Fatalf("position %v", got)
	}
	check(t, path, end)
}

func TestWaitFor(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 10)
	p := newPrimary(t, 4096)
	r := open(t, Config{Path: replicaPath(t)})
	apply(t, r, p.bank())
	if pos, err := r.WaitFor(t.Context(), 1); err != nil || pos.TXID != 1 {
		t.Fatalf("%v %v", pos, err)
	}
	got := make(chan Position, 1)
	go func() {
		pos, _ := r.WaitFor(context.Background(), 3)
		got <- pos
	}()
	apply(t, r, p.transfer(rnd))
	select {
	case pos := <-got:
		t.Fatalf("returned at %v", pos)
	default:
	}
	apply(t, r, p.transfer(rnd))
	if pos := <-got; pos.TXID != 3 {
		t.Fatalf("returned at %v", pos)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.WaitFor(ctx, 99); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { _, err := r.WaitFor(context.Background(), 99); closed <- err }()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestPagesumOfIsLTX(t *testing.T) {
	b := make([]byte, 4096)
	if pagesum.Of(7, b) != ltx.ChecksumPage(7, b) {
		t.Fatal("checksums differ")
	}
}

// until calls cond again and again, for up to 20 s.
func until(t testing.TB, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached in 20 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
