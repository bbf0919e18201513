package capture

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/superfly/ltx"
)

// short returns n, or more of it in a soak.
func short(n, long int) int {
	if soak {
		return long
	}
	return n
}

func quiet(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// captureSpec says what a capturing child process does.
type captureSpec struct {
	Path         string
	SoftWALLimit int64
	SpoolLimit   int64
	MaxFileSize  uint64 // RLIMIT_FSIZE of the process: what a full disk looks like
	Crash        string // label to be killed at
	Nth          int    // … the n-th time
	Damage       string // what a kill in the middle of a step leaves: "half file", "half table"
	NoReports    bool
}

type captureReport struct {
	Reports int
	Pos     ltx.Pos
	Stats   Stats
	Err     string
}

// captureJob captures, acknowledges everything, and reports again and again what
// Sync says.
func captureJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec captureSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	cfg := Config{Path: spec.Path, SoftWALLimit: spec.SoftWALLimit, SpoolLimit: spec.SpoolLimit, SpoolTail: 1 << 40, SoleOwner: true}
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Crash = spec.killer()
	c, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	if spec.MaxFileSize > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: spec.MaxFileSize, Max: 1 << 40}); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { err = c.Run(ctx) })
	wg.Go(func() { consumeAll(ctx, c) })
	for n := 1; ctx.Err() == nil; n++ {
		sctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		pos, serr := c.Sync(sctx)
		cancel()
		rep := captureReport{Reports: n, Pos: pos, Stats: c.Stats()}
		if serr != nil {
			rep.Err = serr.Error()
		}
		if out.Send(rep) != nil {
			break
		}
		time.Sleep(3 * time.Millisecond)
	}
	<-ctx.Done()
	wg.Wait()
	return errors.Join(err, c.Close())
}

func consumeAll(ctx context.Context, c *Capture) {
	for at := ltx.TXID(0); ; {
		f, err := c.Next(ctx, at)
		if err != nil {
			return
		}
		at = f.TXID()
		_ = c.Acked(at)
	}
}

// killer returns the hook that kills the process at the wanted point.
func (s captureSpec) killer() func(string) {
	n := 0
	return func(label string) {
		if label != s.Crash {
			return
		}
		if n++; n < s.Nth {
			return
		}
		s.damage()
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// damage leaves what a kill in the middle of a write leaves.
func (s captureSpec) damage() {
	switch dir := StateDir(s.Path); s.Damage {
	case "half file":
		f := lastSpooled(dir)
		_ = os.Truncate(f.path, f.off+f.Size/2)
	case "half table":
		f, err := os.OpenFile(filepath.Join(dir, "checksums"), os.O_RDWR, 0)
		if err != nil {
			return
		}
		defer f.Close()
		var txid [8]byte
		_, _ = f.ReadAt(txid[:], 16)
		txid[0]++                     // of the update under way (below 255 here)
		_, _ = f.WriteAt(txid[:], 32) // unfinished
		file, err := lastSpooled(dir).Open()
		if err != nil {
			return
		}
		defer file.Close()
		var pgno [4]byte // of the first page in the file
		_, _ = file.ReadAt(pgno[:], ltx.HeaderSize)
		_, _ = f.WriteAt([]byte("half new"), 4096+8*int64(binary.BigEndian.Uint32(pgno[:])-1))
	}
}

// lastSpooled finds the newest LTX file of a spool without touching anything.
func lastSpooled(dir string) (last File) {
	names, _ := filepath.Glob(filepath.Join(dir, "spool", "*"))
	if len(names) == 0 {
		return File{}
	}
	path := names[len(names)-1]
	r, err := os.Open(path)
	if err != nil {
		return File{}
	}
	defer r.Close()
	fi, _ := r.Stat()
	if strings.HasSuffix(path, fileSuffix) {
		last, _ = readFile(r, path, 0, fi.Size(), false)
		return last
	}
	for off := int64(0); ; off = last.off + last.Size {
		f, err := readRecord(r, path, off, fi.Size())
		if err != nil {
			return last
		}
		last = f
	}
}

// dropLast undoes the write of the newest LTX file.
func dropLast(dir string) {
	switch f := lastSpooled(dir); {
	case f.path == "":
	case f.off > recordHeader:
		_ = os.Truncate(f.path, f.off-recordHeader)
	default:
		_ = os.Remove(f.path)
	}
}

// capturing is a capture in a child process.
type capturing struct {
	t *testing.T
	p *child.Process
	r *child.Reports[captureReport]
}

func captureIn(t *testing.T, spec captureSpec) *capturing {
	t.Helper()
	r := child.NewReports(captureReport{}, nil)
	p, err := child.Start("capture", spec, r.Line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return &capturing{t, p, r}
}

// caughtUp waits until everything committed before the call is captured.
func (c *capturing) caughtUp() captureReport {
	c.t.Helper()
	first, err := c.r.Last()
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	good := 0
	rep, err := c.r.WaitFor(ctx, c.p, func(r captureReport) (bool, error) {
		if r.Reports > first.Reports && r.Err == "" {
			good++
		}
		return good >= 3, nil
	})
	if err != nil {
		c.t.Fatalf("capture does not catch up: %v, %+v", err, rep)
	}
	return rep
}

func (c *capturing) stop() {
	c.t.Helper()
	if err := c.p.Stop(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// app is an application in this process, with one connection.
type app struct {
	t    testing.TB
	path string
	opts sqlconn.Options
	rnd  *rand.Rand
	db   *sql.DB

	captured *capturing // by whom now; nil: by nobody
}

const appRows = 400

func newApp(t testing.TB, o sqlconn.Options, seed uint64) *app {
	t.Helper()
	if o.BusyTimeout == 0 {
		o.BusyTimeout = 10 * time.Second
	}
	if o.Journal == "" {
		o.Journal = "wal"
	}
	a := &app{t: t, path: filepath.Join(t.TempDir(), "app.db"), opts: o, rnd: rand.New(rand.NewPCG(seed, 2))}
	a.open()
	a.exec("CREATE TABLE a (id INTEGER PRIMARY KEY, v BLOB)")
	a.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO a SELECT i, randomblob(200) FROM n", appRows))
	t.Cleanup(a.close)
	return a
}

func (a *app) open() {
	a.t.Helper()
	if a.db != nil {
		return
	}
	var err error
	if a.db, err = sqlconn.OpenOne(context.Background(), a.path, a.opts); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) close() {
	if a.db != nil {
		if err := a.db.Close(); err != nil {
			a.t.Error(err)
		}
		a.db = nil
	}
}

func (a *app) exec(q string, args ...any) {
	a.t.Helper()
	if _, err := a.db.Exec(q, args...); err != nil {
		a.t.Fatalf("%s: %v", q, err)
	}
}

// update changes n rows in place, each in a transaction of its own.
func (a *app) update(n int) {
	a.t.Helper()
	for range n {
		a.exec("UPDATE a SET v = randomblob(200) WHERE id = ?", 1+a.rnd.IntN(appRows))
	}
}

func (a *app) checkpoint(mode string) sqlconn.CheckpointResult {
	a.t.Helper()
	res, err := sqlconn.Checkpoint(context.Background(), a.db, mode)
	if err != nil {
		a.t.Fatal(err)
	}
	return res
}

// What locks of ours keep waiting takes longer than stuck, to the end of patientApp's
// busy timeout; a slow machine does not.
const stuck = 30 * time.Second

var patientApp = sqlconn.Options{BusyTimeout: 2 * stuck}

// truncate empties the WAL. Where that meets another checkpoint, which may be ours, it
// is busy at once, and tried again.
func (a *app) truncate() {
	a.t.Helper()
	start := time.Now()
	for a.checkpoint("TRUNCATE").Busy {
		if time.Since(start) > stuck {
			a.t.Fatalf("no checkpoint within %s", time.Since(start))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(start); took > stuck {
		a.t.Errorf("a checkpoint took %s", took)
	}
}

// await waits for a condition.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(time.Millisecond); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
