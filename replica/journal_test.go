package replica

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/wal"
)

func someEntry(rnd *rand.Rand, n uint64) entry {
	return entry{
		Salt: wal.Salt{1, rnd.Uint32()}, Frame: uint32(n), Sum: wal.Sum{rnd.Uint32(), rnd.Uint32()},
		PageSize: 4096, PageCount: 1 + rnd.Uint32N(1000),
		Pos: Position{Pos: ltx.Pos{TXID: ltx.TXID(n), PostApplyChecksum: ltx.ChecksumFlag | ltx.Checksum(rnd.Uint64())}, Seq: n},
	}
}

func TestJournalKeepsEntries(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 41)
	path := filepath.Join(t.TempDir(), positionsName)
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []entry
	for n := range uint64(journalKeep + 100) {
		e := someEntry(rnd, n+1)
		want = append(want, e)
		if err := j.append(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.compact(1 << 10); err != nil {
		t.Fatal(err)
	}
	more := someEntry(rnd, 1<<40)
	if err := j.append(more); err != nil {
		t.Fatal(err)
	}
	if err := j.sync(); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(path); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	got, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	if want = append(want[100:], more); !slices.Equal(got, want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
}

// A torn append, at every byte, costs that entry only, and the next one is
// written in its place.
func TestJournalTornTail(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 42)
	for cut := range recordSize {
		path := filepath.Join(t.TempDir(), positionsName)
		var b []byte
		var es []entry
		for n := range uint64(3) {
			var rec [recordSize]byte
			es = append(es, someEntry(rnd, n+1))
			es[n].encode(&rec)
			b = append(b, rec[:]...)
		}
		mustWrite(t, path, b[:2*recordSize+cut])
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := j.load(); err != nil || !slices.Equal(got, es[:2]) {
			t.Fatalf("cut %d: %d entries, %v", cut, len(got), err)
		}
		if err := j.append(es[2]); err != nil {
			t.Fatal(err)
		}
		if got, err := j.load(); err != nil || !slices.Equal(got, es) {
			t.Fatalf("cut %d: %d entries after append, %v", cut, len(got), err)
		}
		j.close()
	}
}

// No mutant of a journal yields an entry that was not written.
func TestJournalMutants(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 43)
	var b []byte
	written := map[entry]bool{}
	for n := range uint64(8) {
		var rec [recordSize]byte
		e := someEntry(rnd, n+1)
		e.encode(&rec)
		written[e] = true
		b = append(b, rec[:]...)
	}
	for i := range 10000 {
		m := bytes.Clone(b)
		for range 1 + rnd.IntN(3) {
			if m = mutate(rnd, m); len(m) < recordSize {
				break
			}
		}
		for _, e := range parseJournal(m) {
			if !written[e] {
				t.Fatalf("mutant %d yields %+v", i, e)
			}
		}
	}
}

// A replica with a damaged journal is at its own position or lost, never at
// another.
func TestReplicaWithMutantJournal(t *testing.T) {
	t.Parallel()
	rnd := seeded(t, 44)
	_, path, last := seedReplica(t, rnd, 10)
	name := filepath.Join(StateDirOf(path), positionsName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range journalMutants {
		mustWrite(t, name, mutate(rnd, b))
		r := open(t, Config{Path: path})
		if r.Lost() != nil {
			lost++
		} else if r.Position().Pos != last.pos {
			t.Fatalf("position %v, content has %v", r.Position(), last.pos)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("lost %d of %d", lost, journalMutants)
}

func FuzzJournal(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var two []byte
	for n := range uint64(2) {
		var rec [recordSize]byte
		e := someEntry(rnd, n+1)
		e.encode(&rec)
		two = append(two, rec[:]...)
	}
	f.Add(two)
	f.Add(two[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		es := parseJournal(b)
		if len(es) > len(b)/recordSize {
			t.Fatalf("%d entries from %d bytes", len(es), len(b))
		}
		for _, e := range es {
			var rec [recordSize]byte
			e.encode(&rec)
			if !bytes.Contains(b, rec[:]) {
				t.Fatalf("%+v does not encode to what it was read from", e)
			}
		}
	})
}

// What is read agrees with the reference decoder.
func FuzzDecoder(f *testing.F) {
	p := newPrimary(f, 512)
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, seed := range []file{p.bank(), p.transfer(rnd)} {
		f.Add(seed.data)
		f.Add(old(f, seed, nil).data)
		f.Add(old(f, seed, odd).data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c changes
		if err := c.readAll(file{data: b}); err != nil {
			return
		}
		ref := ltx.NewDecoder(bytes.NewReader(b))
		if err := ref.Verify(); err != nil {
			t.Fatalf("accepted what the reference refuses: %v", err)
		}
		if ref.Header() != c.header || ref.Trailer().PostApplyChecksum != c.post || ref.PageN() != len(c.pages) {
			t.Fatal("decoded something else than the reference")
		}
	})
}
