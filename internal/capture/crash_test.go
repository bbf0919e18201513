package capture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// crashes are the points at which a capturing process is killed.
var crashes = []captureSpec{
	{Crash: "spool"},
	{Crash: "spooled", Damage: "half file"},
	{Crash: "spooled"},
	{Crash: "spooled", Damage: "half table"},
	{Crash: "table"},
	{Crash: "cursor"},
	{Crash: "restart", Nth: 1},
	{Crash: "restarted", Nth: 1},
	{Crash: "compare", Nth: 1},
	{Crash: "sync", Nth: 1}, // of the WAL, before a backfill
	{Crash: "sync", Nth: 2}, // of the file, after it
}

func TestKilledAtEachStep(t *testing.T) {
	for _, spec := range crashes {
		for seed := range uint64(short(20, 1000)) {
			t.Run(fmt.Sprint(spec.Crash, " ", spec.Damage, " seed ", seed), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 4))
				checkpoints := []int{0, -1, 10}
				if strings.HasPrefix(spec.Crash, "restart") || spec.Crash == "sync" {
					checkpoints = checkpoints[:2] // the WAL of the third is restarted by the application
				}
				a := newApp(t, sqlconn.Options{AutoCheckpoint: checkpoints[rnd.IntN(len(checkpoints))]}, seed)
				spec := spec
				spec.Path, spec.SoftWALLimit = a.path, 32<<10
				if spec.Nth == 0 {
					spec.Nth = 1 + rnd.IntN(8)
				}
				c := captureIn(t, spec)
				await(t, "the kill", func() bool {
					a.update(1 + rnd.IntN(5))
					select {
					case <-c.p.Done():
						return true
					default:
						return false
					}
				})
				a.update(rnd.IntN(50))
				if rnd.IntN(2) == 0 {
					a.close()
					a.open()
				}
				r := run(t, Config{Path: a.path}, &shadow{})
				a.update(rnd.IntN(20))
				r.settle()
				r.equal(a.path)
				if r.shadow.fulls != 1 {
					t.Errorf("%d full files, want the first one only", r.shadow.fulls)
				}
			})
		}
	}
}

// losses are what a power loss can do to our own files, none of which is synced.
var losses = map[string]func(t *testing.T, rnd *rand.Rand, dir string){
	"last files": func(t *testing.T, rnd *rand.Rand, dir string) {
		for range 1 + rnd.IntN(3) {
			dropLast(dir)
		}
	},
	"end of the last file": func(t *testing.T, rnd *rand.Rand, dir string) {
		f := lastSpooled(dir)
		must(t, os.Truncate(f.path, f.off+rnd.Int64N(f.Size)))
	},
	"zeros in a file": func(t *testing.T, rnd *rand.Rand, dir string) {
		f := lastSpooled(dir)
		overwriteAt(t, f.path, make([]byte, 64), f.off+rnd.Int64N(f.Size-64))
	},
	"table bytes": func(t *testing.T, rnd *rand.Rand, dir string) {
		overwrite(t, rnd, filepath.Join(dir, "checksums"), []byte("garbage"))
	},
	"a table entry": func(t *testing.T, rnd *rand.Rand, dir string) {
		f, err := os.OpenFile(filepath.Join(dir, "checksums"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("garbage!"), 4096+8*int64(rnd.IntN(10)))
		must(t, err)
	},
	"table":  func(t *testing.T, _ *rand.Rand, dir string) { must(t, os.Truncate(filepath.Join(dir, "checksums"), 0)) },
	"cursor": func(t *testing.T, _ *rand.Rand, dir string) { must(t, os.Truncate(filepath.Join(dir, "cursor"), 30)) },
	"cursor bytes": func(t *testing.T, rnd *rand.Rand, dir string) {
		overwrite(t, rnd, filepath.Join(dir, "cursor"), []byte{byte(rnd.IntN(256))})
	},
	"all": func(t *testing.T, _ *rand.Rand, dir string) { must(t, os.RemoveAll(dir)) },
}

func overwrite(t *testing.T, rnd *rand.Rand, name string, b []byte) {
	t.Helper()
	fi, err := os.Stat(name)
	must(t, err)
	overwriteAt(t, name, b, rnd.Int64N(max(1, fi.Size()-int64(len(b)))))
}

func overwriteAt(t *testing.T, name string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// After a power loss the chain is a valid one and ends at the database's state;
// at worst it has another full file.
func TestPowerLossOfOurFiles(t *testing.T) {
	for name, lose := range losses {
		for seed := range uint64(short(3, 50)) {
			t.Run(fmt.Sprint(name, " seed ", seed), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 5))
				a := newApp(t, sqlconn.Options{}, seed)
				c := captureIn(t, captureSpec{Path: a.path})
				c.caughtUp()
				for range 5 {
					a.update(5)
					c.caughtUp()
				}
				c.p.Kill()
				lose(t, rnd, StateDir(a.path))
				a.update(rnd.IntN(20))
				r := run(t, Config{Path: a.path}, &shadow{})
				r.settle()
				a.update(100) // over every page
				r.settle()
				r.equal(a.path)
				if r.shadow.fulls > 2 {
					t.Errorf("%d full files", r.shadow.fulls)
				}
			})
		}
	}
}
