package compactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/mem"
	"github.com/ltxstream/ltxstream/testenv/history"
)

func inputsOf(files ...[]byte) []Input {
	inputs := make([]Input, len(files))
	for i, b := range files {
		inputs[i] = Input{Name: fmt.Sprintf("input %d", i), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}}
	}
	return inputs
}

// files returns those of the transactions lo to hi.
func files(h *history.History, lo, hi ltx.TXID) (all [][]byte) {
	for txid := lo; txid <= hi; txid++ {
		all = append(all, h.File(txid))
	}
	return all
}

func merge(t *testing.T, opts MergeOptions, files ...[]byte) ([]byte, Merged) {
	t.Helper()
	var buf bytes.Buffer
	m, err := Merge(t.Context(), &buf, inputsOf(files...), opts)
	if err != nil {
		t.Fatal(err)
	}
	if m.Size != int64(buf.Len()) {
		t.Fatalf("says %d bytes, wrote %d", m.Size, buf.Len())
	}
	return buf.Bytes(), m
}

// restored writes what a file of all pages holds as a database.
func restored(t *testing.T, file []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "restored.db")
	var buf bytes.Buffer
	if err := ltx.NewDecoder(bytes.NewReader(file)).DecodeDatabaseTo(&buf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMergeEqualsCompactor: byte for byte what superfly/ltx makes by decoding
// and encoding everything.
func TestMergeEqualsCompactor(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 1024, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			h := history.New(t, history.Config{Seed: uint64(size), PageSize: size})
			h.Grow(t, 60)
			rng := rand.New(rand.NewPCG(uint64(size), 9))
			for range min(12, 4+65536/size) {
				lo := ltx.TXID(rng.Int64N(60) + 1)
				hi := lo + ltx.TXID(rng.Int64N(int64(61-lo)))
				if lo > 30 {
					lo = 1
				}
				got, m := merge(t, MergeOptions{}, files(h, lo, hi)...)
				if want := compact(t, 0, files(h, lo, hi)...); !bytes.Equal(got, want) {
					t.Fatalf("%s-%s: %d bytes, ltx.Compactor makes %d, or other ones", lo, hi, len(got), len(want))
				}
				if m.Post != h.State(hi).Pos.PostApplyChecksum || m.Pre != h.State(lo-1).Pos.PostApplyChecksum {
					t.Errorf("%s-%s: %s → %s, want %s → %s", lo, hi, m.Pre, m.Post, h.State(lo-1).Pos, h.State(hi).Pos)
				}
				if !m.Timestamp().Equal(h.State(hi).Time) {
					t.Errorf("timestamp %s, want that of the last transaction, %s", m.Timestamp(), h.State(hi).Time)
				}
				if lo == 1 {
					if err := h.Check(restored(t, got), hi); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// compact merges by superfly/ltx.
func compact(t *testing.T, flags uint32, files ...[]byte) []byte {
	t.Helper()
	readers := make([]io.Reader, len(files))
	for i, f := range files {
		readers[i] = bytes.NewReader(f)
	}
	var out bytes.Buffer
	c, err := ltx.NewCompactor(&out, readers)
	if err != nil {
		t.Fatal(err)
	}
	c.HeaderFlags = flags
	if err := c.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// mixtures are histories with files in the older form.
var mixtures = map[string]func(txid ltx.TXID, pgno uint32) bool{
	"old":               func(ltx.TXID, uint32) bool { return true },
	"old up to a point": func(txid ltx.TXID, _ uint32) bool { return txid < 8 },
	"old pages":         func(txid ltx.TXID, pgno uint32) bool { return (pgno+uint32(txid))%3 == 0 },
}

// TestMergeOldFiles: of files in the older form, and of both, one comes out that
// superfly/ltx reads and compacts to the same pages as the files themselves.
func TestMergeOldFiles(t *testing.T) {
	t.Parallel()
	for name, old := range mixtures {
		for _, size := range []int{512, 4096, 65536} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				t.Parallel()
				cfg := history.Config{Seed: uint64(size), PageSize: size, Old: old}
				checkOldMerges(t, cfg, 0)
				cfg.NoChecksums = true
				checkOldMerges(t, cfg, ltx.HeaderFlagNoChecksum)
			})
		}
	}
}

func checkOldMerges(t *testing.T, cfg history.Config, flags uint32) {
	t.Helper()
	h := history.New(t, cfg)
	hi := ltx.TXID(15)
	if cfg.PageSize == 65536 { // as long as the others
		hi = 7
	}
	h.Grow(t, int(hi+1))
	for _, lo := range []ltx.TXID{1, 5} {
		got, _ := merge(t, MergeOptions{}, files(h, lo, hi)...)
		want := compact(t, flags, files(h, lo, hi)...)
		if !bytes.Equal(pagesOf(t, got), pagesOf(t, want)) || !bytes.Equal(got[:ltx.HeaderSize], want[:ltx.HeaderSize]) || !bytes.Equal(post(got), post(want)) {
			t.Fatalf("from %s: ltx.Compactor makes another file", lo)
		}
		again := compact(t, flags, got, h.File(hi+1))
		if more := compact(t, flags, want, h.File(hi+1)); !bytes.Equal(again, more) {
			t.Fatalf("from %s: ltx.Compactor makes another file of the merged one", lo)
		}
		if lo == 1 {
			if err := h.Check(restored(t, got), hi); err != nil {
				t.Error(err)
			}
		}
	}
}

// post is the checksum of the database in a file's trailer.
func post(file []byte) []byte { return file[len(file)-ltx.TrailerSize:][:ltx.ChecksumSize] }

func TestMergeSnapshot(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 5})
	h.Grow(t, 20)
	full := h.Full(t)
	h.Grow(t, 20)
	for name, c := range map[string][][]byte{
		"from the first file":      files(h, 1, 40),
		"from a full file":         append([][]byte{full}, files(h, 21, 40)...),
		"full file in the middle":  append(append(files(h, 1, 19), full), files(h, 21, 40)...),
		"a file that begins early": {first(merge(t, MergeOptions{}, files(h, 1, 30)...)), first(merge(t, MergeOptions{}, files(h, 25, 40)...))},
	} {
		got, m := merge(t, MergeOptions{Snapshot: true}, c...)
		if m.Header.MinTXID != 1 || m.Header.MaxTXID != 40 || m.Pre != 0 || m.Post != h.Last().Pos.PostApplyChecksum {
			t.Errorf("%s: %+v", name, m)
		}
		if err := h.Check(restored(t, got), 40); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func first(b []byte, _ Merged) []byte { return b }

// TestMergeWithoutChecksums: for readers that refuse them; what the file does
// not bear is still told.
func TestMergeWithoutChecksums(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 6})
	h.Grow(t, 10)
	got, m := merge(t, MergeOptions{NoChecksums: true}, files(h, 1, 10)...)
	if !m.Header.NoChecksum() || m.Trailer.PostApplyChecksum != 0 || m.Post != h.Last().Pos.PostApplyChecksum {
		t.Errorf("%+v", m)
	}
	if err := h.Check(restored(t, got), 10); err != nil {
		t.Error(err)
	}
	theirs := history.New(t, history.Config{Seed: 6, NoChecksums: true})
	theirs.Grow(t, 10)
	if _, m = merge(t, MergeOptions{}, files(theirs, 1, 10)...); m.Post != h.Last().Pos.PostApplyChecksum || !m.Header.NoChecksum() {
		t.Errorf("of files without checksums: %+v", m)
	}
}

// TestMergeOfBoth: of files with checksums of the database and files without them,
// in any order, the checksum of what comes out is right or absent, and the pages are
// right.
func TestMergeOfBoth(t *testing.T) {
	t.Parallel()
	ours, theirs := history.New(t, history.Config{Seed: 11}), history.New(t, history.Config{Seed: 11, NoChecksums: true})
	ours.Grow(t, 9)
	theirs.Grow(t, 9)
	want := ours.Last().Pos.PostApplyChecksum
	for _, c := range []struct {
		order  string // who wrote the files, from the first on
		absent bool   // the checksum in the file
	}{{"ooooootto", false}, {"ottttttto", false}, {"ooooooott", true}, {"ttttttooo", true}, {"totototot", true}} {
		var in [][]byte
		for i, who := range c.order {
			h := map[rune]*history.History{'o': ours, 't': theirs}[who]
			in = append(in, h.File(ltx.TXID(i+1)))
		}
		got, m := merge(t, MergeOptions{}, in...)
		if m.Header.NoChecksum() != c.absent || m.Trailer.PostApplyChecksum != 0 && m.Trailer.PostApplyChecksum != want || m.Post != want {
			t.Errorf("%s: no checksums %t, %s, %s; want %s", c.order, m.Header.NoChecksum(), m.Trailer.PostApplyChecksum, m.Post, want)
		}
		if err := ours.Check(restored(t, got), 9); err != nil {
			t.Errorf("%s: %v", c.order, err)
		}
		if _, m = merge(t, MergeOptions{Snapshot: true}, in...); m.Header.NoChecksum() || m.Trailer.PostApplyChecksum != want {
			t.Errorf("%s, snapshot: %+v", c.order, m)
		}
		if _, m = merge(t, MergeOptions{}, in[2:]...); m.Trailer.PostApplyChecksum != 0 && (m.Trailer.PostApplyChecksum != want || m.Header.PreApplyChecksum != ours.State(2).Pos.PostApplyChecksum) {
			t.Errorf("%s, from TXID 3 on: %+v", c.order, m)
		}
	}
}

// TestMergeWhenTheClockWentBack: that is no error, and what comes out does not go
// back; streamed it has the same name and timestamp.
func TestMergeWhenTheClockWentBack(t *testing.T) {
	t.Parallel()
	for _, theirs := range []bool{false, true} {
		h := history.New(t, history.Config{Seed: 12, NoChecksums: theirs})
		h.Grow(t, 4)
		h.Skip(-time.Hour)
		h.Grow(t, 2)
		_, m := merge(t, MergeOptions{}, files(h, 1, 6)...)
		if want := h.State(4).Time; !m.Timestamp().Equal(want) {
			t.Errorf("theirs %t: timestamp %s, want the latest, %s", theirs, m.Timestamp(), want)
		}
		for _, total := range []int64{0, inMemory + 1} {
			a := levels.New(mem.New(), levels.Decimal)
			f, m, err := Store(t.Context(), StoreConfig{Archive: a, DB: "app"}, levels.First, inputsOf(files(h, 1, 6)...), total)
			if err != nil {
				t.Fatal(err)
			}
			info, err := a.Store().Stat(t.Context(), a.Key("app", f))
			if err != nil || f.Min != 1 || f.Max != 6 || !info.Timestamp.Equal(m.Timestamp()) || !f.Timestamp.Equal(h.State(4).Time) {
				t.Errorf("theirs %t, %d bytes: %s of %s, stored as of %s, %v", theirs, total, f, f.Timestamp, info.Timestamp, err)
			}
		}
	}
}

// TestMergeFindsDamage: a flipped bit anywhere in any input, one that is cut or
// goes on, is found and named, whether its page wins or not.
func TestMergeFindsDamage(t *testing.T) {
	t.Parallel()
	for name, old := range mixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := history.New(t, history.Config{Seed: 7, PageSize: 1024, MaxBlob: 3000, Old: old})
			h.Grow(t, 12)
			findDamage(t, h)
		})
	}
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		h := history.New(t, history.Config{Seed: 7, PageSize: 1024, MaxBlob: 3000})
		h.Grow(t, 12)
		findDamage(t, h)
	})
}

func findDamage(t *testing.T, h *history.History) {
	t.Helper()
	good := files(h, 5, 12)
	want := pagesOf(t, first(merge(t, MergeOptions{}, good...)))
	rng := rand.New(rand.NewPCG(7, 7))
	try := func(what string, i int, change func([]byte) []byte) {
		t.Helper()
		bad := append([][]byte(nil), good...)
		bad[i] = change(bytes.Clone(bad[i]))
		var out bytes.Buffer
		_, err := Merge(t.Context(), &out, inputsOf(bad...), MergeOptions{})
		if err == nil && bytes.Equal(pagesOf(t, out.Bytes()), want) {
			return // another LZ4 block for the same page
		}
		fault, ok := errors.AsType[*InputError](err)
		if !ok || !errors.Is(err, ltxfile.ErrDamaged) && !errors.Is(err, ErrChain) {
			t.Fatalf("%s of file %d: %v", what, i, err)
		}
		if fault.Index != i && (!errors.Is(err, ErrChain) || fault.Index != i+1) {
			t.Fatalf("%s of file %d: blames file %d: %v", what, i, fault.Index, err)
		}
	}
	for i, f := range good {
		for range 30 {
			at, bit := rng.IntN(len(f)), byte(1)<<rng.IntN(8)
			try(fmt.Sprintf("bit %d of byte %d", bit, at), i, func(b []byte) []byte { b[at] ^= bit; return b })
		}
		for _, at := range []int{0, 4, 8, 12, 16, 24, 32, 40, 96, 100, 104, 106, len(f) - 1, len(f) - 9, len(f) - 17, len(f) - 25} {
			try(fmt.Sprintf("byte %d", at), i, func(b []byte) []byte { b[at] ^= 0x11; return b })
		}
		for _, n := range []int{0, 1, 99, 100, 107, len(f) / 2, len(f) - 1, len(f) - 16} {
			try(fmt.Sprintf("cut at %d", n), i, func(b []byte) []byte { return b[:n] })
		}
		try("a byte more", i, func(b []byte) []byte { return append(b, 0) })
	}
}

// pagesOf decodes a file.
func pagesOf(t *testing.T, b []byte) []byte {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if err := dec.DecodeHeader(); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 0, len(b))
	page := make([]byte, dec.Header().PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, byte(h.Pgno>>24), byte(h.Pgno>>16), byte(h.Pgno>>8), byte(h.Pgno)), page...)
	}
	if err := dec.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMergeFindsBrokenChain(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 8})
	h.Grow(t, 10)
	other := history.New(t, history.Config{Seed: 9})
	other.Grow(t, 10)
	for name, c := range map[string]struct {
		files    [][]byte
		snapshot bool
		fault    int
	}{
		"gap":                  {[][]byte{h.File(3), h.File(5)}, false, 1},
		"backwards":            {[][]byte{h.File(3), h.File(2)}, false, 1},
		"twice":                {[][]byte{h.File(3), h.File(3)}, false, 1},
		"other history":        {[][]byte{h.File(3), other.File(4)}, false, 1},
		"no base":              {[][]byte{h.File(3), h.File(4)}, true, 1},
		"other history, based": {append(files(h, 1, 4), other.File(5)), false, 4},
	} {
		_, err := Merge(t.Context(), io.Discard, inputsOf(c.files...), MergeOptions{Snapshot: c.snapshot})
		fault, ok := errors.AsType[*InputError](err)
		if !ok || !errors.Is(err, ErrChain) || fault.Index != c.fault {
			t.Errorf("%s: %v, want ErrChain about file %d", name, err, c.fault)
		}
	}
	if _, err := Merge(t.Context(), io.Discard, nil, MergeOptions{}); err == nil {
		t.Error("nothing to merge: no error")
	}
}

// TestMergeStops: a reader or writer that fails, and the end of the context.
func TestMergeStops(t *testing.T) {
	t.Parallel()
	h := history.New(t, history.Config{Seed: 10})
	h.Grow(t, 30)
	all := files(h, 1, 30)
	broken := errors.New("broken")
	for _, after := range []int64{0, 50, 5000, 40_000} {
		inputs := inputsOf(all...)
		inputs[20].Open = func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(io.LimitReader(bytes.NewReader(all[20]), min(after, int64(len(all[20])-1))), failing{broken})), nil
		}
		_, err := Merge(t.Context(), io.Discard, inputs, MergeOptions{})
		if fault, ok := errors.AsType[*InputError](err); !errors.Is(err, broken) || !ok || fault.Index != 20 || errors.Is(err, ltxfile.ErrDamaged) {
			t.Errorf("reader broken after %d bytes: %v", after, err)
		}
		if _, err := Merge(t.Context(), &full{left: after, err: broken}, inputsOf(all...), MergeOptions{}); !errors.Is(err, broken) {
			t.Errorf("writer broken after %d bytes: %v", after, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if _, err := Merge(ctx, io.Discard, inputsOf(all...), MergeOptions{}); !errors.Is(err, broken) {
		t.Errorf("cancelled: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type full struct {
	left int64
	err  error
}

func (f *full) Write(b []byte) (int, error) {
	if f.left -= int64(len(b)); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}
