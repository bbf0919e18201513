package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
)

// VerifyError says that the pages of all files together are not the database.
// What was made is removed.
type VerifyError struct {
	TXID      ltx.TXID
	Got, Want ltx.Checksum
	Resumed   bool // some of the pages were written by an earlier run
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("the pages found for TXID %s add up to checksum %s, the database had %s: a file of the plan is damaged or of another history", e.TXID, e.Got, e.Want)
}

// Run fetches the pages, and gives the database its name at path once it is
// whole, verified, synced and has passed check (nil: none), which is called with
// the path of the unfinished file. See [CheckOutput] for what may be there
// before, and again when it gets its name.
//
// A Run that ends early leaves its work beside path, under a hidden name; the
// next one with the same plan goes on there, if the plan leads to a checksum of
// the database, which alone proves what is there already. A database that fails verification
// or check is removed.
func (j *Job) Run(ctx context.Context, path string, force bool, check func(ctx context.Context, path string) error) (err error) {
	out, err := resume(path, force, j)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, out.close()) }()
	err = j.fetch(ctx, out)
	if _, wrong := errors.AsType[*VerifyError](err); wrong || errors.Is(err, ltxfile.ErrDamaged) {
		return errors.Join(err, out.Discard())
	}
	if err != nil {
		return err
	}
	return out.Finish(ctx, check)
}

// fetch brings all pages into the output, and proves them: by the checksum of the
// database, or, where the plan leads to none, by that of each file.
func (j *Job) fetch(ctx context.Context, out *resumable) error {
	resumed := len(out.done) > 0
	sum, err := j.fetchAll(ctx, out)
	switch {
	case err != nil:
		return err
	case j.Post == 0:
		return j.checkTallies()
	case resumed:
		if sum, err = j.checksum(ctx, out); err != nil {
			return err
		}
	}
	if sum != j.Post {
		return &VerifyError{TXID: j.Header.MaxTXID, Got: sum, Want: j.Post, Resumed: resumed}
	}
	return nil
}

// fetchAll fetches the segments that are not there yet, several at a time, and
// returns the checksum over the pages of those.
func (j *Job) fetchAll(ctx context.Context, out *resumable) (ltx.Checksum, error) {
	fetched := &counter{tell: j.opts.Progress}
	g, gctx := errgroup.WithContext(ctx)
	queue := make(chan int)
	g.Go(func() error {
		defer close(queue)
		for n := range j.segments {
			if out.done[n] {
				fetched.add(j.segments[n].size)
				continue
			}
			select {
			case queue <- n:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
		}
		return nil
	})
	var mu sync.Mutex
	var sum ltx.Checksum
	for range j.opts.Parallelism {
		g.Go(func() error {
			w := j.newWorker(out)
			for n := range queue {
				if err := w.fetch(gctx, j.segments[n], fetched); err != nil {
					return err
				}
				if err := out.wrote(n); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum ^= w.sum
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return ltx.ChecksumFlag | sum, nil
}

// checksum reads the whole output back: what an earlier run wrote was not seen
// by this one.
func (j *Job) checksum(ctx context.Context, out *resumable) (ltx.Checksum, error) {
	size := int(j.Header.PageSize)
	sum := ltx.Checksum(ltx.ChecksumFlag)
	shift := ltxfile.ShiftOf(j.Header.PageSize)
	buf := make([]byte, max(size, maxSegment))
	r := io.NewSectionReader(out.File, 0, int64(j.Header.Commit)*int64(size))
	for pgno := uint32(1); pgno <= j.Header.Commit; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf)
		if err != nil && err != io.ErrUnexpectedEOF {
			return 0, fmt.Errorf("read back %s: %w", out.part, err)
		}
		for at := 0; at < n; at, pgno = at+size, pgno+1 {
			if pgno != j.Header.LockPgno() {
				sum = ltx.ChecksumFlag | (sum ^ ltxfile.PageSum(shift, pgno, ltxfile.DataCRC(buf[at:at+size])))
			}
		}
	}
	return sum, nil
}

// checkTallies holds each file, which was read whole, against its own checksum.
func (j *Job) checkTallies() error {
	for _, p := range j.files {
		if err := p.tally.Check(p.trailer); err != nil {
			return p.fault(err)
		}
	}
	return nil
}

// verifyFiles reads each file of the plan whole.
func (j *Job) verifyFiles(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(j.opts.Parallelism)
	for _, p := range j.files {
		g.Go(func() error {
			r, err := p.source.Open(ctx, p.File.File, 0, -1)
			if err != nil {
				return p.fault(err)
			}
			_, err = ltxfile.Verify(r)
			return p.fault(errors.Join(err, r.Close()))
		})
	}
	return g.Wait()
}
