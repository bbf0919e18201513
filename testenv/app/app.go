package app

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// Config says what the application does. It travels to child processes as JSON.
type Config struct {
	Path      string          `json:"path"`
	DB        sqlconn.Options `json:"db"`
	Bank      bank.Config     `json:"bank"`
	Seed      uint64          `json:"seed"`
	Rate      float64         `json:"rate"`       // transactions per second, open loop; 0 means as fast as it can
	Limit     int64           `json:"limit"`      // transactions; 0 means until the context ends
	Duration  time.Duration   `json:"duration"`   // 0 means until the context ends
	NoteBytes int             `json:"note_bytes"` // random payload of each transfer
	// Checkpoint, a mode of PRAGMA wal_checkpoint, is run by the application itself after every CheckpointEvery transfers.
	Checkpoint      string `json:"checkpoint,omitempty"`
	CheckpointEvery int64  `json:"checkpoint_every,omitempty"`

	Observe func(Commit) `json:"-"` // called after each commit, on the writing goroutine; nil means nobody
}

// Commit is one committed transfer. Times are Unix nanoseconds, comparable between processes of one machine.
type Commit struct {
	Seq   int64 `json:"seq"`
	Start int64 `json:"start"` // before the statement
	End   int64 `json:"end"`   // after SQLite said it was committed
}

// Report is how a run went. Latency is of one transfer as the application sees it, waits for locks included.
type Report struct {
	Commits  int64         `json:"commits"`
	LastSeq  int64         `json:"last_seq"`
	Elapsed  time.Duration `json:"elapsed"`
	TPS      float64       `json:"tps"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
	Busy     int64         `json:"busy"`     // transfers refused with SQLITE_BUSY and tried again
	MaxLate  time.Duration `json:"max_late"` // furthest behind the wanted rate
	Ckpts    int64         `json:"ckpts"`
	CkptBusy int64         `json:"ckpt_busy"`
	CkptMax  time.Duration `json:"ckpt_max"`
}

func (r Report) String() string {
	return fmt.Sprintf("%d commits in %s: %.0f tx/s, commit p50 %s p99 %s max %s, busy %d, checkpoints %d (%d busy, max %s)",
		r.Commits, r.Elapsed.Round(time.Millisecond), r.TPS, r.P50, r.P99, r.Max, r.Busy, r.Ckpts, r.CkptBusy, r.CkptMax)
}

// Run opens cfg.Path, makes the bank if it is not there, and writes until the limit, the duration or ctx ends, whichever is
// first; the end of ctx is not an error. It returns when its connection is closed.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Duration)
		defer cancel()
	}
	db, err := sqlconn.OpenOne(ctx, cfg.Path, cfg.DB)
	if err != nil {
		return Report{}, err
	}
	defer db.Close()
	if err := bank.Create(ctx, db, cfg.Bank); err != nil {
		return Report{}, err
	}
	return RunOn(ctx, db, cfg)
}

// RunOn is Run on a handle of the caller's (one connection), with a bank in place. It ignores Path, DB, Bank and Duration.
func RunOn(ctx context.Context, db *sql.DB, cfg Config) (Report, error) {
	teller, err := bank.NewTeller(context.WithoutCancel(ctx), db, cfg.Seed, cfg.NoteBytes)
	if err != nil {
		return Report{}, err
	}
	defer teller.Close()
	w := &writer{cfg: cfg, db: db, teller: teller, pacer: pace.NewPacer(cfg.Rate), began: time.Now()}
	err = w.run(ctx)
	return w.report(), err
}

// writer is one run: the counters and the loop.
type writer struct {
	cfg     Config
	db      *sql.DB
	teller  *bank.Teller
	pacer   *pace.Pacer
	began   time.Time
	latency Histogram
	rep     Report
}

func (w *writer) run(ctx context.Context) error {
	for w.cfg.Limit == 0 || w.rep.Commits < w.cfg.Limit {
		due, ok := w.pacer.Wait(ctx)
		if !ok {
			return nil
		}
		w.rep.MaxLate = max(w.rep.MaxLate, time.Since(due))
		if err := w.commitOne(ctx); err != nil {
			return err
		}
		if err := w.checkpoint(ctx); err != nil {
			return err
		}
	}
	return nil
}

// commitOne makes one transfer, trying again while the database is locked.
func (w *writer) commitOne(ctx context.Context) error {
	start := time.Now()
	for ctx.Err() == nil {
		seq, err := w.teller.Transfer(ctx)
		if sqlconn.IsBusy(err) {
			w.rep.Busy++
			continue
		}
		if err != nil {
			return err
		}
		w.committed(seq, start, time.Now())
		return nil
	}
	return nil
}

func (w *writer) committed(seq int64, start, end time.Time) {
	w.latency.Add(end.Sub(start))
	w.rep.Commits++
	w.rep.LastSeq = seq
	if w.cfg.Observe != nil {
		w.cfg.Observe(Commit{Seq: seq, Start: start.UnixNano(), End: end.UnixNano()})
	}
}

func (w *writer) checkpoint(ctx context.Context) error {
	if w.cfg.CheckpointEvery == 0 || w.rep.Commits%w.cfg.CheckpointEvery != 0 {
		return nil
	}
	start := time.Now()
	r, err := sqlconn.Checkpoint(context.WithoutCancel(ctx), w.db, w.cfg.Checkpoint)
	if err != nil {
		return err
	}
	w.rep.Ckpts++
	if r.Busy {
		w.rep.CkptBusy++
	}
	w.rep.CkptMax = max(w.rep.CkptMax, time.Since(start))
	return nil
}

func (w *writer) report() Report {
	r := w.rep
	r.Elapsed = time.Since(w.began)
	r.TPS = float64(r.Commits) / r.Elapsed.Seconds()
	r.P50, r.P99, r.Max = w.latency.Quantile(0.5), w.latency.Quantile(0.99), w.latency.Max()
	return r
}
