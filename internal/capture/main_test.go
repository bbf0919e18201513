package capture

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	child.Dispatch(child.Jobs{"writer": writerJob, "capture": captureJob, "saturate": saturateJob})
	goleak.VerifyTestMain(m)
}

// writerSpec says what a writing child process does.
type writerSpec struct {
	Path        string
	Seed        uint64
	Statements  int
	Options     sqlconn.Options
	Checkpoints int // one in so many statements is a checkpoint of some mode
	Vacuums     int // one in so many is a VACUUM
	Reconnects  int // one in so many closes the connection first
	Pause       time.Duration
	Hold        bool // wait to be stopped or killed, with the connection open
	Open        bool // … and inside a transaction that has spilled
	Tolerant    bool // go on after SQLITE_BUSY
}

type writerReport struct {
	Done        int
	Checkpoints int
	Busy        int // checkpoints that said busy
	Refused     int // other statements
	Slowest     time.Duration
}

func writerJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec writerSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	w := &writer{spec: spec, rnd: rand.New(rand.NewPCG(spec.Seed, 1))}
	if err := w.run(ctx); err != nil {
		return err
	}
	if spec.Open {
		if _, err := w.db.ExecContext(ctx, "BEGIN IMMEDIATE; INSERT INTO t(v) VALUES (randomblob(2000000))"); err != nil {
			return err
		}
	}
	if err := out.Send(w.report); err != nil {
		return err
	}
	if spec.Hold {
		<-ctx.Done()
	}
	return w.db.Close()
}

// writer is a seeded random application.
type writer struct {
	spec   writerSpec
	rnd    *rand.Rand
	db     *sql.DB
	report writerReport
}

func (w *writer) run(ctx context.Context) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	for w.report.Done < w.spec.Statements && ctx.Err() == nil {
		start := time.Now()
		if err := w.one(ctx); w.spec.Tolerant && sqlconn.IsBusy(err) {
			w.report.Refused++
		} else if err != nil {
			return fmt.Errorf("statement %d: %w", w.report.Done, err)
		}
		w.report.Slowest = max(w.report.Slowest, time.Since(start))
		w.report.Done++
		if w.spec.Pause > 0 {
			time.Sleep(w.spec.Pause)
		}
	}
	return nil
}

func (w *writer) connect(ctx context.Context) (err error) {
	if w.db, err = sqlconn.OpenOne(ctx, w.spec.Path, w.spec.Options); err != nil {
		return err
	}
	_, err = w.db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, k TEXT, v BLOB);
		CREATE INDEX IF NOT EXISTS tk ON t(k);
		CREATE TABLE IF NOT EXISTS w (a TEXT PRIMARY KEY, b) WITHOUT ROWID`)
	return err
}

func (w *writer) oneIn(n int) bool { return n > 0 && w.rnd.IntN(n) == 0 }

func (w *writer) one(ctx context.Context) error {
	switch {
	case w.oneIn(w.spec.Reconnects):
		if err := w.db.Close(); err != nil {
			return err
		}
		return w.connect(ctx)
	case w.oneIn(w.spec.Checkpoints):
		modes := sqlconn.CheckpointModes()
		res, err := sqlconn.Checkpoint(ctx, w.db, modes[w.rnd.IntN(len(modes))])
		w.report.Checkpoints++
		if res.Busy {
			w.report.Busy++
		}
		return err
	case w.oneIn(w.spec.Vacuums):
		_, err := w.db.ExecContext(ctx, "VACUUM")
		return err
	}
	return w.change(ctx)
}

func (w *writer) change(ctx context.Context) error {
	r := w.rnd
	var err error
	switch r.IntN(10) {
	case 0:
		_, err = w.db.ExecContext(ctx, "DELETE FROM t WHERE id % 7 = ?", r.IntN(7))
	case 1:
		_, err = w.db.ExecContext(ctx, "UPDATE t SET v = randomblob(?) WHERE id % 11 = ?", r.IntN(3000), r.IntN(11))
	case 2:
		_, err = w.db.ExecContext(ctx, "INSERT OR REPLACE INTO w VALUES (?, randomblob(20))", fmt.Sprint(r.IntN(1000)))
	case 3:
		_, err = w.db.ExecContext(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?) INSERT INTO t(k, v) SELECT hex(randomblob(8)), randomblob(400) FROM n", 1+r.IntN(300))
	case 4:
		_, err = w.db.ExecContext(ctx, fmt.Sprintf("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS x%d(a); INSERT INTO x%[1]d VALUES (zeroblob(%d)); DROP TABLE IF EXISTS x%d; COMMIT", r.IntN(5), r.IntN(40000), r.IntN(5)))
	default:
		_, err = w.db.ExecContext(ctx, "INSERT INTO t(k, v) VALUES (hex(randomblob(4)), randomblob(?))", r.IntN(200))
	}
	return err
}
