package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ltxstream/ltxstream/internal/keeper"
	"github.com/ltxstream/ltxstream/internal/wal"
)

// live is an open database: the keeper's connection, the WAL with its WRITE
// lock held, and the goroutine that checkpoints it.
type live struct {
	keeper *keeper.Keeper
	db     *wal.DB

	dirty chan struct{} // something was applied
	hurry chan struct{} // the WAL is past half its limit
	moved chan struct{} // closed when the file is no longer under its name
	stop  context.CancelCauseFunc
	wg    sync.WaitGroup
}

// openLive opens the database at path and takes WRITE. A wal-index that a
// killed writer left torn is recovered by opening anew.
func openLive(ctx context.Context, path string) (*live, error) {
	var errs []error
	for range 3 {
		l, err := tryLive(ctx, path)
		if err == nil || !errors.Is(err, wal.ErrTorn) && !errors.Is(err, wal.ErrFormat) {
			return l, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func tryLive(ctx context.Context, path string) (_ *live, err error) {
	l := &live{dirty: make(chan struct{}, 1), hurry: make(chan struct{}, 1), moved: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close(false))
		}
	}()
	if l.keeper, err = keeper.Open(ctx, path); err != nil {
		return nil, err
	}
	if err := l.keeper.PersistWAL(); err != nil {
		return nil, err
	}
	if l.db, err = wal.Open(path); err != nil {
		return nil, err
	}
	if err := l.db.LockWithin(ctx, wal.Write, writeWait); err != nil {
		if errors.Is(err, wal.ErrBusy) {
			err = fmt.Errorf("%w: %w", ErrLocked, err)
		}
		return nil, err
	}
	if _, err := l.db.Header(); err != nil {
		return nil, err
	}
	return l, nil
}

// start starts the checkpointer.
func (l *live) start(r *Replica) {
	ctx, cancel := context.WithCancelCause(context.Background()) // ends with close
	l.stop = cancel
	c := &checkpointer{live: l, journal: r.apply.journal, soft: r.cfg.SoftWALLimit, log: r.log(), counters: &r.counters}
	poke(l.dirty) // frames of before
	l.wg.Go(func() { c.run(ctx) })
}

func (l *live) close(sole bool) error {
	if l.stop != nil {
		l.stop(ErrClosed)
		l.wg.Wait()
	}
	var errs []error
	var db, shm wal.FileID
	if l.db != nil {
		db, shm = l.db.IDs()
		errs = append(errs, l.db.Close())
	}
	if l.keeper != nil {
		errs = append(errs, l.keeper.Close())
	}
	if sole && l.db != nil {
		errs = append(errs, wal.CloseIdle(db), wal.CloseIdle(shm))
	}
	return errors.Join(errs...)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// state is what the database is now.
type dbState struct {
	wal.Header // of the wal-index
	pageSize   uint32
	pages      uint32
}

// state reads the wal-index header, and, where that does not say, page size and
// page count from the file.
func (l *live) state() (s dbState, err error) {
	if s.Header, err = l.db.Header(); err != nil {
		return s, err
	}
	s.pageSize, s.pages = s.Header.PageSize, s.Header.PageCount
	if s.MaxFrame != 0 {
		return s, nil
	}
	var b [100]byte
	if _, err := l.db.ReadFile(b[:], 0); err != nil {
		return s, fmt.Errorf("read database header: %w", err)
	}
	if s.pageSize = pageSizeIn(b[:]); s.pageSize == 0 {
		return s, fmt.Errorf("page size in database header: %w", keeper.ErrNotDatabase)
	}
	n, err := l.db.FileSize()
	s.pages = uint32(n / int64(s.pageSize))
	return s, err
}

// pageSizeIn returns the page size that page 1 names (fileformat2.html section
// 1.3.2), or 0.
func pageSizeIn(page1 []byte) uint32 {
	n := uint32(page1[16])<<8 | uint32(page1[17])
	if n == 1 {
		n = 65536
	}
	if n < 512 || n&(n-1) != 0 {
		return 0
	}
	return n
}
