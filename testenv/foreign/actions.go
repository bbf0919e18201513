package foreign

import (
	"context"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func (w *worker) read(ctx context.Context) error {
	s, err := bank.Check(context.WithoutCancel(ctx), w.db)
	if err != nil {
		return err
	}
	return w.saw(s.Seq)
}

func (w *worker) hold(ctx context.Context) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	plain := context.WithoutCancel(ctx)
	if _, err := conn.ExecContext(plain, "BEGIN DEFERRED"); err != nil { // BeginTx would take the write lock
		return err
	}
	defer conn.ExecContext(plain, "COMMIT") //nolint:errcheck // it only read
	return w.checkUntil(ctx, conn, time.Now().Add(w.cfg.Hold))
}

// checkUntil checks the open transaction again and again: it must stay where it began.
func (w *worker) checkUntil(ctx context.Context, q sqlconn.Querier, end time.Time) error {
	first := int64(-1)
	for {
		s, err := bank.Check(context.WithoutCancel(ctx), q)
		if err != nil {
			return err
		}
		if first >= 0 && s.Seq != first {
			return &Violation{What: "moved", Seq: s.Seq, Detail: fmt.Sprintf("seq %d, then %d in one transaction", first, s.Seq)}
		}
		first = s.Seq
		if err := w.saw(s.Seq); err != nil {
			return err
		}
		if err := w.report(false); err != nil {
			return err
		}
		if !time.Now().Before(end) || !pace.SleepUntil(ctx, time.Now().Add(min(holdCheck, time.Until(end)))) {
			return nil
		}
	}
}

func (w *worker) tryWrite(ctx context.Context) error {
	_, err := w.db.ExecContext(context.WithoutCancel(ctx), "UPDATE ledger SET total = total")
	if sqlconn.IsBusy(err) {
		w.rep.Busy++
		return nil
	}
	if err != nil {
		return err
	}
	w.rep.Writes++
	return &Violation{What: "wrote", Detail: "a stray write went through"}
}

func (w *worker) checkpoint(ctx context.Context) error {
	r, err := sqlconn.Checkpoint(context.WithoutCancel(ctx), w.db, w.cfg.Mode)
	if r.Busy {
		w.rep.Busy++
	}
	return err
}

func (w *worker) write(ctx context.Context) (err error) {
	if w.teller == nil {
		if w.teller, err = bank.NewTeller(context.WithoutCancel(ctx), w.db, w.cfg.Seed, 0); err != nil {
			return err
		}
	}
	if _, ok := w.pacer.Wait(ctx); !ok {
		return nil
	}
	seq, err := w.teller.Transfer(ctx)
	if sqlconn.IsBusy(err) {
		w.rep.Busy++
		return nil
	}
	if err != nil {
		return err
	}
	w.rep.Writes++
	return w.saw(seq)
}

func (w *worker) probe(ctx context.Context) (err error) {
	plain := context.WithoutCancel(ctx)
	if w.seq == nil {
		if w.seq, err = w.db.PrepareContext(plain, bank.SeqSQL); err != nil {
			return err
		}
	}
	var seq int64
	if err := w.seq.QueryRowContext(plain).Scan(&seq); err != nil {
		return err
	}
	at, last, first := time.Now().UnixNano(), w.rep.LastSeq, w.rep.FirstSeq < 0
	if err := w.saw(seq); err != nil {
		return err
	}
	if first || seq != last {
		w.rep.Seen = append(w.rep.Seen, Seen{Seq: seq, At: at})
	}
	return nil
}
