package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ltxstream/ltxstream/testenv/bank"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/pace"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// earlySpec is a reader that opens the replica before anything was applied: it
// holds one connection to an empty file and waits for the bank to appear in it.
type earlySpec struct {
	Path string
	DB   sqlconn.Options
}

type earlyReport struct {
	Waiting int   // looks that found no bank yet
	Checks  int   // looks at a bank
	Seq     int64 // newest
}

func earlyReaderJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var s earlySpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	db, err := sqlconn.OpenOne(ctx, s.Path, s.DB)
	if err != nil {
		return err
	}
	defer db.Close()
	var rep earlyReport
	for pacer := pace.NewPacer(500); ; {
		if _, ok := pacer.Wait(ctx); !ok {
			return nil
		}
		st, err := bank.Check(context.WithoutCancel(ctx), db)
		switch {
		case err != nil && rep.Checks == 0 && strings.Contains(err.Error(), "no such table"):
			rep.Waiting++
		case err != nil:
			return err
		case st.Seq < rep.Seq:
			return fmt.Errorf("went back from %d to %d", rep.Seq, st.Seq)
		default:
			rep.Checks, rep.Seq = rep.Checks+1, st.Seq
		}
		if err := out.Send(rep); err != nil {
			return err
		}
	}
}
