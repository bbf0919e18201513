package capture

import (
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// spoolMutations damage the files of a spool as disks, copies and power losses
// do. They return what is to be under each name.
var spoolMutations = map[string]func(r *rand.Rand, files map[string][]byte){
	"bit": func(r *rand.Rand, files map[string][]byte) {
		b := pick(r, files)
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	},
	"bits": func(r *rand.Rand, files map[string][]byte) {
		for range 1 + r.IntN(20) {
			b := pick(r, files)
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
	},
	"truncated": func(r *rand.Rand, files map[string][]byte) {
		name := pickName(r, files)
		files[name] = files[name][:r.IntN(len(files[name]))]
	},
	"longer": func(r *rand.Rand, files map[string][]byte) {
		name := pickName(r, files)
		files[name] = append(files[name], pick(r, files)[:r.IntN(100)]...)
	},
	"zeros": func(r *rand.Rand, files map[string][]byte) {
		b := pick(r, files)
		at := r.IntN(len(b))
		clear(b[at:min(len(b), at+1+r.IntN(4096))])
	},
	"contents swapped": func(r *rand.Rand, files map[string][]byte) {
		a, b := pickName(r, files), pickName(r, files)
		files[a], files[b] = files[b], files[a]
	},
	"replayed": func(r *rand.Rand, files map[string][]byte) {
		b := pick(r, files)
		files[ltx.TXID(1+r.IntN(60)).String()+[]string{segmentSuffix, fileSuffix, fullSuffix}[r.IntN(3)]] = b
	},
	"records twice": func(r *rand.Rand, files map[string][]byte) {
		name := pickName(r, files)
		files[name] = append(files[name], files[name]...)
	},
	"range moved": func(r *rand.Rand, files map[string][]byte) {
		b := pick(r, files)
		from, to, n := r.IntN(len(b)), r.IntN(len(b)), 1+r.IntN(600)
		copy(b[to:], bytes.Clone(b[from:min(len(b), from+n)]))
	},
	"removed": func(r *rand.Rand, files map[string][]byte) { delete(files, pickName(r, files)) },
}

func pickName(r *rand.Rand, files map[string][]byte) string {
	names := slices.Sorted(maps.Keys(files))
	return names[r.IntN(len(names))]
}

func pick(r *rand.Rand, files map[string][]byte) []byte { return files[pickName(r, files)] }

// No mutant of a spool yields an LTX file that was not captured, or one out of
// its place: what is left is a contiguous part of the chain.
func TestSpoolMutants(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 9))
	good := map[string][]byte{}
	captured := map[ltx.Pos][]byte{}
	a := newApp(t, sqlconn.Options{}, 1)
	for range 3 { // a segment of each run
		c := captureIn(t, captureSpec{Path: a.path})
		for range 4 {
			a.update(3)
			c.caughtUp()
		}
		c.stop()
	}
	dir := filepath.Join(StateDir(a.path), "spool")
	names, err := os.ReadDir(dir)
	must(t, err)
	for _, n := range names {
		good[n.Name()], err = os.ReadFile(filepath.Join(dir, n.Name()))
		must(t, err)
	}
	for f, b := range spooled(t, dir) {
		captured[f.Pos()] = b
	}
	if len(good) < 3 || len(captured) < 8 {
		t.Fatalf("%d files of %d captured ones", len(good), len(captured))
	}
	kinds, whole := slices.Sorted(maps.Keys(spoolMutations)), 0
	for i := range short(400, 10_000) {
		kind := kinds[i%len(kinds)]
		files := map[string][]byte{}
		for n, b := range good {
			files[n] = bytes.Clone(b)
		}
		spoolMutations[kind](rnd, files)
		mutant := filepath.Join(t.TempDir(), "spool")
		must(t, os.Mkdir(mutant, 0o755))
		for n, b := range files {
			must(t, os.WriteFile(filepath.Join(mutant, n), b, 0o644))
		}
		n, before := 0, ltx.Pos{}
		for f, b := range spooled(t, mutant) {
			if want, ok := captured[f.Pos()]; !ok || !bytes.Equal(b, want) {
				t.Fatalf("mutant %d (%s) yields %s, which was not captured", i, kind, f.Pos())
			}
			if n > 0 && f.PrePos() != before {
				t.Fatalf("mutant %d (%s): %s follows %s", i, kind, f.Pos(), before)
			}
			before = f.Pos()
			n++
		}
		if n == len(captured) {
			whole++
		}
		must(t, os.RemoveAll(mutant))
	}
	t.Logf("%d mutants were as good as whole", whole)
}

// spooled yields the files that a spool finds in dir, with their bytes.
func spooled(t *testing.T, dir string) func(func(File, []byte) bool) {
	t.Helper()
	s, err := openSpool(dir)
	must(t, err)
	return func(yield func(File, []byte) bool) {
		for at := ltx.TXID(0); ; {
			f, ok := s.after(at)
			if !ok {
				return
			}
			r, err := f.Open()
			must(t, err)
			b, err := io.ReadAll(io.NewSectionReader(r, 0, f.Size))
			must(t, err, r.Close())
			if !yield(f, b) {
				return
			}
			at = f.TXID()
		}
	}
}
