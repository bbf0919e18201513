package foreign

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// job is the Go runtime: it does the action until ctx ends and reports.
func job(ctx context.Context, spec json.RawMessage, out *child.Output) error {
	var cfg Config
	if err := json.Unmarshal(spec, &cfg); err != nil {
		return fmt.Errorf("decode config: %w", err)
	}
	w := &worker{cfg: cfg, out: out, pacer: pace.NewPacer(cfg.Rate)}
	w.rep.FirstSeq = -1
	defer w.close()
	return w.run(ctx)
}

// worker is one foreign process: a connection, the report so far, and the action's round.
type worker struct {
	cfg    Config
	out    *child.Output
	db     *sql.DB
	seq    *sql.Stmt // of a Probe
	teller *bank.Teller
	pacer  *pace.Pacer
	rep    Report
	sent   time.Time
}

// run uses contexts without a Done channel for statements: with one, the driver starts a goroutine for each.
func (w *worker) run(ctx context.Context) error {
	round, ok := map[Action]func(context.Context) error{
		Read: w.read, Hold: w.hold, TryWrite: w.tryWrite, Checkpoint: w.checkpoint, Write: w.write, Probe: w.probe,
	}[w.cfg.Action]
	if !ok {
		return fmt.Errorf("unknown action %q", w.cfg.Action)
	}
	for ctx.Err() == nil && w.rep.Violation == nil && (w.cfg.Limit == 0 || w.rep.Rounds < w.cfg.Limit) {
		if err := w.round(ctx, round); err != nil {
			w.violate(err)
		}
		if err := w.report(false); err != nil {
			return err
		}
		w.pause(ctx)
	}
	return w.report(true)
}

func (w *worker) round(ctx context.Context, round func(context.Context) error) error {
	start := time.Now()
	if err := w.open(ctx); err != nil {
		return err
	}
	err := round(ctx)
	w.rep.Rounds++
	w.rep.MaxRound = max(w.rep.MaxRound, time.Since(start))
	if w.cfg.Fresh {
		w.close()
	}
	return err
}

func (w *worker) open(ctx context.Context) (err error) {
	if w.db != nil {
		return nil
	}
	if w.db, err = sqlconn.OpenOne(context.WithoutCancel(ctx), w.cfg.Path, w.cfg.DB); err != nil {
		return err
	}
	if w.rep.SQLite == "" {
		return w.db.QueryRow("SELECT sqlite_version()").Scan(&w.rep.SQLite)
	}
	return nil
}

func (w *worker) close() {
	if w.seq != nil {
		_ = w.seq.Close()
	}
	if w.teller != nil {
		_ = w.teller.Close()
	}
	if w.db != nil {
		_ = w.db.Close()
	}
	w.db, w.seq, w.teller = nil, nil, nil
}

func (w *worker) pause(ctx context.Context) {
	if w.cfg.Interval > 0 {
		pace.SleepUntil(ctx, time.Now().Add(w.cfg.Interval))
	}
}

// saw counts a state. A sequence below the newest one seen is a violation.
func (w *worker) saw(seq int64) error {
	w.rep.Checks++
	if w.rep.FirstSeq < 0 {
		w.rep.FirstSeq, w.rep.LastSeq, w.rep.States = seq, seq, 1
		return nil
	}
	if seq < w.rep.LastSeq {
		return &Violation{What: "backwards", Seq: seq, Detail: fmt.Sprintf("seq %d after %d", seq, w.rep.LastSeq)}
	}
	if seq > w.rep.LastSeq {
		w.rep.States++
	}
	w.rep.LastSeq = seq
	return nil
}

// violate keeps err as the violation that ends the work.
func (w *worker) violate(err error) {
	v := &Violation{What: "error", Seq: w.rep.LastSeq, Detail: err.Error()}
	if own, ok := errors.AsType[*Violation](err); ok {
		v = own
	} else if _, ok := errors.AsType[*bank.InvariantError](err); ok {
		v.What = "invariant"
	} else if sqlconn.IsBusy(err) {
		v.What = "busy"
		w.rep.Busy++
	}
	w.rep.Violation = v
}

func (w *worker) report(final bool) error {
	if !final && w.rep.Violation == nil && time.Since(w.sent) < reportEvery {
		return nil
	}
	w.rep.Final = final
	w.sent = time.Now()
	err := w.out.Send(w.rep)
	w.rep.Seen = nil
	return err
}
